"""What analyses ask of a network besides passes over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tff.detectors.detector import Detector
from tff.detectors.feature_maps import twins
from tff.relevance.lrp import LRP
from tff.types import Channels


@dataclass(frozen=True)
class Network:
    """What is known without images.

    Attributes:
        channels: the numbering of its channels.
        twins: of each channel the earlier one that it continues, or -1.
        tff_fraction: the paper's share of top channels.
        accounts: operation and rule of each line of the relevance ledger.
        max_leak: part of the relevance that may be lost before analyses warn.
    """

    channels: Channels
    twins: Tensor
    tff_fraction: float
    accounts: list[tuple[str, str]]
    max_leak: float

    @classmethod
    def of(cls, detector: Detector, lrp: LRP) -> Network:
        """Of a detector and its relevance method."""
        same = twins(detector.network)
        return cls(detector.channels, same, detector.tff_fraction, lrp.accounts, lrp.max_leak)


class _Missing:
    """Stands where passes and a network should be."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("this analysis needs a detector: pass ckpt=...")


NONE: Any = _Missing()
