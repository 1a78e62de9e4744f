"""Relevance by explicit sums in float64: slow, literal, without autograd; an oracle for tests.

`shares.py` has the rules as formulas over contributions, `recorder.py` and `tape.py` record what a
network did and walk back, `networks.py` builds random small networks of the blocks of the other
files. Each of these says twice what it does: `forward` to torch, `replay` to the tape.
"""

from tests.helpers.lrp_replica.networks import (
    BLOCKS,
    HEADS,
    Explained,
    Network,
    explain,
    explain_maximum,
    network,
    outputs,
)
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.tape import Tape

__all__ = [
    "BLOCKS",
    "HEADS",
    "Explained",
    "Network",
    "Node",
    "Tape",
    "explain",
    "explain_maximum",
    "network",
    "outputs",
]
