"""A network as a list of steps, each with its relevance rule, BatchNorm fused into convolutions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from tff.detectors.feature_maps import ATTENTION, SHAPE, SPLITS, Inputs, flow, sources, split_source
from tff.detectors.trace import BATCH_NORM, Trace
from tff.relevance.attention_rules import SOFTMAX, AttnLRP, Softmax, attend
from tff.relevance.conv_rules import Epsilon, Linear, Weighted, ZBox
from tff.relevance.rules import (
    EPSILON,
    JOINS,
    RULES,
    Affine,
    CopyBesideConstants,
    Rule,
    SumWithConstants,
)


def fuse_batch_norm(traced: Trace) -> None:
    """Fuse each BatchNorm into the convolution right before it, exactly.

    Only if nothing else reads the convolution. A BatchNorm elsewhere stays and has a rule of its
    own. The activation that timm's BatchNorm contains stays too.

    Raises:
        NotImplementedError: a BatchNorm uses the statistics of the batch.
    """
    for node in list(traced.nodes):
        norm = traced.modules.get(node)
        if not isinstance(norm, BATCH_NORM):
            continue
        if norm.running_var is None:
            raise NotImplementedError(
                f"{traced.names[node]}: a BatchNorm without running statistics makes the logit of "
                "an image depend on the rest of its batch, and cannot be explained"
            )
        (before,) = node.all_input_nodes
        convolution = traced.modules.get(before)
        if not isinstance(convolution, nn.Conv2d) or len(before.users) > 1:
            continue
        fused = copy.copy(convolution)
        assert norm.running_mean is not None
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps,
            norm.weight, norm.bias,
        )  # fmt: skip
        fused._parameters = {"weight": weight, "bias": bias}
        traced.modules[before] = fused
        activation = getattr(norm, "act", None)  # in timm's BatchNorm
        if activation is None or isinstance(activation, nn.Identity):
            node.replace_all_uses_with(before)
            node.graph.erase_node(node)
            traced.nodes.remove(node)
        else:
            traced.modules[node] = activation


#: Makes the rule of a convolution: ZPlus, or another class with its options bound.
MakeRule = Callable[..., Weighted]


@dataclass
class Step:
    """One operation of the network.

    Attributes:
        name: of the module (`layer1.0.conv1`), or of the enclosing module and the operation.
        inputs: positions of the steps whose outputs it reads; -1 is the input of the network.
        carriers: the inputs that carry a part of the logit.
        run: the operation as a function of all inputs.
        rule: None inside of a gate, where no part of the logit flows.
    """

    name: str
    inputs: list[int]
    carriers: list[int]
    run: Callable[..., Any]
    rule: Rule | None


def canonize(
    traced: Trace,
    convolution: MakeRule,
    linear: MakeRule,
    epsilon: float = EPSILON,
    attention: str = "cp",
) -> list[Step]:
    """Fuse BatchNorm, and give each operation its rule.

    Args:
        traced: a network with one input and one output tensor; changed.
        convolution: makes the rule of convolutions.
        linear: makes the rule of linear layers applied to maps or tokens.
        epsilon: moves denominators away from zero.
        attention: rule of attention, see `LRP`.

    Raises:
        NotImplementedError: relevance reaches an operation without a rule (the message says where,
            and how to add one).
    """
    fuse_batch_norm(traced)
    carriers, gates = flow(traced, attention)
    behind_linear = _norms_behind_linear(traced, carriers)
    if attention == "attnlrp":
        _make_attnlrp(traced)
    splits = {
        node
        for node in traced.nodes
        if traced.operation(node) in SPLITS and all(split_source(traced, u) for u in node.users)
    }
    nodes = [node for node in traced.nodes if node not in splits]  # each part runs its split
    position = {node: i for i, node in enumerate(nodes)} | {traced.source: -1}
    nonnegative: dict[fx.Node, bool] = {traced.source: False}
    steps = []
    for node in nodes:
        rule = None
        if node in carriers:
            signs = [nonnegative[n] for n in carriers[node]]
            if traced.operation(node) in {torch.add, torch.mul, torch.div}:
                signs.append(gates.get(node, _rest_nonnegative(traced, node, carriers[node])))
            make = convolution if isinstance(traced.modules.get(node), nn.Conv2d) else linear
            rule = (
                Affine(traced.operation(node), traced.modules[node], signs, epsilon)
                if node in behind_linear
                else _rule(traced, node, carriers[node], signs, make, epsilon, attention)
            )
            if len(carriers[node]) > 1 and not rule.multiple_inputs:
                raise NotImplementedError(_missing_rule(traced, node, " of several tensors"))
        nonnegative[node] = rule is not None and rule.output_nonnegative()
        inputs = [position[n] for n in sources(traced, node)]
        carrying = [position[n] for n in carriers.get(node, [])]
        steps.append(Step(_name(traced, node), inputs, carrying, _run(traced, node), rule))
    return steps


def _norms_behind_linear(traced: Trace, carriers: Inputs) -> set[fx.Node]:
    """BatchNorms behind a linear layer, perhaps reshaped, in a network with attention (LeViT)."""
    if not any(traced.operation(node) in ATTENTION for node in carriers):
        return set()
    found = set()
    for node in carriers:
        if type(traced.modules.get(node)) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            continue
        before = carriers[node][0]
        while traced.operation(before) in {torch.flatten, torch.reshape, "view"}:
            before = carriers[before][0]
        if isinstance(traced.modules.get(before), nn.Linear):
            found.add(node)
    return found


def _make_attnlrp(traced: Trace) -> None:
    """Call `attend` with positional queries, keys and values for attention in one function."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    for node in traced.nodes:
        if traced.operation(node) is F.scaled_dot_product_attention:
            given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
            node.args = tuple(given.pop(name) for name in names[:3])
            node.target, node.kwargs = attend, given


