"""Layer-wise relevance propagation (LRP): relevance of every channel and of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from tff.detectors.detector import Detector
from tff.detectors.feature_maps import uses_attention
from tff.detectors.frozen import freeze
from tff.detectors.tokens import Grid
from tff.detectors.trace import trace
from tff.options import checked, number, one_of
from tff.relevance.canonize import MakeRule, canonize, zbox_rules
from tff.relevance.conv_rules import CONVOLUTIONS, ON_TOKENS, PRECISIONS, float32_precision
from tff.relevance.propagate import Propagator
from tff.relevance.rules import EPSILON


def channel_relevance(
    detector_or_module: nn.Module, images: Tensor, sign: float | Tensor = 1.0
) -> dict[str, Tensor]:
    """Share of each channel in the relevance of its layer, per image.

    Sum of the positive relevance of the channel over the sum of absolute relevance of the layer:
    the terms that FF-RS averages (Chandrasegaran et al., ECCV 2022).

    Args:
        detector_or_module: a `Detector` or any traceable network with one logit.
        images: (B, 3, H, W), exactly what the given module takes.
        sign: initial relevance of the logit, a number or (B,).

    Returns:
        (B, C) shares of each convolution, by its module name, in the dtype of the network.
    """
    lrp = LRP(detector_or_module)
    return lrp.channels.split(lrp.explain(images, sign).shares)


class Explanation(NamedTuple):
    """Result of one backward pass from the logit.

    Shape:
        logit: (B,) of the fused network.
        shares: (B, n_channels), channels numbered as in `LRP.channels`.
        conservation: (B, n_operations, 5), operations as in `LRP.leaky_operations`, columns as in
            `conservation.COLUMNS`.
        pixels: (B, 3, H, W) relevance of the input, or None if not requested.
    """

    logit: Tensor
    shares: Tensor
    conservation: Tensor
    pixels: Tensor | None


class MaximumExplanation(NamedTuple):
    """Where a channel is most active, and which pixels cause it.

    Shape:
        value: (B,) largest positive output of the channel behind its BatchNorm; 0 if there is none.
            For a head the largest length of its output vector.
        position: (B, 2) its row and column in the feature map, or in the grid of tokens; -1 for
            tokens without a place in the image, such as class tokens.
        pixels: (B, 3, H, W) relevance of the input. Its sum is 1 if nothing leaks, and 0 for an
            image without a positive output.
    """

    value: Tensor
    position: Tensor
    pixels: Tensor


class LRP:
    """Layer-wise relevance propagation through any convolutional network with one logit.

    Works on a frozen private copy: the given module is never touched. Memory does not grow with the
    number of images, since only C numbers per image and layer survive.

    Args:
        module: a `Detector` (images in [0, 1]) or a bare network (images as it takes them).
        rule: of convolutions and of linear layers applied to maps or tokens, a key of
            `CONVOLUTIONS`. `auto`: zplus, as in the paper, but epsilon for the linear layers of
            networks with attention.
        alpha: of `rule=alphabeta`.
        gamma: of `rule=gamma`.
        epsilon: moves denominators away from zero. None: 1e-6, as in the released code, and 1e-9 in
            networks with attention.
        attention: `cp`: attention weights are constants (Ali et al., ICML 2022); `attnlrp`: they
            receive relevance too (Achtibat et al., ICML 2024).
        box: whether the first layer uses the z^B rule when pixel relevance is requested (as in the
            released code for ResNets, but not for EfficientNet).
        precision: of the convolutions of the rules, fp32, tf32 (GPU) or bf16; the forward pass and
            everything else keep the precision of the network.
        compile: use `torch.compile`, which takes minutes for each size of images.
        real_sign: whether relevance of a real image explains the decision (`decision`), or the
            evidence for "generated" as in the released code (`paper`).
        max_leak: fraction of the relevance that may be lost before analyses warn.

    Raises:
        NotImplementedError: the network contains an operation without a rule.
        ValueError: an option has a value that is not allowed.
    """

    @checked("relevance")
    def __init__(
        self,
        module: nn.Module,
        rule: Annotated[str, one_of(["auto", *CONVOLUTIONS])] = "auto",
        *,
        alpha: Annotated[float, number(1)] = 2.0,
        gamma: Annotated[float, number(0)] = 0.25,
        epsilon: Annotated[float, number(above=0)] | None = None,
        attention: Literal["cp", "attnlrp"] = "cp",
        box: bool = True,
        precision: Annotated[str, one_of(PRECISIONS)] = "fp32",
        compile: bool = False,
        real_sign: Literal["decision", "paper"] = "decision",
        max_leak: Annotated[float, number(0)] = 0.05,
    ) -> None:
        detector = module if isinstance(module, Detector) else Detector(freeze(module))
        traced = trace(detector.network)
        attends = uses_attention(traced)
        if epsilon is None:
            epsilon = 1e-9 if attends else EPSILON
        options: dict[str, dict[str, Any]] = {
            "alphabeta": {"alpha": alpha}, "gamma": {"gamma": gamma},
        }  # fmt: skip

        def make(name: str, on_tokens: bool = False) -> MakeRule:
            kind = CONVOLUTIONS[name]
            if on_tokens:
                kind = ON_TOKENS.get(kind, kind)
            return partial(kind, precision=precision, **options.get(name, {}))

        of_maps, of_linear = (rule, rule) if rule != "auto" else ("zplus", "zplus")
        if rule == "auto" and attends:
            of_linear = "epsilon"
        #: How relevance is computed, for tables.
        self.protocol = {
            "rule": of_maps if of_maps == of_linear else f"{of_maps}, {of_linear} in linear layers",
            **options.get(rule, {}), "precision": precision, "real_sign": real_sign,
        }  # fmt: skip
        if attends:
            self.protocol |= {"attention": attention, "epsilon": epsilon}
        if detector.units:
            self.protocol["units"] = ", ".join(detector.units)
        self.max_leak, self.precision = max_leak, precision
        #: Initial relevance of the logit of a real image.
        self.real_sign = 1.0 if real_sign == "decision" else -1.0
        self._normalise = detector.normalise if detector is module else nn.Identity()
        self.steps = canonize(traced, make(of_maps), make(of_linear, attends), epsilon, attention)
        self.channels = detector.channels
        convolutions = {n for n, m in detector.network.named_modules() if isinstance(m, nn.Conv2d)}
        self._convolutions = [i for i, step in enumerate(self.steps) if step.name in convolutions]
        input_rules = zbox_rules(self.steps, detector.mean, detector.std) if box else {}
        self.propagator = Propagator(self.steps, self.channels, input_rules)
        self._channels = Compiled(self._to_channels) if compile else self._to_channels

    @property
    def leaky_operations(self) -> list[tuple[str, str]]:
        """Operations that may lose relevance, in order: their name, and the name of their rule."""
        steps = (self.steps[i] for i in self.propagator.conservation.leaky)
        return [(step.name, type(step.rule).__name__) for step in steps]

    def explain(
        self, images: Tensor, sign: float | Tensor = 1.0, pixels: bool = False
    ) -> Explanation:
        """Explain the logit of each image.

        Args:
            images: (B, 3, H, W), exactly what the given module takes.
            sign: initial relevance of the logit, a number or (B,). +1 explains the decision (in
                favor of "real" if the logit is negative); -1 is what the released code uses for
                real images.
            pixels: also return the relevance of the input.
        """
        with self._inputs(images) as inputs:
            seed = torch.as_tensor(sign, dtype=inputs.dtype, device=inputs.device)
            seed = seed.expand(len(inputs)).clone()
            if pixels:
                return Explanation(*self._backward(inputs, seed, pixels=True))
            logit, shares, conservation = self._channels(inputs, seed)
            return Explanation(logit, shares, conservation, None)

    def explain_maximum(
        self, images: Tensor, layer: str, channel: int | Tensor
    ) -> MaximumExplanation:
        """Explain where a channel is most active (LRP-max; Chandrasegaran et al., ECCV 2022).

        Of equal maxima the first counts, by column, then by row, as in the released code; of tokens
        the first. Relevance starts at 1, for a head divided among the numbers of its output vector
        in proportion to their squares.

        Args:
            images: (B, 3, H, W), exactly what the given module takes.
            layer: name of a layer in `channels`.
            channel: one for all images, or one per image, (B,).

        Raises:
            KeyError: no such layer or channel.
        """
        channels = torch.as_tensor(channel, device=images.device).expand(len(images))
        for one in set(channels.tolist()):
            self.channels.flat_index(layer, one)
        last = max(i for i, step in enumerate(self.steps) if step.name == layer)
        if self.channels.kind(layer) == "heads":  # which are what this layer reads
            (last,) = self.steps[last].carriers
        rows = torch.arange(len(images), device=images.device)
        with self._inputs(images) as inputs:
            activations = self.propagator.forward(inputs, last)
            outputs = activations.values[last]
            seed = outputs.new_zeros(outputs.shape)
            of_channel = self.channels.by_image(layer, outputs, len(images))[rows, channels]
            to_seed = self.channels.by_image(layer, seed, len(images))
            if self.channels.apart(layer, outputs)[1] == 1:
                x = of_channel.amax(1).argmax(1)
                y = of_channel[rows, :, x].argmax(1)
                value = of_channel[rows, y, x].clamp(min=0)
                to_seed[rows, channels, y, x] = (value > 0).to(seed.dtype)
                position = torch.stack([y, x], dim=1)
            else:
                strength = self.channels.strength(layer, of_channel)
                token = strength.argmax(1)
                value = strength[rows, token].clamp(min=0)
                found = of_channel[rows, token]  # (B,) or (B, width of a head)
                squares = found.square().reshape(len(images), -1)
                parts = (squares / squares.sum(1, keepdim=True)) * (value > 0)[:, None]
                to_seed[rows, channels, token] = parts.nan_to_num(0.0).reshape(found.shape)
                position = self._locate(token, outputs.shape, activations.shapes, last)
            result = self.propagator.backward(activations, last, seed, pixels=True)
        assert result.pixels is not None
        return MaximumExplanation(value, position, result.pixels)

    def _locate(
        self, token: Tensor, output: Sequence[int], shapes: Mapping[int, Any], last: int
    ) -> Tensor:
        """Row and column of tokens (B,) in the image, (B, 2); -1 where they have no place.

        Args:
            token: numbers of tokens.
            output: shape of what the layer computes.
            shapes: of the outputs of steps.
            last: the step of the layer.
        """
        grid = None
        if output[0] == len(token) and len(output) == 4:
            grid = Grid(output[1], output[2], prefix=0)
        elif output[0] == len(token):  # not the tokens of windows
            maps = [shapes[i] for i in self._convolutions if i < last]
            grid = Grid.find(output[1], maps)
        return grid.locate(token) if grid else torch.full((len(token), 2), -1).to(token)

    def _to_channels(self, images: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._backward(images, seed, pixels=False)[:3]

    def _backward(
        self, images: Tensor, seed: Tensor, pixels: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        last = len(self.steps) - 1
        activations = self.propagator.forward(images, last)
        logit = activations.values[last]
        if logit.numel() != len(images):
            raise ValueError(
                f"expected one logit per image, got an output of {tuple(logit.shape)} for "
                f"{len(images)} images"
            )
        seed = seed.to(logit).reshape(logit.shape)
        result = self.propagator.backward(activations, last, seed, pixels)
        shares = self.channels.join({name: sums.share for name, sums in result.sums.items()})
        return logit.flatten(), shares, result.conservation.table(logit), result.pixels

    @contextmanager
    def _inputs(self, images: Tensor) -> Iterator[Tensor]:
        """Context without gradients, with the images as the network takes them."""
        # Not in inference mode: `vjp` computes the transposes of pools and sums.
        with torch.inference_mode(False), torch.no_grad(), float32_precision(self.precision):
            yield self._normalise(images.clone() if images.is_inference() else images)


class Compiled:
    """Calls a function as it is for the first batch of each size, and compiled from then on.

    The last, smaller batch of a pass is thus not compiled. The function is first recorded as a flat
    list of tensor operations: without that, `torch.compile` gives up on the loop over steps and
    compiles each step separately.

    Args:
        function: of two tensors; its control flow depends on their shapes only.

    Raises:
        ValueError: in the call that compiles it, for example without a C++ compiler.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        self.function = function
        self._seen: set[object] = set()
        self._compiled: dict[object, Callable[[Tensor, Tensor], Any]] = {}

    def __call__(self, images: Tensor, seed: Tensor) -> Any:
        shape = (images.shape, images.stride(), images.dtype, images.device)
        if shape in self._compiled:
            return self._compiled[shape](images, seed)
        if shape not in self._seen:
            self._seen.add(shape)
            return self.function(images, seed)
        # Given a bound method, `make_fx` would count `self` among the tensors.
        flat = make_fx(lambda images, seed: self.function(images, seed))(images, seed)
        compiled = torch.compile(flat)
        try:
            result = compiled(images, seed)
        except Exception as error:  # whatever the compilers behind torch.compile raise
            raise ValueError(
                "relevance.compile=true: cannot be compiled on this machine "
                f"({type(error).__name__}: {str(error)[:200]}). It needs a C++ compiler; "
                "relevance.compile=false gives the same numbers"
            ) from error
        self._compiled[shape] = compiled
        return result
