from pathlib import Path

import numpy as np
from PIL import Image

from tff.data.dataset import Images
from tff.data.manifest import duplicates, list_images


def put(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)  # noise of one size has one length: all are read


def test_duplicates(tmp_path):
    for i, split in enumerate(("train", "test")):
        for j, kind in enumerate(("0_real", "1_fake")):
            for n in range(3):
                put(tmp_path / split / "g" / kind / f"{n}.png", 100 * i + 10 * j + n)
    sets = {s: Images(list_images(tmp_path / s).table) for s in ("train", "test")}
    assert duplicates(sets).empty
    put(tmp_path / "test" / "g" / "0_real" / "leak.png", 1)  # train, real, 1
    put(tmp_path / "train" / "g" / "1_fake" / "photo.png", 2)  # train, real, 2
    put(tmp_path / "train" / "g" / "0_real" / "twin.png", 0)  # same set and label: no leak
    sets = {s: Images(list_images(tmp_path / s).table) for s in ("train", "test")}
    found = duplicates(sets)
    rows = {
        (r.set, Path(r.path).name, r.same_as_set, Path(r.same_as).parent.name, Path(r.same_as).name)
        for r in found.itertuples()
    }
    assert rows == {
        ("test", "leak.png", "train", "0_real", "1.png"),
        ("train", "photo.png", "train", "0_real", "2.png"),
    }
