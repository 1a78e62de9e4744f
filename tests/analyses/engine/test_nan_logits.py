"""A network whose logits are NaN: no results, and the error says why."""

import numpy as np
import pytest
import torch
from tests.helpers import fake_subject, tiny

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.detection import Detection
from tff.analyses.engine.sanity_checks import few_images_warning
from tff.analyses.sensitivity import Sensitivity
from tff.statistics.detection import AveragePrecision, average_precision


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"))


@pytest.mark.parametrize(
    ("where", "analysis", "message"),
    [
        ("", Detection(), r"2 of 24 images as they are, such as .*other/.*png: its training has"),
        ("color", Ablation(Grayscale()), "2 of 24 images without color, such as"),
        ("random_1", Sensitivity(), r"2 of 24 images with channels dropped \(random_1\), such as"),
    ],
)
def test_no_number_is_refused_and_the_image_named(root, where, analysis, message):
    def gives(name, logits):
        return np.where(np.arange(len(logits)) < 2 * (name == where), np.nan, logits)

    subject = fake_subject.subject(root, change=gives)
    for _ in range(2):  # also from memory
        with pytest.raises(ValueError, match=message):
            analysis(subject)


def test_infinite_logits_are_numbers(root):
    subject = fake_subject.subject(root, change=lambda _, z: np.where(z > 2, np.inf, z))
    table = Detection()(subject).tables["detection"]
    assert table["ap"].between(0.5, 1).all()


def test_average_precision_of_no_number_is_none():
    labels, scores = np.array([[0, 1, 1]] * 2), np.array([[0.1, 0.2, 0.3], [0.1, np.nan, 0.3]])
    np.testing.assert_array_equal(average_precision(labels, scores), [1, np.nan])
    metric = AveragePrecision()
    metric.update(torch.tensor([0.1, torch.nan]), torch.tensor([0, 1]))
    assert metric.compute().isnan()  # a training that diverges is not ended by its metric


def test_few_images_give_a_warning(root, tmp_path):
    (warning,) = few_images_warning(fake_subject.subject(root))
    assert warning.startswith(
        "Fewer than 30 real or generated images of seen, other: with so few, va"
    )
    assert (
        few_images_warning(
            fake_subject.subject(tiny.tree(tmp_path, ("seen", "other"), images=30, size=8))
        )
        == []
    )
