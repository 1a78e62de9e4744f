"""A private copy of a network: frozen, in eval mode, with its weights as plain parameters."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

M = TypeVar("M", bound=nn.Module)


def freeze(network: M) -> M:
    """Copy a network; weights that it computes from others become what they are in eval mode.

    Those are weights of `torch.nn.utils.parametrize` (weight, spectral and orthogonal
    normalisation), of the older `weight_norm` and `spectral_norm`, and of pruning.

    Raises:
        NotImplementedError: a layer has no weights yet, is quantised, or computes its weights in a
            way of its own; or the network cannot be copied.
    """
    for name, module in network.named_modules():
        _require_weights(name, module)
    frozen = _copy(network).eval()
    with torch.no_grad():
        for name, module in frozen.named_modules():
            _make_plain(name, module)
    return frozen.requires_grad_(False)


def _require_weights(name: str, module: nn.Module) -> None:
    where = f"{name or 'the network'} ({type(module).__name__})"
    own = (*module._parameters.values(), *module._buffers.values())
    tensors = [tensor for tensor in own if tensor is not None]
    if any(is_lazy(tensor) for tensor in tensors):
        raise NotImplementedError(
            f"{where} has no weights yet, since it has seen no image; call the network with a "
            "batch of images first"
        )
    if ".quantized" in type(module).__module__ or any(t.is_quantized for t in tensors):
        raise NotImplementedError(
            f"{where} is quantised, and rounds what would be explained; explain the network as it "
            "was before it was quantised"
        )


def _copy(network: M) -> M:
    """Deep copy, also of tensors that were computed; what cannot be copied is shared."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(network, dict(memo))
    except Exception:  # whatever an attribute raises that cannot be copied, such as a lock
        for module in network.modules():
            _share_attributes(module, memo)
    try:
        return copy.deepcopy(network, memo)
    except Exception as error:
        raise NotImplementedError(
            f"{type(network).__name__} cannot be copied ({type(error).__name__}: {error}); give it "
            "a method __deepcopy__, or explain one without that attribute"
        ) from error


def _share_attributes(module: nn.Module, memo: dict[int, Any]) -> None:
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules"):
            continue
        try:
            copy.deepcopy(value, dict(memo))
        except Exception:
            # Containers themselves are copied: hooks may be added to one, or removed.
            memo[id(value)] = copy.copy(value) if isinstance(value, dict | list | set) else value


def _make_plain(name: str, module: nn.Module) -> None:
    """Replace computed weights of a layer by parameters."""
    if parametrize.is_parametrized(module):
        parts: Any = module.parametrizations
        values = {key: getattr(module, key).detach().clone() for key in parts}
        # Not `remove_parametrizations`: it changes the class, which the given network has too.
        module.__class__ = type(module).__bases__[0]
        del module._modules["parametrizations"]
        for key, value in values.items():
            module.register_parameter(key, nn.Parameter(value, requires_grad=False))
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm | SpectralNorm):
            hook.remove(module)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
        else:
            continue
        module._forward_pre_hooks.pop(key, None)
    if isinstance(module, nn.Conv2d | nn.Linear) and "weight" not in module._parameters:
        raise NotImplementedError(
            f"{name or 'the network'} ({type(module).__name__}) computes its weight in a way of "
            "its own; compute it with torch.nn.utils.parametrize.register_parametrization"
        )
