"""The last feature map on the way to the logit: where class activation maps are drawn."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from tff.detectors.base import Detector


def last_map(detector: Detector, image: Tensor) -> str:
    """The module that is the last to give a feature map with several places: its name.

    Modules that run several times are left out, since their maps cannot be told apart.

    Args:
        image: (1, 3, H, W) in [0, 1].

    Raises:
        ValueError: there is none.
    """
    runs: dict[str, int] = {}
    maps: list[str] = []
    with ExitStack() as stack, torch.no_grad():
        for name, module in detector.network.named_modules():

            def record(_m: nn.Module, _i: object, out: object, name: str = name) -> None:
                runs[name] = runs.get(name, 0) + 1
                if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] * out.shape[3] > 1:
                    maps.append(name)

            if name:
                stack.callback(module.register_forward_hook(record).remove)
        detector(image)
    single = [name for name in maps if runs[name] == 1]
    if not single:
        raise ValueError(
            f"images of {tuple(image.shape[2:])} pixels leave no feature map with several places; "
            "take larger ones"
        )
    return single[-1]
