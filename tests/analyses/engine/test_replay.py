"""Tables from cached passes, without images and network."""

import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import run
from tff.analyses.engine.passes import Passes
from tff.analyses.engine.protocol import Protocol
from tff.analyses.engine.replay import cache_passes, replay
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import RankingRule
from tff.analyses.median_test import MedianTest
from tff.analyses.mediation import Mediation
from tff.analyses.ranking import Ranking
from tff.analyses.sensitivity import Sensitivity
from tff.parquet import read

TFF2022 = Protocol("tff2022", "oracle", "probabilities", "none", "none")
ANALYSES = {
    "ranking": Ranking(),
    "sensitivity": Sensitivity(random_draws=2),
    "ablation": Ablation(Grayscale()),
    "median_test": MedianTest(Grayscale()),
    "mediation": Mediation(Grayscale(), random_draws=2),
    "detection": Detection(),
}


def make(**options):
    return partial(Subject.of, **{"draws": 50, "device": "cpu", **options})


def tree(folder):
    return tiny.tree(folder, ("seen", "other"), images=7)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("images") / "images")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """Folder with the passes of all analyses, and their results."""
    folder = tmp_path_factory.mktemp("cache") / "passes"
    return folder, run(ANALYSES, cached(root, folder))


def cached(root, folder, **options):
    options = {"weights": "best.ckpt sha256:0123", **options}
    return cache_passes(make(**options)(tiny.detector(), tiny.splits(root)), folder)


def unused(*_args, **_kwargs):
    raise AssertionError("neither images nor network are needed")


def equal(one, other):
    assert list(one) == list(other)
    for name in one:
        assert list(one[name].tables) == list(other[name].tables)
        for table, rows in one[name].tables.items():
            pd.testing.assert_frame_equal(rows, other[name].tables[table], check_exact=True)
        assert one[name].findings == other[name].findings
        pd.testing.assert_series_equal(
            pd.Series(one[name].scalars, dtype=float), pd.Series(other[name].scalars, dtype=float)
        )


@pytest.fixture
def nothing_is_read(monkeypatch):
    def forbid():
        monkeypatch.setattr(Passes, "_run", unused)
        monkeypatch.setattr(torch.nn.Conv2d, "forward", unused)

    return forbid


@pytest.mark.parametrize("options", [{"k": "auto"}, {"k": "50%", "confidence": 0.8, "seed": 3}])
def test_the_same_tables_without_images_and_network(options, tmp_path, nothing_is_read):
    root = tree(tmp_path / "images")
    plain = run(ANALYSES, make(weights="best.ckpt sha256:0123", **options)(
        tiny.detector(), tiny.splits(root)
    ))  # fmt: skip
    first = run(ANALYSES, cached(root, tmp_path / "passes", **options))
    equal(plain, first)
    described = cached(root, tmp_path / "passes", **options).describe()
    nothing_is_read()
    equal(first, run(ANALYSES, cached(root, tmp_path / "passes", **options)))
    shutil.rmtree(root)
    subject = replay(tmp_path / "passes", make(**options))
    equal(first, run(ANALYSES, subject))
    assert subject.protocol["weights"] == "best.ckpt sha256:0123"
    assert {**subject.describe(), "k": 0} == {**described, "k": 0}


def test_subject_file(finished, nothing_is_read):
    folder, first = finished
    (path,) = folder.rglob("subject-*.json")
    nothing_is_read()
    equal(first, run(ANALYSES, replay(path, make())))


def test_another_protocol_from_the_same_passes(root, finished, nothing_is_read):
    analyses = {"detection": Detection(), "ablation": Ablation(Grayscale())}
    folder, _ = finished
    expected = run(analyses, make(weights="best.ckpt sha256:0123", scoring=TFF2022)(
        tiny.detector(), tiny.splits(root)
    ))  # fmt: skip
    nothing_is_read()
    found = run(analyses, replay(folder, make(scoring=TFF2022)))
    equal(expected, found)
    table = found["detection"].tables["detection"]
    assert set(table["protocol"]) == {"tff2022"}
    assert set(table["threshold_rule"].dropna()) == {"oracle"}
    with pytest.raises(ValueError, match=r"report/protocol=wang.*data\.crop=center224, not none"):
        replay(folder, make(scoring=Protocol("wang", crop="center224")))


def test_other_options_need_other_passes(finished):
    folder, _ = finished
    subject = replay(folder, make(k=2))
    run({"ranking": Ranking(), "detection": Detection()}, subject)  # these passes are cached
    with pytest.raises(ValueError, match=r"no such pass \(dropped channels\); run .* ckpt="):
        Sensitivity(random_draws=2)(subject)
    assert len(replay(folder, make(ranking=RankingRule("effect"))).top) == 3
    with pytest.raises(ValueError, match=r"no such pass \(removal order\)"):
        _ = replay(folder, make(ranking=RankingRule("auto"))).top
    with pytest.raises(ValueError, match=r"subject\.k=13: must lie between 1 and .* 12"):
        replay(folder, make(k=13))