def _run(traced: Trace, node: fx.Node) -> Callable[..., Any]:
    """The node as a function of its inputs."""
    inputs, split = sources(traced, node), split_source(traced, node)
    module = traced.modules.get(node)
    if module is not None and hasattr(module, "inplace"):
        # In place only on the output of a convolution or sum without another reader: no rule needs
        # these outputs again, and every other stored activation must survive.
        fresh = traced.operation(inputs[0]) in [nn.Conv2d, torch.add] and len(inputs[0].users) == 1
        module = traced.modules[node] = copy.copy(module)  # it may be called elsewhere too
        module.__dict__["inplace"] = fresh
    if module is not None and len(node.args) == 1 and not node.kwargs:
        return module

    def run(*values: Any) -> Any:
        known = dict(zip(inputs, values, strict=True))
        if split is not None:
            return traced.run(split, known)[node.args[1]]
        return traced.run(node, known)

    return run


def _rule(
    traced: Trace,
    node: fx.Node,
    carriers: list[fx.Node],
    signs: list[bool],
    weighted: MakeRule,
    epsilon: float,
    attention: str,
) -> Rule:
    """The rule of a node, by its module class, function or method name."""
    operation, module = traced.operation(node), traced.modules.get(node)
    if isinstance(module, nn.Conv2d):
        return weighted(operation, module, signs, epsilon)
    if isinstance(module, nn.Linear):
        return Linear(
            Epsilon(operation, module, signs, epsilon),
            weighted(operation, module, signs, epsilon),
        )
    split = split_source(traced, node)
    if split is not None:
        operation = traced.operation(split)
    if operation is attend and len(carriers) > 1:
        return _attnlrp(traced, node, carriers, epsilon)
    if operation in SOFTMAX and attention == "attnlrp":
        return Softmax(operation, module, signs, epsilon)
    if operation is torch.add and node.kwargs:
        operation = torch.sub  # the sum may have a factor `alpha`
    if operation is torch.add and len(carriers) == 1 and _adds_map(traced, node, carriers):
        return SumWithConstants(operation, module, signs, epsilon)
    if operation in JOINS and len(carriers) < len(node.all_input_nodes):
        return CopyBesideConstants(operation, module, signs, epsilon)
    kind = RULES.get(BATCH_NORM if isinstance(module, BATCH_NORM) else operation)
    if kind is None or (operation in SPLITS and split is None):
        raise NotImplementedError(_missing_rule(traced, node))
    return kind(operation, module, signs, epsilon)


