"""ImageNet weights to start from: downloaded, or from the user's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from tff.detectors.checkpoint import read, state_dict_in


def start_from(
    network: nn.Module, pretrained: bool | str, download: Callable[[], Mapping[str, object]]
) -> None:
    """Load weights into the network, its head of 1,000 classes aside where the file has another.

    Args:
        network: changed in place.
        pretrained: true: what `download` returns; false: nothing; a path: that file.
        download: fetches the ImageNet weights.

    Raises:
        ValueError: no network, or weights of another architecture; the message says what to do.
    """
    if pretrained is False:
        return
    weights: Mapping[str, object]
    if pretrained is True:
        try:
            weights = dict(download())
        except Exception as error:  # whatever the download library raises without a network
            raise ValueError(
                "detector.pretrained=true: the ImageNet weights could not be downloaded "
                f"({type(error).__name__}: {str(error)[:200]}). Without a network, pass a file of "
                "weights with detector.pretrained=PATH, or start at random with "
                "detector.pretrained=false"
            ) from error
    else:
        weights = state_dict_in(read(Path(pretrained)), Path(pretrained))
    own = network.state_dict()
    head = [k for k in own if k.startswith(("fc.", "classifier."))]
    missing = [k for k in own if k not in weights and k not in head]
    wrong = [
        k
        for k, v in weights.items()
        if k not in head and (k not in own or getattr(v, "shape", None) != own[k].shape)
    ]
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    if missing or wrong:
        raise ValueError(
            f"detector.pretrained={pretrained}: not weights of this network: "
            f"{len(missing)} missing ({', '.join(missing[:3])}), "
            f"{len(wrong)} unknown or of another shape ({', '.join(wrong[:3])})"
        )
    network.load_state_dict({k: v for k, v in weights.items() if k not in head}, strict=False)
