"""Which of the chosen analyses are comparisons, and with what they cannot be combined."""

import pytest

from tff.analyses.audit import Audit
from tff.comparisons.comparison import select_comparisons
from tff.comparisons.emergence import Emergence

AUDIT, EMERGENCE = Audit(), Emergence("run")


def test_comparisons_alone():
    assert select_comparisons({"emergence": EMERGENCE}, None) == {"emergence": EMERGENCE}
    assert select_comparisons({"audit": AUDIT}, "best.ckpt") == {}
    assert select_comparisons({}, None) == {}


def test_a_mix_with_analyses_of_a_detector_is_refused():
    with pytest.raises(ValueError, match=r"analysis=\[audit,emergence\]: emergence read .* audit"):
        select_comparisons({"audit": AUDIT, "emergence": EMERGENCE}, None)


def test_a_checkpoint_is_refused():
    with pytest.raises(ValueError, match=r"ckpt=best\.pth: emergence .* leave ckpt out"):
        select_comparisons({"emergence": EMERGENCE}, "best.pth")