def _attnlrp(traced: Trace, node: fx.Node, carriers: list[fx.Node], epsilon: float) -> AttnLRP:
    """The rule of an attention whose queries and keys, or one of them, depend on pixels."""
    query, key, value = node.args[:3]
    if value not in carriers:
        raise NotImplementedError(
            f"relevance.attention=attnlrp: no rule for {node.name!r} ({traced.location(node)}), "
            "whose values depend on no pixel; use relevance.attention=cp"
        )
    rule = AttnLRP(attend, None, [False] * len(carriers), epsilon)
    rule.factors = sum(factor in carriers for factor in (query, key))
    return rule


def _adds_map(traced: Trace, node: fx.Node, carriers: list[fx.Node]) -> bool:
    """Whether a sum has a constant that differs between places, not only between channels.

    It may depend on the size of the image, as an interpolated position embedding does.
    """
    other = next((n for n in node.all_input_nodes if n not in carriers), None)
    if other is None or other not in traced.constants:
        return other is not None and traced.operation(other) not in SHAPE
    constant = traced.constants[other]
    return isinstance(constant, Tensor) and sum(size > 1 for size in constant.shape) > 1


def _missing_rule(traced: Trace, node: fx.Node, what: str = "") -> str:
    """Error message: the operation, where it is, and how to add a rule."""
    operation = traced.operation(node)
    name = getattr(operation, "__name__", operation)
    behind = ", ".join(_name(traced, n) for n in sources(traced, node)) or "the input"
    return (
        f"no relevance rule for {name}{what} (node {node.name!r}, {node.op} {node.target}, "
        f"{traced.location(node)}, behind {behind}). "
        f"To add one: tff.relevance.rules.register_rule({name})(RULE), where RULE is "
        "tff.relevance.rules.Pass for an elementwise function, or your own subclass of "
        "tff.relevance.rules.Rule"
    )


def _rest_nonnegative(traced: Trace, node: fx.Node, carriers: list[fx.Node]) -> bool:
    """Whether all numbers and constants of a sum or product are known to be nonnegative."""
    rest = [a for a in (*node.args, *node.kwargs.values()) if a not in carriers]
    known = [traced.constants.get(a, -1) if isinstance(a, fx.Node) else a for a in rest]
    return all(
        isinstance(a, int | float | Tensor) and bool((torch.as_tensor(a) >= 0).all()) for a in known
    )


def _name(traced: Trace, node: fx.Node) -> str:
    if node in traced.modules or not traced.names.get(node):
        return traced.names.get(node) or node.name
    return f"{traced.names[node]}.{node.name}"


def zbox_rules(steps: list[Step], mean: Tensor, std: Tensor) -> dict[int, Rule]:
    """The z^B rule for each convolution that reads the image itself, by its position.

    Args:
        steps: operations in order of execution.
        mean: (3, 1, 1) subtracted from pixels in [0, 1] by the normalisation.
        std: (3, 1, 1) divides the difference.
    """
    # One range for all three colors, in single precision, as in the released code.
    mean, std = mean.float().cpu(), std.float().cpu()
    low, high = float(((0 - mean) / std).min()), float(((1 - mean) / std).max())
    return {
        i: ZBox(rule.operation, rule.module, rule.nonnegative, rule.epsilon, low=low, high=high)
        for i, step in enumerate(steps)
        if step.carriers == [-1] and isinstance(rule := step.rule, Weighted)
    }
