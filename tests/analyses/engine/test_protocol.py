import numpy as np
import pytest
from tests.helpers import tiny

from tff.analyses.engine.protocol import Protocol, describe_view
from tff.data.dataset import View

TFF2022 = {"name": "tff2022", "threshold": "oracle", "scores": "probabilities", "crop": "none",
           "resize": "none"}  # fmt: skip


def test_scores():
    logits = np.array([-200.0, -1.5, 0.0, 0.25, 30.0, 40.0, 800.0])
    assert Protocol().score(logits) is logits
    expected = [np.float32(1 / (1 + np.exp(-x))) if x > -700 else 0.0 for x in logits]
    found = Protocol(scores="probabilities").score(logits)
    np.testing.assert_allclose(found, np.array(expected, np.float64), rtol=1e-6)
    assert found.dtype == np.float64
    assert (found == found.astype(np.float32)).all()
    assert len(set(found[-3:])) == 1  # saturated: a tie that logits do not have


def test_published_thresholds_apply_to_float32():
    logits = np.array([-3.0, 0.5, 17.0, 20.0, 40.0])
    exact = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(Protocol().probability(logits), exact, rtol=1e-14)
    found = Protocol(scores="probabilities").probability(logits)
    np.testing.assert_array_equal(found, exact.astype(np.float32).astype(np.float64))
    assert found[-2] == found[-1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"threshold": "best"},
            r"report\.protocol\.threshold=best: expected one of half, validation, or",
        ),
        ({"scores": "p"}, r"report\.protocol\.scores=p: expected one of logits, probabilities"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**options)


@pytest.mark.parametrize(
    "view", [View(), View("center224"), View("five96", 128), View("none", 256)]
)
def test_any_view_without_a_wish(view):
    Protocol().check(view)


def test_the_required_view_passes():
    Protocol(**TFF2022).check(View())
    Protocol(crop="center224", resize="none").check(View("center224"))
    Protocol(crop="center224", resize=256).check(View("center224", 256))


@pytest.mark.parametrize(
    ("wanted", "view", "message"),
    [
        (TFF2022, View("center64"), "protocol=tff2022 needs .* data.crop=none, not center64: run"),
        (TFF2022, View(resize=64), "protocol=tff2022 needs .* data.resize=null, not 64: run"),
        (
            {"name": "x", "crop": "center224"},
            View(),
            "protocol=x needs .* data.crop=center224, not",
        ),
        (
            {"name": "x", "resize": 256},
            View(),
            "needs .* data.resize=256, not none: run analyze.py",
        ),
        ({"name": "x", "resize": 256}, View(resize=128), "data.resize=256, not 128"),
    ],
)
def test_another_view_is_refused(wanted, view, message):
    with pytest.raises(ValueError, match=f"report/{message}" if "protocol" in message else message):
        Protocol(**wanted).check(view)


def test_a_subject_refuses_at_once(tmp_path):
    root = tiny.tree(tmp_path, images=2)
    with pytest.raises(ValueError, match=r"report/protocol=tff2022 needs .*data\.crop=none"):
        tiny.Subject.of(
            tiny.detector(), tiny.splits(root, crop="center16"), device="cpu",
            scoring=Protocol(**TFF2022),
        )  # fmt: skip


def test_describe_view(tmp_path):
    root = tiny.tree(tmp_path, images=2)
    assert describe_view(tiny.splits(root)) == {"crop": "none", "resize": "none"}
    told = describe_view(tiny.splits(root, crop="five16", resize=24, match_format=True))
    assert told == {"crop": "five16", "resize": 24, "match_format": "JPEG 75"}
