"""Class activation maps of single images, by the package grad-cam."""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.image_selection import (
    PATHS,
    SIDE,
    describe_evidence,
    select_images,
    show_images,
)
from tff.analyses.engine.subject import Subject
from tff.detectors.detector import Detector
from tff.detectors.feature_maps import non_relu_activations
from tff.detectors.frozen import freeze
from tff.detectors.hooks import attends_to_tokens, last_feature_map, to_map
from tff.options import checked, some_of, whole
from tff.plots.image_grids import Picture, colorize, normalize, overlay, shrink
from tff.types import Floats, Pixels, Result

ABOUT = """
Class activation maps, by the package grad-cam: which positions of the feature map {layer} speak for
{evidence}. They are coarse, since a feature map has few positions, and they show where evidence is,
not what it consists of. Guided Grad-CAM multiplies Grad-CAM by the gradient of single pixels. Each
map has its own scale. P is the probability of "generated" that the detector gives.
"""
#: Option -> name. All but the last are classes of the package.
METHODS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "scorecam": "ScoreCAM",
    "guided_gradcam": "Guided Grad-CAM",
}


@dataclass(frozen=True)
@checked("analysis.cams")
class CAMs(Analysis):
    """Class activation maps of files, or of images that the detector mistakes or is surest of.

    Args:
        methods: some of `METHODS`.
        layer: name of a module of the network; None takes the last feature map.
        files: paths of images of any size.
        images: number of images in one figure.
    """

    sanity_checks: ClassVar = "files"
    methods: Annotated[Sequence[str], some_of(METHODS)] = ("gradcam", "guided_gradcam")
    layer: str | None = None
    files: Annotated[Sequence[str], PATHS] = ()
    images: Annotated[int, whole(least=1)] = 4

    def answer(self, subject: Subject) -> Result:
        """Table `cams`, one row per image, and a figure for each selection of images."""
        selections = select_images(subject, self.files, self.images)
        maps = ActivationMaps(subject.detector, self.layer, subject.lrp.real_sign)

        def explain(path: str, image: Tensor, small: Pixels) -> tuple[float, dict[str, Picture]]:
            pixels = image[None].to(subject.passes.device).float() / 255
            logit, found = maps(pixels, self.methods, path)
            pictures = {}
            for method, values in found.items():
                light = normalize(shrink(values, SIDE))
                fine = method == "guided_gradcam"
                picture = colorize(light) if fine else overlay(small, light)
                pictures[METHODS[method]] = picture, "" if light.any() else "nothing positive"
            return logit, pictures

        result = Result("Class activation maps")
        show_images(result, "cams", selections, explain)
        result.tables["cams"].insert(3, "layer", maps.layer)
        result.about = ABOUT.format(
            layer=maps.layer or "(none yet)", evidence=describe_evidence(subject)
        )
        others = non_relu_activations(subject.detector.network)
        if "guided_gradcam" in self.methods and others:
            result.warnings.append(
                "Guided backpropagation changes nn.ReLU only; this network has "
                f"{', '.join(others)}, through which its gradient is the plain one."
            )
        return result


