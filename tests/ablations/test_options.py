import re
from math import inf, nan

import pytest

from tff.ablations.color import Hue, Saturation
from tff.ablations.compression import JPEG, Resize
from tff.ablations.frequency import Bandstop, Blur, Highpass, Lowpass, LuminanceBlur
from tff.ablations.noise import Noise, Phase

F = "a number above 0 and at most 0.707107"
SEED = "a whole number from 0 to 4294967295"
BAD = [
    (Bandstop, {"low": 0}, f"ablation.low=0: expected {F}"),
    (Bandstop, {"high": 0.8}, f"ablation.high=0.8: expected {F}"),
    (Bandstop, {"low": 0.3}, "ablation.low=0.3: expected a number below ablation.high=0.25"),
    (Bandstop, {"low": 0.25}, "ablation.low=0.25: expected a number below ablation.high=0.25"),
    (Blur, {"sigma": -1}, "ablation.sigma=-1: expected a number above 0 and at most 100"),
    (Blur, {"sigma": 101}, "ablation.sigma=101: expected a number above 0 and at most 100"),
    (Blur, {"sigma": nan}, "ablation.sigma=nan: expected a number"),
    (Highpass, {"cutoff": 0.0}, f"ablation.cutoff=0.0: expected {F}"),
    (Hue, {"angle": 361}, "ablation.angle=361: expected a number from -360 to 360"),
    (Hue, {"mode": "all"}, "ablation.mode=all: expected one of one, turn"),
    (JPEG, {"quality": 0}, "ablation.quality=0: expected a whole number from 1 to 100"),
    (JPEG, {"quality": 75.5}, "ablation.quality=75.5: expected a whole number"),
    (JPEG, {"quality": True}, "ablation.quality=True: expected a whole number"),
    (JPEG, {"subsampling": 14520}, "ablation.subsampling=14520: expected one of 4:4:4, 4:2:2"),
    (Lowpass, {"cutoff": 1}, f"ablation.cutoff=1: expected {F}"),
    (Lowpass, {"cutoff": "0.1"}, f"ablation.cutoff=0.1: expected {F}"),
    (LuminanceBlur, {"sigma": 0}, "ablation.sigma=0: expected a number above 0"),
    (LuminanceBlur, {"sigma": inf}, "ablation.sigma=inf: expected a number"),
    (Noise, {"sigma": 0}, "ablation.sigma=0: expected a number above 0 and at most 255"),
    (Noise, {"seed": -1}, f"ablation.seed=-1: expected {SEED}"),
    (Phase, {"strength": 1.5}, "ablation.strength=1.5: expected a number from 0 to 1"),
    (Phase, {"seed": 0.5}, f"ablation.seed=0.5: expected {SEED}"),
    (Resize, {"factor": 0.5}, "ablation.factor=0.5: expected a number from 1 to 64"),
    (Resize, {"filter": "area"}, "ablation.filter=area: expected one of bilinear, bicubic"),
    (Saturation, {"strength": -0.1}, "ablation.strength=-0.1: expected a number from 0 to 1"),
    (Saturation, {"strength": None}, "ablation.strength=None: expected a number"),
    (Saturation, {"strength": True}, "ablation.strength=True: expected a number"),
]


@pytest.mark.parametrize(("cue", "options", "message"), BAD)
def test_bad_options_are_named_at_once(cue, options, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        cue(**options)


@pytest.mark.parametrize(
    ("cue", "options"),
    [
        (Bandstop, {"low": 0.001, "high": 0.7071}),
        (Blur, {"sigma": 100}),
        (Hue, {"angle": -360}),
        (JPEG, {"quality": 100}),
        (Lowpass, {"cutoff": 0.7071}),
        (Noise, {"sigma": 255, "seed": 2**32 - 1}),
        (Phase, {"strength": 0}),
        (Resize, {"factor": 64}),
        (Saturation, {"strength": 1}),
    ],
)
def test_ends_of_ranges_are_taken(cue, options):
    made = cue(**options)
    assert {name: getattr(made, name) for name in options} == options
