"""The subject of a checkpoint, of cached passes, or of files without a detector."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from tests.helpers import tiny
from torchvision.models import resnet18

from tff.analyses.audit import Audit
from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import run
from tff.analyses.engine.subject import Subject
from tff.data.folder import Folder
from tff.detectors.safe_load import read_with_sha256
from tff.report.results import find_trained_images
from tff.training import from_checkpoint
from tff.training.from_checkpoint import (
    USED_IMAGES,
    Checkpoint,
    load_data,
    load_subject,
    record_images,
)

MAKE = partial(Subject.of, draws=20, device="cpu")
RESNET18 = {"_target_": "tff.detectors.torchvision_models.torchvision_model", "name": "resnet18"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=20)


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "best.pth"
    torch.save({"model": resnet18(num_classes=1).state_dict()}, path)
    return str(path)


def data(root, **options):
    return lambda: Folder(root=str(root), **options)


def unused():
    raise AssertionError("no data are needed")


def no_data():
    return None


def test_of_a_checkpoint_and_of_its_passes(root, ckpt, tmp_path):
    found = data(root, generators=["seen"])
    subject = load_subject(ckpt, MAKE, data(root), found, passes=str(tmp_path / "passes"))
    assert subject.cache.folder.parent == tmp_path / "passes"
    assert len(subject.channels) == 4800
    assert subject.images.discovery.generators == ["seen"]
    assert subject.images.test.generators == ["other", "seen"]
    assert subject.seen == {"seen"}
    assert str(subject.protocol["weights"]).startswith("best.pth sha256:")
    table = Detection()(subject).tables["detection"]
    # Without the checkpoint: from the cached passes.
    later = load_subject(None, MAKE, no_data, unused, passes=str(tmp_path / "passes"))
    pd.testing.assert_frame_equal(Detection()(later).tables["detection"], table, check_exact=True)
    (path,) = (tmp_path / "passes").rglob("subject-*.json")
    named = load_subject(None, MAKE, no_data, unused, passes=str(path))
    np.testing.assert_array_equal(named.evaluate().logits, subject.evaluate().logits)


def test_a_limit_on_images(root, ckpt, tmp_path):
    subject = load_subject(
        ckpt, MAKE, data(root), data(root), passes=str(tmp_path / "passes"), images=2
    )
    counts = subject.images.test.manifest.groupby(["generator", "label"]).size()
    assert counts.tolist() == [2, 2, 2, 2]
    assert subject.evaluate().logits.shape == (8,)


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """A checkpoint that was trained on the generator `seen` of the tree, and the data it names."""
    settings = {"_target_": "tff.data.folder.Folder", "root": str(root), "generators": ["seen"]}
    own = Folder(root=str(root), generators=["seen"])
    path = tmp_path_factory.mktemp("trained") / "best.ckpt"
    content = {"state_dict": resnet18(num_classes=1).state_dict(), "tff": {"data": settings}}
    torch.save({**content, USED_IMAGES: record_images(own, None)}, path)
    torch.save(content, path.with_name("of_version_0_1.ckpt"))
    return str(path), own


def stems(images):
    return {
        (row.generator, row.label, row.path.split("/")[-1]) for row in images.manifest.itertuples()
    }


def select(ckpt, ranked, tested):
    return Checkpoint.read(ckpt).select_images(tested, ranked)


def test_images_of_the_training_are_not_analyzed(root, trained):
    ckpt, own = trained
    used = {split: stems(own.images(split)) for split in ("train", "val", "test")}
    splits = select(ckpt, None, None)
    assert stems(splits.discovery) == used["val"]
    assert stems(splits.test) == used["test"]
    # Of a generator that was not trained on, all images are tested.
    splits = select(ckpt, None, Folder(root=str(root)))
    assert stems(splits.discovery) == used["val"]
    seen = {row for row in stems(splits.test) if row[0] == "seen"}
    assert seen == used["test"]
    assert len(splits.test) == len(seen) + 40
    assert not splits.test.alarms
    assert (
        "are among those that the detector was trained on; they are left out"
        in splits.test.notes[0]
    )


def test_the_same_images_under_other_names_are_not_analyzed(root, trained, tmp_path):
    ckpt, own = trained
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        copied = tmp_path / path.relative_to(root).with_name(f"renamed {number}.png")
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    splits = select(ckpt, None, Folder(root=str(tmp_path)))
    used = np.concatenate([own.images(split).digests for split in ("train", "val")])
    assert not np.isin(splits.test.digests, used).any()
    assert len(splits.test) == 80 - len(used)


def test_a_tree_that_ranks_and_tests_is_divided(root, ckpt):
    """A checkpoint of unknown training: no image serves both purposes, and none is lost."""
    tree = Folder(root=str(root))
    splits = select(ckpt, Folder(root=str(root)), tree)
    assert stems(splits.discovery) == stems(tree.images("val"))
    assert len(splits.discovery) + len(splits.test) == 80
    assert not stems(splits.discovery) & stems(splits.test)
    unknown = "The checkpoint does not name its training images; they may be among these."
    assert unknown in splits.discovery.notes and unknown in splits.test.notes


def test_trees_of_their_own_are_used_whole(root, ckpt, tmp_path):
    other = tiny.tree(tmp_path, ("new",), images=3, seed=9)
    splits = select(ckpt, Folder(root=str(root)), Folder(root=str(other)))
    assert (len(splits.discovery), len(splits.test)) == (80, 6)


def test_images_of_the_training_are_included_with_an_alarm(root, trained, tmp_path):
    ckpt, _ = trained
    subject = load_subject(
        ckpt, MAKE, data(root), data(root), passes=str(tmp_path), trained_images="include"
    )
    assert len(subject.images.test) == 80
    replayed = load_subject(None, MAKE, no_data, unused, passes=str(tmp_path))
    for one in (subject, replayed):
        result = run({"detection": Detection()}, one)["detection"]
        assert any("that the detector was trained on: the" in alarm for alarm in result.alarms)
        table = result.tables["detection"]
        assert (table["trained_images"] == "included").all()
        assert find_trained_images({"detection": table})
    with pytest.raises(ValueError, match="trained_images=yes: expected one of exclude, include"):
        load_subject(ckpt, MAKE, data(root), data(root), passes="x", trained_images="yes")


def test_training_images_of_an_older_checkpoint_are_those_of_its_data(root, trained, monkeypatch):
    ckpt, _ = trained
    older = ckpt.replace("best", "of_version_0_1")
    tree = Folder(root=str(root))
    assert stems(select(older, None, tree).test) == stems(select(ckpt, None, tree).test)


def test_images_of_an_earlier_training_count_too(root, trained, tmp_path):
    ckpt, _ = trained
    fresh = Folder(root=str(tiny.tree(tmp_path, ("new",), images=30, seed=9)))
    used = record_images(fresh, ckpt)
    earlier = Checkpoint.read(ckpt).used_images()
    assert set(used["train"].tolist()) == {
        *fresh.images("train").digests, *earlier["train"], *earlier["val"]
    }  # fmt: skip
    assert set(used["val"].tolist()) == {*fresh.images("val").digests}


@pytest.mark.parametrize("forged", [[1], {"train": [1]}, {"test": torch.ones(1, dtype=int)},
                                    {"train": torch.ones(2)}])  # fmt: skip
def test_forged_digests(forged, root, tmp_path):
    path = tmp_path / "forged.ckpt"
    state = resnet18(num_classes=1).state_dict()
    torch.save({"state_dict": state, "tff": {}, USED_IMAGES: forged}, path)
    with pytest.raises(ValueError, match=r"forged\.ckpt: holds no digests in 'tff_images'"):
        select(str(path), Folder(root=str(root)), Folder(root=str(root)))


def test_of_files_without_a_detector(root, tmp_path):
    for place in (tmp_path / "nothing", tmp_path):
        subject = load_subject(None, MAKE, data(root), unused, passes=str(place), images=3)
        assert len(subject.images.test) == 12
        assert Audit()(subject).tables
        with pytest.raises(ValueError, match="this analysis needs a detector: pass ckpt="):
            Detection()(subject)


def test_files_take_precedence_over_cached_passes(root, ckpt, tmp_path):
    passes = str(tmp_path / "passes")
    load_subject(ckpt, MAKE, data(root), data(root), passes=passes)
    subject = load_subject(None, MAKE, data(root), unused, passes=passes, images=1)
    assert len(subject.images.test) == 4
    with pytest.raises(ValueError, match="this analysis needs a detector: pass ckpt="):
        Detection()(subject)


def test_missing_subject_file(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"subject-1\.json: holds no cached passes"):
        load_subject(None, MAKE, no_data, unused, passes=str(tmp_path / "subject-1.json"))


def test_without_checkpoint_data_and_passes(tmp_path):
    with pytest.raises(ValueError, match=r"ckpt is needed: pass ckpt=.*, or data=.*audit"):
        load_subject(None, MAKE, no_data, unused, passes=str(tmp_path))


def test_a_checkpoint_is_read_once(root, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    data = {"_target_": "tff.data.folder.Folder", "root": str(root)}
    state = resnet18(num_classes=1).state_dict()
    torch.save({"state_dict": state, "tff": {"data": data}}, path)
    reads = []

    def read(path):
        reads.append(path)
        return read_with_sha256(path)

    monkeypatch.setattr(from_checkpoint, "read_with_sha256", read)
    own = partial(load_data, str(path))
    subject = load_subject(str(path), MAKE, own, own, passes=str(tmp_path), detector=RESNET18)
    assert subject.images.test.generators == ["other", "seen"]
    assert reads == [str(path)]
    load_data(str(path))  # another run reads the file again, which may have changed
    assert len(reads) == 2


def test_missing_checkpoint(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt"):
        load_subject(
            str(tmp_path / "nowhere.ckpt"), MAKE, data(root), data(root), passes=str(tmp_path / "p")
        )
    assert not (tmp_path / "p").exists()


def named(path, **settings):
    """A checkpoint that names its data."""
    path.parent.mkdir(parents=True)
    data = {"_target_": "tff.data.folder.Folder", **settings}
    torch.save({"state_dict": {}, "tff": {"data": data}}, path)
    return str(path)


def test_relative_folder_of_an_older_checkpoint(tmp_path, monkeypatch, caplog):
    ckpt = named(tmp_path / "run/checkpoints/best.ckpt", root="images")
    elsewhere, started = tmp_path / "elsewhere", tmp_path / "started"
    for folder in (elsewhere, started):
        (folder / "images").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert load_data(ckpt).root == elsewhere / "images"
    assert f"but not below which folder: taken as {elsewhere}" in caplog.text
    caplog.clear()
    told = tmp_path / "run/.hydra/hydra.yaml"
    told.parent.mkdir()
    told.write_text(f"hydra: {{runtime: {{cwd: {started}}}}}\n")
    assert load_data(ckpt).root == started / "images"
    assert not caplog.text


def test_folder_that_a_checkpoint_names_is_absent(tmp_path):
    ckpt = named(tmp_path / "run/best.ckpt", root=str(tmp_path / "images"))
    with pytest.raises(FileNotFoundError, match=r"names it\. Name another: data=folder"):
        Checkpoint.read(ckpt).select_images()


def test_default_cache_of_another_machine_is_the_one_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFF_CACHE", raising=False)
    ckpt = named(tmp_path / "run/best.ckpt", root="/x", cache="/home/of/another/outputs/cache")
    assert load_data(ckpt).files == tmp_path / "outputs/cache/files"
