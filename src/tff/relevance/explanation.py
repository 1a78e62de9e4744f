"""What an explanation consists of."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Explanation(NamedTuple):
    """What one walk back from the logit tells.

    Shape:
        logit: (B,) of the fused network.
        shares: (B, n_channels), channels numbered as in `LRP.channels`.
        ledger: (B, n_accounts, 5), see `ledger.COLUMNS`; accounts as in `LRP.accounts`.
        pixels: (B, 3, H, W) relevance of the input, or None when it was not asked for.
    """

    logit: Tensor
    shares: Tensor
    ledger: Tensor
    pixels: Tensor | None


class Maximum(NamedTuple):
    """Where a channel is most active, and which pixels made it so.

    Shape:
        value: (B,) largest positive output of the channel behind its BatchNorm; 0 if there is none.
        place: (B, 2) row and column of it in the feature map.
        pixels: (B, 3, H, W) relevance of the input; its sum is 1 where nothing leaks, and 0 for an
            image without a positive output.
    """

    value: Tensor
    place: Tensor
    pixels: Tensor
