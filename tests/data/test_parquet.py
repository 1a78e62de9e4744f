from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tff import parquet
from tff.data.dataset import read_bytes
from tff.data.folder import Folder

LAYOUT = {"train": {"parquet": True}, "test": {"parquet": True}}


def picture(number: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8 + number % 3, 9, 3), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()


def write(path, rows, **columns):
    table = {
        "image_data": [picture(i) for i in range(rows)],
        "label": [i % 2 for i in range(rows)],
        "model_name": [("sd", "flux")[i % 4 // 2] if i % 2 else "camera" for i in range(rows)],
        "split": ["train" if i < rows // 2 else "test" for i in range(rows)],
    }
    table = {k: v for k, v in (table | columns).items() if v is not None}
    pq.write_table(pa.table(table), path, row_group_size=7)


@pytest.mark.parametrize("struct", [False, True])
@pytest.mark.parametrize("words", [False, True])
def test_rows(tmp_path, struct, words):
    data = [picture(i) for i in range(40)]
    columns = {"image_data": [{"bytes": d, "path": None} for d in data]} if struct else {}
    if words:
        columns["label"] = ["fake" if i % 2 else "real" for i in range(40)]
    root = tmp_path / "set"
    root.mkdir()
    write(root / "a.parquet", 40, **columns)
    options = {"layout": LAYOUT, "cache": str(tmp_path / "cache"), "fractions": (0.5, 0.3)}
    folder = Folder(str(root), **options)
    test = folder.test()
    assert len(test) == 20
    assert test.generators == ["flux", "sd"]
    assert test.counts() == {"flux": "10 real, 5 generated", "sd": "10 real, 5 generated"}
    for row in range(20):
        expected = np.asarray(Image.open(io.BytesIO(data[20 + row])))
        assert np.array_equal(test[0, row].image.permute(1, 2, 0), expected)
        assert read_bytes(test.manifest["path"][row]) == data[20 + row]
    train, val = folder.manifest("train"), folder.manifest("val")
    assert len(train) + len(val) == 20
    assert not set(train["path"]) & set(val["path"])
    again = Folder(str(root), **options)
    assert again.manifest("test").equals(test.manifest)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another table"])
def test_damaged_cache_is_rebuilt(tmp_path, damage, caplog):
    root, cache = tmp_path / "set", tmp_path / "cache"
    root.mkdir()
    write(root / "a.parquet", 12, split=["test"] * 12)
    options = {"layout": LAYOUT, "cache": str(cache)}
    first = Folder(str(root), **options).manifest("test")
    (store,) = cache.rglob("rows-*.parquet")
    whole = store.read_bytes()
    if damage == "another table":
        pq.write_table(pa.table({"path": ["x"]}), store)
    else:
        at = whole.index(b"flux") + 1  # a letter of a name: its bytes have a checksum
        flipped = whole[:at] + b"L" + whole[at + 1 :]
        store.write_bytes({"cut": whole[:-20], "flipped": flipped, "empty": b""}[damage])
    assert Folder(str(root), **options).manifest("test").equals(first)
    assert "not readable" in caplog.text
    assert store.read_bytes() == whole
    assert list(store.parent.iterdir()) == [store]


def test_files_of_a_set_by_their_names(tmp_path):
    write(tmp_path / "train-0.parquet", 40, split=None)
    write(tmp_path / "test-0.parquet", 6, split=None)
    assert len(Folder(str(tmp_path), layout=LAYOUT).manifest("test")) == 6


def test_error_names_the_problem(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Folder(str(tmp_path / "no"), layout=LAYOUT).manifest("test")
    with pytest.raises(ValueError, match=r"no \.parquet files"):
        Folder(str(tmp_path), layout=LAYOUT).manifest("test")
    write(tmp_path / "a.parquet", 8, label=None)
    with pytest.raises(ValueError, match=r"a\.parquet: no column label"):
        Folder(str(tmp_path), layout=LAYOUT).manifest("test")
    write(tmp_path / "a.parquet", 8, label=["cat"] * 8)
    with pytest.raises(ValueError, match=r"a\.parquet: labels \['cat'\]; known: 0, 1, real"):
        Folder(str(tmp_path), layout=LAYOUT).manifest("test")
    write(tmp_path / "a.parquet", 8, label=[1] * 8)
    with pytest.raises(ValueError, match="all real or all generated, both are needed"):
        Folder(str(tmp_path), layout=LAYOUT).manifest("test")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"a\.parquet: not a readable Parquet file"):
        Folder(str(tmp_path), layout=LAYOUT).manifest("test")


def test_broken_images(tmp_path):
    data = [picture(i) for i in range(12)]
    data[7], data[9], data[11] = b"", None, data[11][:40]
    write(tmp_path / "a.parquet", 12, image_data=data, split=["test"] * 12)
    with pytest.raises(
        ValueError, match=r"3 of 12 images cannot be used: .*a\.parquet::1\.0 \(empty"
    ):
        Folder(str(tmp_path), layout=LAYOUT).manifest("test")
    images = Folder(str(tmp_path), layout=LAYOUT, on_corrupt="skip").test()
    assert (len(images), len(images.skipped)) == (9, 3)


def test_folder_of_a_file_decides_its_split(tmp_path):
    for folder in ("train", "test"):
        (tmp_path / folder / "data").mkdir(parents=True)
        write(tmp_path / folder / "data/shard.parquet", 20, split=["CompEval"] * 20)
    data = Folder(str(tmp_path), layout=LAYOUT, fractions=(0.5, 0.3))
    assert len(data.images("test")) == 20
    assert len(data.images("train")) + len(data.images("val")) == 20
    assert all("/test/" in path for path in data.images("test").manifest["path"])


def test_large_groups_of_rows_are_read_as_well(tmp_path, monkeypatch):
    """Arrow holds at most 2 GB of a column as references to different values."""
    write(tmp_path / "a.parquet", 12, split=["test"] * 12)
    expected = Folder(str(tmp_path), layout=LAYOUT).manifest("test")
    monkeypatch.setattr(parquet, "_ALWAYS_ALLOWED", 1 << 20)
    monkeypatch.setattr(parquet, "_FOLDED", 1000)
    with (tmp_path / "a.parquet").open("rb") as stream:
        assert "dictionary" in str(
            parquet.open_parquet(stream).schema_arrow.field("image_data").type
        )
        monkeypatch.setattr(parquet, "_ALWAYS_ALLOWED", 100)
        assert parquet.open_parquet(stream).schema_arrow.field("image_data").type == pa.binary()
    monkeypatch.setattr(parquet, "_RATIO", 10**9)
    assert Folder(str(tmp_path), layout=LAYOUT).manifest("test").equals(expected)
