import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.helpers import tiny

from tff.analyses.audit import Audit
from tff.analyses.engine.analysis import run
from tff.analyses.engine.sanity_checks import describe_chance, few_confident_alarm
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import RankingRule
from tff.analyses.heatmaps import Examples
from tff.analyses.ranking import Ranking
from tff.data.datamodule import Splits
from tff.data.folder import Folder
from tff.statistics.channel_tests import AUC


def put(root: Path, real: str, fake: str, count=40, size=(16, 16), fake_size=(16, 16)) -> Path:
    """Noise of both kinds; what tells them apart is the ending (the format) or the size only."""
    rng = np.random.default_rng(0)
    for kind, ending, shape in (("0_real", real, size), ("1_fake", fake, fake_size)):
        (root / kind).mkdir(parents=True)
        for i in range(count):
            image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
            image.save(root / kind / f"{i}.{ending}")
    return root


def audit(root, **options):
    images = Folder(str(root), **options).all_splits()
    return Audit()(Subject.of(None, images, draws=20))


def test_known_bias_is_found_and_none_where_there_is_none(tmp_path):
    put(tmp_path / "test" / "biased", "jpg", "png")
    put(tmp_path / "test" / "fair", "png", "png")
    put(tmp_path / "test" / "sized", "png", "png", fake_size=(16, 17))
    result = audit(tmp_path)
    table = result.tables["format_bias"].set_index("generator")
    assert table["auc"].to_dict() == {"biased": 1.0, "fair": 0.5, "sized": 1.0}
    assert table["alarm"].to_dict() == {"biased": True, "fair": False, "sized": True}
    assert "biased (AUC 1.00), sized (AUC 1.00)" in result.alarms[0]
    assert result.scalars["alarms"] == 2
    rows = result.tables["formats"].set_index(["generator", "kind"])
    assert rows.loc[("biased", "real"), "formats"] == "JPEG 100 %"
    assert rows.loc[("biased", "real"), "jpeg_quality"] == "75"
    assert rows.loc[("sized", "generated"), "sizes"] == "16x17 100 %"
    matched = audit(tmp_path, match_format=True).tables["format_bias"].set_index("generator")
    assert matched["alarm"].to_dict() == {"biased": False, "fair": False, "sized": True}


def test_all_sets_duplicates_and_odd_files(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path / split / "g", "png", "png", count=3, size=(8 + len(split), 9))
    copy = (tmp_path / "train" / "g" / "0_real" / "0.png").read_bytes()
    (tmp_path / "test" / "g" / "1_fake" / "copy.jpg").write_bytes(copy)
    (tmp_path / "test" / "g" / "1_fake" / "empty.png").touch()
    result = audit(tmp_path, on_corrupt="skip")
    assert set(result.tables["formats"]["set"]) == {"train", "discovery", "test"}
    (row,) = [r for r in result.tables["duplicates"].itertuples() if "copy" in r.path]
    assert row.set == "test"
    assert row.same_as.endswith("train/g/0_real/0.png")
    odd = result.tables["odd_files"]
    assert {Path(p).name for p in odd["path"]} == {"copy.jpg", "empty.png"}
    assert any("1 files could not be read and were skipped" in line for line in result.warnings)
    assert any("byte-identical" in line for line in result.warnings)


def test_every_report_on_a_biased_set_gives_alarm(tmp_path):
    put(tmp_path / "biased", "jpg", "png")
    images = Folder(str(tmp_path)).all_splits()
    result = run({"examples": Examples(1)}, Subject.of(tiny.detector(), images, device="cpu"))
    assert "biased (AUC 1.00)" in result["examples"].alarms[0]
    put(tmp_path / "fair" / "g", "png", "png")
    fair = Folder(str(tmp_path / "fair")).all_splits()
    result = run({"examples": Examples(1)}, Subject.of(tiny.detector(), fair, device="cpu"))
    assert result["examples"].alarms == []


