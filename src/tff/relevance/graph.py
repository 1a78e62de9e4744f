"""A network -> the same network as a list of steps in order of execution, each with its rule."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from tff.relevance.rule import RULES, Rule
from tff.relevance.rules import Gate, Sum
from tff.relevance.trace import trace

_PLAIN: dict[Any, Any] = {
    operator.add: torch.add,
    operator.iadd: torch.add,  # in place in the network, never here
    operator.mul: torch.mul,
}


@dataclass
class Step:
    """One operation of the network.

    Attributes:
        name: name of the module (`layer1.0.conv1`) or of the operation, for messages and results.
        inputs: positions of the steps whose outputs come in; -1 is the input of the network.
        rule: None where no relevance ever arrives (the inside of a squeeze-excite gate).
    """

    name: str
    inputs: list[int]
    run: Callable[..., Tensor]
    rule: Rule | None = None


def canonize(network: nn.Module) -> list[Step]:
    """Trace a frozen copy of the network and give each operation its rule.

    Args:
        network: any module with one tensor in and one tensor out that `torch.fx` can trace.

    Raises:
        NotImplementedError: relevance reaches an operation without a rule (the message names the
            place and says how to add one), or the network cannot be traced.
    """
    (source, *nodes), modules = trace(network)
    position = {node: i for i, node in enumerate(nodes)} | {source: -1}
    steps = [_step(node, position, modules) for node in nodes]
    rules = _rules(nodes, steps, modules)
    for step, rule in zip(steps, rules, strict=True):
        step.rule = rule
    return steps


def _step(node: fx.Node, position: dict[fx.Node, int], modules: dict[str, nn.Module]) -> Step:
    """The node as a function of its tensor inputs alone."""
    inputs = node.all_input_nodes
    module = modules[str(node.target)] if node.op == "call_module" else None
    if module is not None and hasattr(module, "inplace"):
        # In place only on what a convolution or a sum has just made and nobody else reads: no rule
        # asks for these outputs again, and every other stored activation must survive.
        maker = inputs[0]
        fresh = isinstance(modules.get(str(maker.target)), nn.Conv2d) or maker.target in _PLAIN
        module = copy.copy(module)  # one module may serve several places
        module.__dict__["inplace"] = fresh and len(maker.users) == 1
    function = _PLAIN.get(node.target, node.target)

    def run(*tensors: Tensor) -> Tensor:
        known = dict(zip(inputs, tensors, strict=True))
        args, kwargs = cast(Any, fx.node.map_arg((node.args, node.kwargs), known.__getitem__))
        if module is not None:
            out = module(*args, **kwargs)
        elif node.op == "call_method":
            out = getattr(args[0], function)(*args[1:], **kwargs)
        else:
            out = function(*args, **kwargs)
        return cast(Tensor, out)

    name = str(node.target) if module is not None else node.name
    places = [position[n] for n in inputs]
    return Step(name, places, module or run)


def _rules(
    nodes: list[fx.Node], steps: list[Step], modules: dict[str, nn.Module]
) -> list[Rule | None]:
    """The rule of each step that relevance reaches, going back from the output."""
    gates = _gates(nodes, steps, modules)
    reached = {len(steps) - 1}
    kinds: dict[int, type[Rule]] = {}
    for i in reversed(range(len(steps))):
        if i not in reached:
            continue
        kinds[i] = _kind(nodes[i], modules)
        if issubclass(kinds[i], Sum | Gate) and len(steps[i].inputs) != 2:
            raise NotImplementedError(
                f"{nodes[i].name!r}: there is a rule for two different tensors only"
            )
        carried = [j for p, j in enumerate(steps[i].inputs) if gates.get(i) != p]
        reached |= {j for j in carried if j >= 0}
    rules: list[Rule | None] = [None] * len(steps)
    nonnegative = {-1: False}
    for i, step in enumerate(steps):
        signs = [nonnegative[j] for j in step.inputs]
        nonnegative[i] = all(signs) and bool(signs)
        if i in kinds:
            module = modules.get(str(nodes[i].target)) if nodes[i].op == "call_module" else None
            rule = kinds[i](step.run, module, signs)
            if isinstance(rule, Gate):
                rule.gate = gates[i]
            rules[i], nonnegative[i] = rule, rule.output_nonnegative()
    return rules


def _kind(node: fx.Node, modules: dict[str, nn.Module]) -> type[Rule]:
    """The rule class of a node, by its module class, function or method name."""
    operation = _PLAIN.get(node.target, node.target)
    if node.op == "call_module":
        classes = type(modules[str(node.target)]).__mro__
        operation = next((c for c in classes if c in RULES), classes[0])
    if operation not in RULES:
        raise NotImplementedError(
            f"no relevance rule for {getattr(operation, '__name__', operation)} "
            f"(node {node.name!r}, {node.op} {node.target}). Write a class derived from "
            "tff.relevance.rules.Rule and mark it with @explains(...)"
        )
    return RULES[operation]


def _gates(
    nodes: list[fx.Node], steps: list[Step], modules: dict[str, nn.Module]
) -> dict[int, int]:
    """For each product, the position of the factor that is a gate: the one a sigmoid made."""
    gates = {}
    for i, node in enumerate(nodes):
        if _PLAIN.get(node.target, node.target) not in [torch.mul, "mul"]:
            continue
        made = [
            j >= 0 and isinstance(modules.get(str(nodes[j].target)), nn.Sigmoid | nn.Hardsigmoid)
            for j in steps[i].inputs
        ]
        if sum(made) != 1:
            raise NotImplementedError(
                f"{node.name!r}: of a product, just one factor must come from a sigmoid (a gate)"
            )
        gates[i] = made.index(True)
    return gates
