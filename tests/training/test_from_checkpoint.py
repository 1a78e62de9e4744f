"""What a subject is made of: a checkpoint, kept passes, files alone, or nothing."""

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
from tff.training.from_checkpoint import load_subject

MAKE = partial(Subject.of, draws=20, device="cpu")


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


def test_of_a_checkpoint(root, ckpt, tmp_path):
    found = data(root, generators=["seen"])
    subject = load_subject(ckpt, MAKE, data(root), found, passes=str(tmp_path / "passes"))
    assert subject.cache.folder.parent == tmp_path / "passes"
    assert len(subject.channels) == 4800
    assert subject.images.discovery.generators == ["seen"]
    assert subject.images.test.generators == ["other", "seen"]
    assert subject.seen == {"seen"}
    assert str(subject.protocol["weights"]).startswith("best.pth sha256:")
    table = Detection()(subject).tables["detection"]
    # Without the checkpoint: from what was kept, and no data are made.
    later = load_subject(None, MAKE, passes=str(tmp_path / "passes"))
    pd.testing.assert_frame_equal(Detection()(later).tables["detection"], table, check_exact=True)
    (path,) = (tmp_path / "passes").rglob("subject-*.json")
    named = load_subject(None, MAKE, passes=str(path))
    np.testing.assert_array_equal(named.evaluate().logits, subject.evaluate().logits)


def test_a_limit_on_images(root, ckpt, tmp_path):
    subject = load_subject(
        ckpt, MAKE, data(root), data(root), passes=str(tmp_path / "passes"), images=2
    )
    counts = subject.images.test.manifest.groupby(["generator", "label"]).size()
    assert counts.tolist() == [2, 2, 2, 2]
    assert subject.evaluate().logits.shape == (8,)


def test_of_files_alone(root, tmp_path):
    for place in (tmp_path / "nothing", tmp_path):
        subject = load_subject(None, MAKE, data(root), unused, passes=str(place), images=3)
        assert len(subject.images.test) == 12
        assert Audit()(subject).tables
        with pytest.raises(ValueError, match="this analysis needs a detector: pass ckpt="):
            Detection()(subject)


def test_named_files_go_before_kept_passes(root, ckpt, tmp_path):
    kept = str(tmp_path / "passes")
    load_subject(ckpt, MAKE, data(root), data(root), passes=kept)
    subject = load_subject(None, MAKE, data(root), unused, passes=kept, images=1)
    assert len(subject.images.test) == 4
    with pytest.raises(ValueError, match="this analysis needs a detector: pass ckpt="):
        Detection()(subject)


def test_a_named_subject_that_is_not_there(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"subject-1\.json: holds no cached passes"):
        load_subject(None, MAKE, passes=str(tmp_path / "subject-1.json"))


def test_a_checkpoint_that_is_not_there(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt"):
        load_subject(
            str(tmp_path / "nowhere.ckpt"), MAKE, data(root), data(root), passes=str(tmp_path / "p")
        )
    assert not (tmp_path / "p").exists()