def test_detector_at_chance_level_raises_an_alarm(tmp_path):
    tiny.tree(tmp_path / "red", generators=("seen",), images=30, size=16)  # tiny.detector sees red
    put(tmp_path / "noise" / "g", "png", "png", count=30)
    for name, expected in (("red", False), ("noise", True)):
        images = Folder(str(tmp_path / name)).all_splits()
        subject = Subject.of(tiny.detector(), images, device="cpu", draws=20, confidence=0.0)
        alarms = run({"ranking": Ranking()}, subject)["ranking"].alarms
        assert (
            any("cannot be told from chance with so few images: g (AUC" in line for line in alarms)
            == expected
        )
        assert len(alarms) == expected


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ([(0.55, 0.45, 0.65)], "cannot be told from chance with so few images: g0 (AUC 0.55, 0.45"),
        ([(0.52, 0.46, 0.58)], "is at chance, or close to it: g0 (AUC 0.52, 0.46 to 0.58, 20 im"),
        ([(0.52, 0.46, 0.58), (0.55, 0.45, 0.65)], "cannot be told from chance with so few images"),
        ([(0.4, 0.3, 0.49)], "is wrong more often than right"),
        ([(0.4, 0.3, 0.49), (0.5, 0.4, 0.59)], "is at chance, or close to it"),
        ([(0.56, 0.51, 0.61)], None),
        ([(0.4, 0.3, 0.49), (0.56, 0.51, 0.61)], None),
    ],
)
def test_chance_is_said_as_far_as_the_interval_tells(areas, words):
    named = {f"g{i}": AUC(*area) for i, area in enumerate(areas)}
    alarms = describe_chance(named, dict.fromkeys(named, 20))
    assert len(alarms) == (words is not None)
    assert not words or alarms[0].startswith(f"The detector {words}")


@pytest.mark.parametrize("count", [29, 30])
def test_few_sure_images_are_an_alarm(tmp_path, count):
    tiny.tree(tmp_path, generators=("seen",), images=count, size=16)
    images = Folder(str(tmp_path)).all_splits()
    for by, said in (
        ("omega", ["generated images, those with P >= 0:"]),
        ("omega_real", ["real images, those with P <= 1:"]),
        ("both", ["generated images, those with P >= 0:", "real images, those with P <= 1:"]),
        ("contrast", []),
    ):
        subject = Subject.of(
            tiny.detector(), images, device="cpu", confidence=0.0, ranking=RankingRule(by)
        )
        alarms = few_confident_alarm(subject)
        assert len(alarms) == (len(said) if count < 30 else 0)
        for alarm, words in zip(alarms, said, strict=False):
            assert f"a mean over only 29 of 29 {words}" in alarm


def test_other_analyses_ask_for_a_detector(tmp_path):
    put(tmp_path / "g", "png", "png", count=2)
    subject = Subject.of(None, Folder(str(tmp_path)).all_splits())
    with pytest.raises(ValueError, match="needs a detector: pass ckpt="):
        Examples()(subject)


@pytest.mark.parametrize("crop", ["five12", "center12", "random12"])
def test_passes_see_the_views(tmp_path, crop):
    """Five views are five images whose mean counts."""
    import torch

    put(tmp_path / "g", "png", "png", count=5, size=(14, 15))
    images = Folder(str(tmp_path), crop=crop, seed=4).images("all")
    subject = Subject.of(tiny.detector(), Splits(images, images), device="cpu", batch_size=3)
    found = subject.evaluate(responses=False).logits
    assert len(found) == 10
    for row in range(10):
        views = [images[0, row, n].image for n in range(images.view.count)]
        with torch.no_grad():
            logits = tiny.detector()(torch.stack(views).float() / 255)
        assert found[row] == pytest.approx(float(logits.double().mean()), abs=1e-5)


def test_match_format_is_one_jpeg(tmp_path):
    put(tmp_path / "g", "png", "png", count=1)
    images = Folder(str(tmp_path), match_format=True).images("all")
    with io.BytesIO() as file:
        Image.open(images.manifest["path"][0]).save(file, "JPEG", quality=75)
        expected = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert np.abs(images[0, 0].image.permute(1, 2, 0).numpy() - expected).max() <= 1
    subject = Subject.of(None, Splits(images, images))
    assert subject.protocol["match_format"] == "JPEG 75"
