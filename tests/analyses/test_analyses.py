import pandas as pd
import torch
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.engine.analysis import run
from tff.analyses.engine.passes import Passes
from tff.analyses.median_test import MedianTest
from tff.analyses.ranking import Ranking
from tff.analyses.sensitivity import Sensitivity


def test_passes_are_shared(red_root, monkeypatch):
    calls = []
    for name in ("relevance", "outputs", "outputs_without_channels"):
        original = getattr(Passes, f"compute_{name}")

        def counted(self, *args, name=name, original=original, **kwargs):
            calls.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Passes, f"compute_{name}", counted)
    # Two cues that are equal, as two entries of a configuration make them.
    analyses = {
        "ablation": Ablation(Grayscale()),
        "ranking": Ranking(),
        "sensitivity": Sensitivity(),
        "median_test": MedianTest(Grayscale()),
    }
    results = run(analyses, tiny.subject(red_root))
    # As it is, without the cue, and on the validation images, for a threshold.
    assert sorted(calls) == ["outputs"] * 3 + ["outputs_without_channels", "relevance"]
    assert list(results) == list(analyses)


def test_single_and_joint_runs_give_the_same_numbers(red_root):
    analyses = {
        "ablation": Ablation(Grayscale()),
        "ranking": Ranking(),
        "median_test": MedianTest(Grayscale()),
    }
    together = run(analyses, tiny.subject(red_root))
    for name, analysis in analyses.items():
        alone = analysis(tiny.subject(red_root))
        for table in alone.tables:
            pd.testing.assert_frame_equal(
                alone.tables[table], together[name].tables[table], check_exact=True
            )


def test_the_detector_given_is_untouched(red_root):
    detector = tiny.detector().train()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    subject = tiny.Subject.of(detector, tiny.splits(red_root), draws=10, device="cpu")
    run({"r": Ranking(), "s": Sensitivity(), "m": MedianTest(Grayscale())}, subject)
    assert detector.training
    assert all(p.requires_grad and p.grad is None for p in detector.parameters())
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    for module in [*detector.modules(), *subject.detector.modules()]:
        assert not module._forward_hooks
        assert not module._backward_hooks
