import re
from math import inf, nan

import pytest

from tff.ablations.color import Hue, Saturation
from tff.ablations.compression import JPEG, Resize
from tff.ablations.frequency import Bandstop, Blur, Highpass, Lowpass, LuminanceBlur
from tff.ablations.noise import Noise, Phase

BAD = [
    (Bandstop, {"low": 0}, "ablation.low=0: must be positive, at most 0.707107"),
    (Bandstop, {"high": 0.8}, "ablation.high=0.8: must be at most 0.707107"),
    (Bandstop, {"low": 0.3}, "ablation.low=0.3: must be below ablation.high=0.25"),
    (Bandstop, {"low": 0.25}, "ablation.low=0.25: must be below ablation.high=0.25"),
    (Blur, {"sigma": -1}, "ablation.sigma=-1: must be positive, at most 100"),
    (Blur, {"sigma": 101}, "ablation.sigma=101: must be at most 100"),
    (Blur, {"sigma": nan}, "ablation.sigma=nan: must be a number"),
    (Highpass, {"cutoff": 0.0}, "ablation.cutoff=0.0: must be positive"),
    (Hue, {"angle": 361}, "ablation.angle=361: must be between -360 and 360"),
    (Hue, {"mode": "all"}, "ablation.mode=all: unknown; there are one, turn"),
    (JPEG, {"quality": 0}, "ablation.quality=0: must be a whole number between 1 and 100"),
    (JPEG, {"quality": 75.5}, "ablation.quality=75.5: must be a whole number"),
    (JPEG, {"quality": True}, "ablation.quality=True: must be a whole number"),
    (JPEG, {"subsampling": 14520}, "ablation.subsampling=14520: unknown; there are 4:4:4, 4:2:2"),
    (Lowpass, {"cutoff": 1}, "ablation.cutoff=1: must be at most 0.707107"),
    (Lowpass, {"cutoff": "0.1"}, "ablation.cutoff=0.1: must be a number"),
    (LuminanceBlur, {"sigma": 0}, "ablation.sigma=0: must be positive"),
    (LuminanceBlur, {"sigma": inf}, "ablation.sigma=inf: must be a number"),
    (Noise, {"sigma": 0}, "ablation.sigma=0: must be positive, at most 255"),
    (Noise, {"seed": -1}, "ablation.seed=-1: must be a whole number between 0 and 4294967295"),
    (Phase, {"strength": 1.5}, "ablation.strength=1.5: must be between 0 and 1"),
    (Phase, {"seed": 0.5}, "ablation.seed=0.5: must be a whole number"),
    (Resize, {"factor": 0.5}, "ablation.factor=0.5: must be between 1 and 64"),
    (Resize, {"filter": "area"}, "ablation.filter=area: unknown; there are bilinear, bicubic"),
    (Saturation, {"strength": -0.1}, "ablation.strength=-0.1: must be between 0 and 1"),
    (Saturation, {"strength": None}, "ablation.strength=None: must be a number"),
    (Saturation, {"strength": True}, "ablation.strength=True: must be a number"),
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
