import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from tests.helpers import tiny

from tff.analyses.engine import top_channels as top
from tff.detectors.hooks import drop_channels


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (None, 114),
        (114, 114),
        ("114", 114),
        (1, 1),
        (26560, 26560),
        ("0.43%", 114),
        ("0.43 %", 114),
        ("100%", 26560),
        ("25%", 6640),
        ("0.0000001%", 1),
        ("auto", None),
    ],
)
def test_parse_k(k, expected):
    assert top.parse_k(k, 26560, 114 / 26560) == expected


def test_the_share_of_the_paper_is_at_least_one_channel():
    assert top.parse_k(None, 12, 114 / 26560) == 1


@pytest.mark.parametrize(
    "k", ["", "many", "-3", "1e2", "0.43", 0.43, "5 percent", "%", True, "-1%"]
)
def test_odd_k(k):
    with pytest.raises(ValueError, match=r"subject\.k=.*expected a number, a share such as 0\.43%"):
        top.parse_k(k, 100, 0.1)


@pytest.mark.parametrize("k", [0, "0", 101, "101", "101%", "0%", "0.0%"])
def test_impossible_k(k):
    message = rf"subject\.k={k}: must lie between 1 and the number of channels, 100"
    with pytest.raises(ValueError, match=message):
        top.parse_k(k, 100, 0.1)


class Curve:
    """AP for each number of dropped channels, and how often images were read for it."""

    def __init__(self, values):
        self.values, self.readings = np.asarray(values, float), []

    def __call__(self, ks):
        self.readings.append(ks)
        return self.values[np.array(ks)]


@given(st.integers(1, 300), st.integers(0, 10**6), st.floats(0.05, 0.95))
def test_smallest_k_equals_brute_force_on_falling_curves(total, seed, below):
    random = np.random.default_rng(seed)
    curve = Curve(np.sort(random.random(total + 1))[::-1])
    half = max(1, total // 2)
    found = [k for k in range(half + 1) if curve.values[k] < below]
    if found[:1] == [0]:
        with pytest.raises(ValueError, match=f"{curve.values[0]:.3f} with nothing dropped"):
            top.find_smallest_k(curve, below, total)
    elif found:
        assert top.find_smallest_k(curve, below, total) == found[0]
    else:
        with pytest.raises(
            ValueError, match=f"{curve.values[half]:.3f} or more with up to {half} "
        ):
            top.find_smallest_k(curve, below, total)
    assert len(curve.readings) <= 1 + np.log2(half + 1)
    assert all(0 <= k <= half for ks in curve.readings for k in ks)
    assert all(len(set(ks)) == len(ks) for ks in curve.readings)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=80))
def test_on_any_curve_the_k_found_is_below_and_the_one_before_it_is_not(values):
    curve = Curve(values)
    half = max(1, (len(values) - 1) // 2)
    try:
        k = top.find_smallest_k(curve, 0.5, len(values) - 1)
    except ValueError:
        powers = [2**i for i in range(20) if 2**i <= half]
        assert values[0] < 0.5 or all(curve.values[k] >= 0.5 for k in [*powers, half])
        return
    assert curve.values[k] < 0.5
    assert k == 1 or curve.values[k - 1] >= 0.5


def test_never_reached_names_the_options():
    with pytest.raises(ValueError, match=r"subject\.k=auto.*0\.900.*subject\.k_below=0\.75; raise"):
        top.find_smallest_k(Curve(np.full(13, 0.9)), 0.75, 12)


@given(st.integers(1, 50_000), st.floats(0.001, 1), st.integers(2, 20))
def test_counts_are_evenly_spaced_on_a_log_scale(total, largest, number):
    found = top.evenly_spaced_counts(total, largest, number)
    most = max(1, round(largest * total))
    assert (found[0], found[-1]) == (1, most)
    assert found == sorted(set(found))
    expected = [most ** (i / (number - 1)) for i in range(number)]
    assert all(min(abs(count - e) for e in expected) <= 0.5 + 1e-6 * count for count in found)
    assert all(min(abs(count - e) for count in found) <= 0.5 + 1e-6 * e for e in expected)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=9)


def test_a_share_of_the_channels_of_a_subject(root):
    subject = tiny.subject(root, k="25%")
    assert subject.k == 3
    assert subject.top.tolist() == subject.ranking[:3].tolist()
    assert subject.describe()["k"] == "3 of 12 channels"
    assert tiny.subject(root, k="33 %").k == 4
    assert tiny.subject(root).k == 3  # the share of its detector, 0.25


@pytest.mark.parametrize("below", [0.97, 0.75, 0.6])
def test_auto_is_the_smallest_k_that_the_detector_does_not_survive(below, root):
    subject = tiny.subject(root, k="auto", k_below=below)
    assert subject.describe()["k"] == "auto of 12 channels"
    images = subject.images.discovery
    pixels = torch.stack([images[0, row].image for row in range(len(images))]).float() / 255
    curve = [1.0]
    for k in range(1, 7):
        with torch.no_grad(), drop_channels(subject.detector, subject.ranking[:k]):
            logits = subject.detector(pixels).double().numpy()
        curve.append(average_precision_score(images.manifest["label"], logits))
    assert min(curve) < below  # else this tests nothing
    # On a curve that falls only; on another one it is one where it crosses.
    found = subject.k
    assert curve[found] < below <= curve[found - 1]
    assert subject.describe()["k"] == f"{found} of 12 channels"
    assert len(subject.top) == found


def test_auto_that_finds_none(root):
    subject = tiny.subject(root, k="auto", k_below=0.01)
    with pytest.raises(ValueError, match=r"subject\.k=auto: .* with up to 6 channels dropped"):
        _ = subject.top