def test_view_and_description_of_images_are_restored(root, tmp_path):
    images = tiny.splits(root, crop="five24", resize=28, match_format=True, seed=5)
    subject = cache_passes(make()(tiny.detector(), images), tmp_path / "passes")
    logits = subject.evaluate().logits
    found = replay(tmp_path / "passes", make())
    for one, other in zip(subject.images[:2], found.images[:2], strict=True):
        pd.testing.assert_frame_equal(one.manifest, other.manifest, check_dtype=False)
        for name in ("view", "seed", "match_format", "real_of", "notes"):
            assert getattr(one, name) == getattr(other, name)
    assert found.images.test.match_format
    assert found.images.test.view.crop == "five24"
    np.testing.assert_array_equal(found.evaluate().logits, logits)


def test_each_run_keeps_its_own_notes(root, tmp_path):
    images = tiny.splits(root)
    test = images.test.__class__(images.test.manifest, notes=("3 images are missing",),
                                 real_of={"other": "seen"})  # fmt: skip
    cache_passes(make()(tiny.detector(), images), tmp_path / "passes")
    cache_passes(make()(tiny.detector(), images._replace(test=test)), tmp_path / "passes")
    paths = sorted((tmp_path / "passes").rglob("subject-*.json"))
    notes = {replay(path, make()).images.test.notes for path in paths}
    assert notes == {(), ("3 images are missing",)}


def test_another_network_has_a_folder_of_its_own(root, tmp_path):
    one, other = tiny.detector(), tiny.detector()
    other.network.relu = torch.nn.ReLU6()  # the same weights
    for detector in (one, other):
        cache_passes(make()(detector, tiny.splits(root)), tmp_path / "passes").evaluate()
    cache_passes(make()(tiny.detector(1), tiny.splits(root)), tmp_path / "passes")
    assert len(list((tmp_path / "passes").iterdir())) == 3


def test_several_subjects(root, tmp_path):
    cached(root, tmp_path / "passes")
    cache_passes(make()(tiny.detector(1), tiny.splits(root)), tmp_path / "passes")
    with pytest.raises(ValueError, match="holds several subjects; choose one: passes=") as error:
        replay(tmp_path / "passes", make())
    paths = sorted((tmp_path / "passes").rglob("subject-*.json"))
    assert len(paths) == 2
    for path in paths:
        assert f"passes={path}" in str(error.value)
        assert replay(path, make()).cache.folder == path.parent


def test_a_subject_cached_twice_is_one(root, tmp_path):
    for seed in (0, 1):
        cached(root, tmp_path / "passes", seed=seed)
    assert replay(tmp_path / "passes", make(seed=1)).protocol["seed"] == 1


@pytest.mark.parametrize("place", ["passes", "passes/subject-1.json"])
def test_no_subject(place, tmp_path):
    for there in (False, True):
        if there:
            (tmp_path / "passes").mkdir()
        with pytest.raises(FileNotFoundError, match=rf"passes=.*{place}: holds no cached passes"):
            replay(tmp_path / place, make())


@pytest.mark.parametrize("damage", ["{", "[1]", "{}", "null", "no widths", "no set", "binary"])
def test_a_broken_subject_is_named(damage, root, tmp_path):
    cached(root, tmp_path / "passes")
    (path,) = (tmp_path / "passes").rglob("subject-*.json")
    facts = json.loads(path.read_text())
    if damage == "no widths":
        path.write_text(json.dumps({k: v for k, v in facts.items() if k != "widths"}))
    elif damage == "no set":
        path.write_text(json.dumps(facts | {"images": {"test": facts["images"]["test"]}}))
    elif damage == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    else:
        path.write_text(damage)
    with pytest.raises(ValueError, match=rf"{path.name}: damaged .*; delete it and run again"):
        replay(tmp_path / "passes", make())


def test_lost_or_broken_images_are_named(root, tmp_path):
    cached(root, tmp_path / "passes")
    (path,) = (tmp_path / "passes").rglob("subject-*.json")
    images = path.parent / json.loads(path.read_text())["images"]["test"]
    assert read(images)[1]["crop"] == "none"
    images.write_bytes(images.read_bytes()[:50])
    with pytest.raises(ValueError, match=rf"{images.name}: .*; delete it and run again"):
        replay(tmp_path / "passes", make())
    images.unlink()
    with pytest.raises(ValueError, match=rf"{images.name}: no such file or folder; run analyze.py"):
        replay(tmp_path / "passes", make())


def test_only_a_detector_s_own_passes_are_cached(root, tmp_path):
    with pytest.raises(ValueError, match="cached already"):
        cache_passes(cached(root, tmp_path / "passes"), tmp_path / "again")
    with pytest.raises(ValueError, match="needs a detector: pass ckpt="):
        cache_passes(make()(None, tiny.splits(root)), tmp_path / "again")
    assert not (tmp_path / "again").exists()
