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
from tff.analyses.engine.subject import Subject
from tff.data.folder import Folder
from tff.detectors.safe_load import read_with_sha256
from tff.training import from_checkpoint
from tff.training.from_checkpoint import load_data, load_subject

MAKE = partial(Subject.of, draws=20, device="cpu")
RESNET18 = {"_target_": "tff.detectors.torchvision_models.torchvision_model", "name": "resnet18"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=5)


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
