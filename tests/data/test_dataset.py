from __future__ import annotations

from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tff.augmentations.blur import GaussianBlur
from tff.augmentations.color import Grayscale
from tff.augmentations.jpeg import JPEG
from tff.data.dataset import Images, View, load_pixels
from tff.data.layout import LABELS
from tff.data.loaders import EvaluationBatches, TrainingBatches, loader
from tff.data.manifest import list_images

NOISE = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def put(root: Path, *names: str, size: tuple[int, int] = (6, 5)) -> None:
    """Small pictures, each of its own color."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i, 100, 200)).save(path)


def test_rows(tmp_path):
    put(tmp_path, "b/1_fake/x.png", "b/0_real/y.jpg", "a/1_fake/z.PNG", "a/0_real/z.bmp")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    table = list_images(tmp_path).table
    assert [Path(p).relative_to(tmp_path).as_posix() for p in table["path"]] == [
        "a/0_real/z.bmp",
        "a/1_fake/z.PNG",
        "b/0_real/y.jpg",
        "b/1_fake/x.png",
    ]
    assert table["label"].tolist() == [0, 1, 0, 1]
    assert table["generator"].tolist() == ["a", "a", "b", "b"]
    assert set(table["height"]) == {5}
    assert set(table["width"]) == {6}
    assert table.index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("real", "fake"), [("0_real", "1_fake"), ("real", "fake"), ("REAL", "FAKE"), ("nature", "ai")]
)
def test_names_of_labels(real, fake, tmp_path):
    put(tmp_path, f"g/{real}/x.png", f"g/{fake}/x.png")
    found = dict(
        zip(
            list_images(tmp_path).table["path"].map(lambda p: Path(p).parent.name),
            list_images(tmp_path).table["label"],
            strict=True,
        )
    )
    assert found == {real: 0, fake: 1}


def test_all_names_are_tried():
    assert len(LABELS) == 8


def test_labels_at_any_depth(tmp_path):
    put(
        tmp_path,
        "ai/nature/x.png",  # in the order of the alphabet "ai" would be 0
        "ai/ai/x.png",
        "g/deep/real/y.png",
        "g/fake/deep/er/y.png",
    )
    labels = {
        Path(p).relative_to(tmp_path).as_posix(): v
        for p, v in list_images(tmp_path).table[["path", "label"]].itertuples(index=False)
    }
    assert labels == {
        "ai/nature/x.png": 0,
        "ai/ai/x.png": 1,
        "g/deep/real/y.png": 0,
        "g/fake/deep/er/y.png": 1,
    }


def test_flat_tree_takes_the_name_of_the_root(tmp_path, monkeypatch):
    put(tmp_path / "set", "0_real/x.png", "1_fake/x.png")
    (tmp_path / "other").mkdir()
    assert set(list_images(tmp_path / "set").table["generator"]) == {"set"}
    assert set(list_images(tmp_path / "other" / ".." / "set").table["generator"]) == {"set"}


def test_class_folders(tmp_path):
    put(tmp_path, *(f"gan/{c}/{k}/x.png" for c in ("car", "cat") for k in ("0_real", "1_fake")))
    table = list_images(tmp_path).table
    assert set(table["generator"]) == {"gan"}
    assert table["label"].tolist() == [0, 1, 0, 1]


def test_unicode_and_spaces(tmp_path):
    put(tmp_path, "gén 猫/0_real/é 1.png", "gén 猫/1_fake/日本.jpeg")
    table = list_images(tmp_path).table
    assert set(table["generator"]) == {"gén 猫"}
    assert [load_pixels(p).shape for p in table["path"]] == [(5, 6, 3)] * 2


def test_generator_of_one_kind(tmp_path):
    put(tmp_path, "a/0_real/x.png", "a/1_fake/x.png", "lonely/1_fake/x.png")
    with pytest.raises(ValueError, match=r"lonely \(only generated\)") as caught:
        list_images(tmp_path)
    assert "a (only" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is text, not an image", b"\x89PNG\r\n\x1a\n"])
def test_no_image_behind_the_name(content, tmp_path):
    put(tmp_path, "0_real/x.png", "1_fake/x.png")
    (tmp_path / "1_fake" / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 3 images cannot be used: .*bad\.png \(\w+"):
        list_images(tmp_path)
    with pytest.raises(ValueError, match=r"bad\.png"):
        load_pixels(str(tmp_path / "1_fake" / "bad.png"))


def test_no_label_no_folder_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no images"):
        list_images(tmp_path)
    put(tmp_path, "g/train/x.png")
    with pytest.raises(ValueError, match=r"no folder above g/train/x\.png says .*0_real"):
        list_images(tmp_path)


def test_root_of_a_label_name_does_not_count(tmp_path):
    put(tmp_path / "fake", "x.png")
    with pytest.raises(ValueError, match=r"no folder above x\.png"):
        list_images(tmp_path / "fake")


ODD = {
    "gray.png": Image.fromarray(NOISE[..., 0]),
    "palette.png": Image.fromarray(NOISE).quantize(16),
    "rgba.png": Image.fromarray(np.dstack([NOISE, NOISE[..., :1]])),
    "gray_alpha.png": Image.fromarray(NOISE[..., :2], "LA"),
    "binary.png": Image.fromarray(NOISE[..., 0]).convert("1"),
    "rgb.tif": Image.fromarray(NOISE),
    "rgb.webp": Image.fromarray(NOISE),
    "gray.jpg": Image.fromarray(NOISE[..., 0]),
}


@pytest.mark.parametrize("name", ODD)
def test_decode_as_pillow(name, tmp_path):
    path = tmp_path / name
    ODD[name].save(path, **({"lossless": True} if name.endswith("webp") else {}))
    found = load_pixels(str(path))
    assert found.dtype == np.uint8
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (1 if name.endswith("jpg") else 0)


def test_decode_sixteen_bits(tmp_path):
    deep = NOISE.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    assert np.array_equal(load_pixels(str(tmp_path / "a.png")), NOISE)
    cv2.imwrite(str(tmp_path / "b.png"), deep[..., 0])
    assert np.array_equal(load_pixels(str(tmp_path / "b.png")), NOISE[..., :1].repeat(3, axis=2))


def test_decode_cmyk(tmp_path):
    smooth = cv2.resize(NOISE[:3, :4], (40, 32), interpolation=cv2.INTER_LINEAR)
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth).convert("CMYK").save(path, quality=98)
    found = load_pixels(str(path))
    assert found.shape == (32, 40, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - Image.open(path).convert("RGB")).mean() < 4


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_no_rotation_by_exif(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    put(tmp_path, "0_real/x.png")
    path = tmp_path / "1_fake" / "x.jpg"
    path.parent.mkdir()
    Image.fromarray(NOISE).save(path, exif=exif, quality=95)
    found = load_pixels(str(path))
    assert found.shape == NOISE.shape
    assert np.abs(found.astype(int) - Image.open(path)).max() <= 1
    row = list_images(tmp_path).table.iloc[1]
    assert (row["height"], row["width"]) == NOISE.shape[:2]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_image_cut_short(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.9)])
    with pytest.raises(ValueError, match=rf"a\.{ending} .* damaged"):
        load_pixels(str(path))


def test_damaged_image_is_named(tmp_path):
    put(tmp_path, "a.png", size=(50, 50))
    path = tmp_path / "a.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"a\.png \(40 bytes\): damaged"):
        load_pixels(str(path))


@pytest.fixture
def tree(tmp_path) -> Path:
    generator = np.random.default_rng(1)
    for i, label in enumerate(["0_real", "1_fake"] * 4):
        folder = tmp_path / "abcd"[i // 4] / label
        folder.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(0, 256, (20 + i, 26 - i, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return tmp_path


def test_sample(tree):
    images = Images(list_images(tree).table)
    assert len(images) == 8
    for row in range(8):
        batch = images[0, row]
        path = images.manifest["path"][row]
        assert batch.image.dtype == torch.uint8
        assert np.array_equal(batch.image.movedim(0, -1), Image.open(path))
        assert batch.label == (1 if "1_fake" in path else 0)
        assert batch.label.dtype == batch.index.dtype == torch.int64
        assert batch.index == row
        assert tuple(batch.image.shape[1:]) == tuple(images.sizes()[row])


@pytest.mark.parametrize("crop", [1, 7, 16])
def test_crop_is_the_centre(crop, tree):
    images = Images(list_images(tree).table, view=View(f"center{crop}"))
    whole = Images(list_images(tree).table)
    for row in range(8):
        found, full = images[0, row].image, whole[0, row].image
        assert tuple(found.shape[1:]) == (crop, crop) == tuple(images.sizes()[row])
        top, left = ((side - crop) // 2 for side in full.shape[1:])
        assert torch.equal(found, full[:, top : top + crop, left : left + crop])
    with pytest.raises(ValueError, match=r"smaller than data\.crop=center27"):
        Images(list_images(tree).table, view=View("center27"))[0, 0]


def pipeline() -> A.Compose:
    return A.Compose(
        [
            GaussianBlur(p=0.7),
            JPEG(p=0.7),
            A.RandomCrop(12, 12),
            A.HorizontalFlip(p=0.5),
            Grayscale(p=0.3),
        ]
    )


def test_samples_are_functions_of_seed_epoch_and_row(tree):
    table = list_images(tree).table

    def sample(seed: int, epoch: int, row: int) -> bytes:
        images = Images(table, transform=pipeline(), seed=seed)
        return images[epoch, row].image.numpy().tobytes()

    images = Images(table, transform=pipeline(), seed=3)
    forward = [images[1, row].image.numpy().tobytes() for row in range(8)]
    backward = [images[1, row].image.numpy().tobytes() for row in reversed(range(8))][::-1]
    assert forward == backward == [sample(3, 1, row) for row in range(8)]
    assert sum(sample(3, 2, row) != forward[row] for row in range(8)) >= 6
    assert sum(sample(4, 1, row) != forward[row] for row in range(8)) >= 6


def test_workers_do_not_matter(tree):
    images = Images(list_images(tree).table, transform=pipeline(), seed=5)

    def run(workers: int) -> list[bytes]:
        batches = TrainingBatches(8, 2, seed=1)
        found = []
        made = loader(images, batches, workers)
        for epoch in range(2):
            batches.set_epoch(epoch)
            for batch in made:
                found.append(batch.index.numpy().tobytes() + batch.image.numpy().tobytes())
        return found

    alone = run(0)
    assert len(set(alone)) == 8
    assert alone == run(2)


def test_loader_stacks(tree):
    images = Images(list_images(tree).table, view=View("center16"))
    (batch,) = loader(images, EvaluationBatches(images, 8), 0)
    assert batch.image.shape == (8, 3, 16, 16)
    assert batch.label.tolist() == images.manifest["label"].tolist()
    assert batch.index.tolist() == list(range(8))


def table(**counts: tuple[int, int]) -> pd.DataFrame:
    rows = [
        {"path": f"{g}/{label}/{i}", "label": label, "generator": g, "height": 8, "width": 8}
        for g, both in counts.items()
        for label, count in enumerate(both)
        for i in range(count)
    ]
    return pd.DataFrame(rows)


def test_limit():
    images = Images(table(b=(9, 2), a=(4, 7)))
    few = images.subsample(3, seed=1)
    assert few.manifest.groupby(["generator", "label"]).size().to_dict() == {
        ("a", 0): 3,
        ("a", 1): 3,
        ("b", 0): 3,
        ("b", 1): 2,
    }
    assert few.manifest.index.tolist() == list(range(11))
    assert few.manifest["path"].is_unique
    assert set(few.manifest["path"]) <= set(images.manifest["path"])
    assert few.manifest.equals(images.subsample(3, seed=1).manifest)
    assert not few.manifest.equals(images.subsample(3, seed=2).manifest)
    assert images.subsample(None) is images


def test_counts_and_generators():
    images = Images(table(b=(9, 2), a=(4, 7)))
    assert images.generators == ["a", "b"]
    assert images.counts() == {"a": "4 real, 7 generated", "b": "9 real, 2 generated"}