class ActivationMaps:
    """Class activation maps, on copies of the detector, since the package changes modules.

    Args:
        detector: in eval mode; unchanged.
        layer: name of a module of its network whose output is a feature map; None takes the last
            map with several positions, found with the first image.
        real_sign: maps of images with a negative logit show evidence for real (1) or generated
            (-1), as `LRP.real_sign`.

    Raises:
        ValueError: the package is not installed, or there is no such layer.
    """

    def __init__(self, detector: Detector, layer: str | None = None, real_sign: float = 1) -> None:
        try:
            self._package: Any = importlib.import_module("pytorch_grad_cam")
        except ImportError as error:
            raise ValueError(
                "analysis=cams needs the package grad-cam: pip install 'tff[cam]', or "
                "pip install 'grad-cam>=1.5.7,<2'"
            ) from error
        self.detector, self.layer, self.real_sign = detector, layer, real_sign
        names = [name for name, _ in detector.network.named_modules() if name]
        if layer is not None and layer not in names:
            outer = [name for name, _ in detector.network.named_children()]
            raise ValueError(
                f"analysis.cams.layer={layer}: the network has no such module; it has "
                f"{', '.join(outer)}, and others in these, such as {detector.channels.layers[-1]}"
            )

    def __call__(
        self, image: Tensor, methods: Sequence[str], name: str
    ) -> tuple[float, dict[str, Floats]]:
        """The logit of an image (1, 3, H, W) in [0, 1], and for each method a map (H, W), >= 0.

        Args:
            name: of the image, for messages.

        Raises:
            ValueError: the layer's output is not a feature map with several positions.
        """
        # The caller may have switched off gradients.
        with torch.inference_mode(False), torch.enable_grad():
            image = image.clone()
            with torch.no_grad():
                logit = float(self.detector(image))
            if self.layer is None:
                self.layer = last_feature_map(self.detector, image)
            # A gradient, unlike relevance, is not relative to the logit: -1 speaks for real.
            sign = -self.real_sign if logit < 0 else 1.0
            needed = {"gradcam" if method == "guided_gradcam" else method for method in methods}
            maps = {kind: self._map(METHODS[kind], image, sign, name) for kind in sorted(needed)}
            if "guided_gradcam" in methods:
                maps["guided_gradcam"] = maps["gradcam"] * self._guided(image, sign)
        return logit, {method: maps[method] for method in methods}

    def _map(self, method: str, image: Tensor, sign: float, name: str) -> Floats:
        model = _Signed(self.detector, sign)
        target = model.detector.network.get_submodule(str(self.layer))
        convolved = self._require_map(model, target, image, name)
        with ExitStack() as stack:
            cam = getattr(self._package, method)(
                model=model,
                target_layers=[target],
                reshape_transform=lambda out: to_map(target, out, convolved),
            )
            stack.callback(cam.activations_and_grads.release)

            def keep(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
                # Later layers get a copy: in place, they would overwrite the recorded output.
                return out.clone()

            stack.callback(target.register_forward_hook(keep).remove)
            # The image carries the gradient: the detector's weights are frozen.
            stack.enter_context(redirect_stderr(io.StringIO()))  # hides a progress bar per image
            values = cam(input_tensor=image.clone().requires_grad_(True), targets=[_logit])[0]
        return np.asarray(np.nan_to_num(values), np.float64)

    def _require_map(
        self, model: _Signed, target: nn.Module, image: Tensor, name: str
    ) -> list[Sequence[int]]:
        """Shapes of the outputs of all convolutions, if the layer gives a map of several positions.

        Args:
            name: of the image, for the message.
        """
        outputs: list[object] = []
        convolved: list[Sequence[int]] = []

        def keep(_module: nn.Module, _inputs: object, out: object) -> None:
            outputs.append(out)

        def count(_module: nn.Module, _inputs: object, out: Tensor) -> None:
            if not outputs:  # only those before the layer
                convolved.append(out.shape)

        with ExitStack() as stack, torch.no_grad():
            stack.callback(target.register_forward_hook(keep).remove)
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    stack.callback(module.register_forward_hook(count).remove)
            model(image)
        if len(outputs) == 1 and isinstance(out := outputs[0], Tensor) and len(out) == 1:
            unknown = attends_to_tokens(self.detector) and not [*target.parameters()]
            if to_map(target, out, convolved) is not None and not (unknown and out.ndim == 4):
                return convolved
        shapes = [list(out.shape) if isinstance(out, Tensor) else [] for out in outputs]
        raise ValueError(
            f"analysis.cams.layer={self.layer}: gives {', '.join(map(str, shapes)) or 'nothing'} "
            f"for {name}, but a single map with several positions is needed, [1, channels, rows, "
            "columns], or tokens of the entire image, [1, tokens, channels]"
        )

    def _guided(self, image: Tensor, sign: float) -> Floats:
        """(H, W) positive part of the sum over the colors of the guided gradient."""
        model = _Signed(self.detector, sign)
        guided = self._package.GuidedBackpropReLUModel(model=model, device=image.device)
        gradient = guided(image.clone(), target_category=0)
        return np.asarray(gradient.sum(2).clip(min=0), np.float64)


class _Signed(nn.Module):
    """A copy of a detector with one class: the logit, or its opposite."""

    def __init__(self, detector: Detector, sign: float) -> None:
        super().__init__()
        self.detector, self.sign = freeze(detector), sign

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.detector(image)
        return self.sign * logit[:, None]


def _logit(output: Tensor) -> Tensor:
    return output[..., 0]
