"""Which activations a network has."""

from __future__ import annotations

from torch import nn

from tff.detectors.trace import trace

_KNOWN = {
    "celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "prelu", "relu", "relu6", "rrelu",
    "selu", "silu", "softplus", "CELU", "ELU", "GELU", "Hardswish", "LeakyReLU", "Mish", "PReLU",
    "ReLU6", "RReLU", "SELU", "SiLU", "Softplus",
}  # fmt: skip


def beside_relu(network: nn.Module) -> list[str]:
    """The activations that are no `nn.ReLU` modules, sorted; functions in lower case, as `relu()`.

    Those of gates (sigmoid) are left out.

    Raises:
        NotImplementedError: the network cannot be traced.
    """
    traced = trace(network)
    operations = {traced.operation(node) for node in traced.nodes}
    names = {getattr(operation, "__name__", str(operation)) for operation in operations} & _KNOWN
    return sorted(name if name[0].isupper() else f"{name}()" for name in names)
