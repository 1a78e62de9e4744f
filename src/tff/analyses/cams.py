"""Class activation maps of single images."""

from __future__ import annotations

import copy
import importlib
import io
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.image_selection import Selection, caption, check_options, select_images
from tff.analyses.engine.subject import Subject
from tff.detectors.detector import Detector
from tff.detectors.feature_maps import non_relu_activations
from tff.detectors.hooks import last_feature_map
from tff.plots import image_grids
from tff.types import Pixels, Result

Map = NDArray[np.float64]
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


class ActivationMaps:
    """Maps of one image after another, on a copy of the detector: the package changes modules.

    Args:
        detector: in eval mode; unchanged.
        layer: name of a module of its network whose output is a feature map; None takes the last
            map with several places that the first image leads to.
        real_sign: what is shown where the logit is negative: 1 for what speaks for real, -1 for
            what speaks for generated there too; as `LRP.real_sign`.

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
    ) -> tuple[float, dict[str, Map]]:
        """The logit of an image (1, 3, H, W) in [0, 1], and of each method a map (H, W), >= 0.

        Args:
            name: of the image, for messages.

        Raises:
            ValueError: the layer's output is no feature map with several places.
        """
        # Gradients are needed, whatever the caller has switched off.
        with torch.inference_mode(False), torch.enable_grad():
            image = image.clone()
            with torch.no_grad():
                logit = float(self.detector(image))
            if self.layer is None:
                self.layer = last_feature_map(self.detector, image)
            # A gradient, unlike relevance, is not relative to the logit: -1 speaks for real.
            sign = -self.real_sign if logit < 0 else 1.0
            grad_cam: dict[str, Map] = {}
            for method in methods:
                kind = "gradcam" if method == "guided_gradcam" else method
                if kind not in grad_cam:
                    grad_cam[kind] = self._map(METHODS[kind], image, sign, name)
            found = {method: grad_cam.get(method, np.empty(0)) for method in methods}
            if "guided_gradcam" in methods:
                found["guided_gradcam"] = grad_cam["gradcam"] * self._guided(image, sign)
        return logit, found

    def _map(self, method: str, image: Tensor, sign: float, name: str) -> Map:
        model = _Signed(self.detector, sign)
        target = model.detector.network.get_submodule(str(self.layer))
        shapes: list[tuple[int, ...]] = []
        with ExitStack() as stack:
            cam = getattr(self._package, method)(model=model, target_layers=[target])
            stack.callback(cam.activations_and_grads.release)

            def keep(_module: nn.Module, _inputs: object, out: object) -> object:
                # A copy goes on, so that nothing behind overwrites what the package has recorded.
                shapes.append(tuple(out.shape) if isinstance(out, Tensor) else ())
                return out.clone() if isinstance(out, Tensor) else out

            stack.callback(target.register_forward_hook(keep).remove)
            with torch.no_grad():
                model(image)
            if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][2] * shapes[0][3] < 2:
                said = ", ".join(str(list(shape)) for shape in shapes) or "nothing"
                raise ValueError(
                    f"analysis.cams.layer={self.layer}: gives {said} for {name}, but a single map "
                    "of several places is needed, [1, channels, rows, columns]"
                )
            # The image carries the gradient: the detector's weights are frozen.
            stack.enter_context(redirect_stderr(io.StringIO()))  # a bar of its own for each image
            values = cam(input_tensor=image.clone().requires_grad_(True), targets=[_logit])[0]
        return np.asarray(np.nan_to_num(values), np.float64)

    def _guided(self, image: Tensor, sign: float) -> Map:
        """(H, W) positive part of the sum over the colors of the guided gradient."""
        model = _Signed(self.detector, sign)
        guided = self._package.GuidedBackpropReLUModel(model=model, device=image.device)
        gradient = guided(image.clone(), target_category=0)
        return np.asarray(gradient.sum(2).clip(min=0), np.float64)


class _Signed(nn.Module):
    """A copy of a detector with one class: the logit, or its opposite."""

    def __init__(self, detector: Detector, sign: float) -> None:
        super().__init__()
        self.detector, self.sign = copy.deepcopy(detector).requires_grad_(False), sign

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.detector(image)
        return self.sign * logit[:, None]


def _logit(output: Tensor) -> Tensor:
    return output[..., 0]


ABOUT = """
Class activation maps, by the package grad-cam: which places of the feature map {layer} speak for
{what}. They are coarse, since a feature map has few places, and they show where evidence is, not
what it is made of. Guided Grad-CAM multiplies Grad-CAM with the gradient of single pixels. Each map
has its own scale. P is the probability of "generated" that the detector gives.
"""
_SIDE = 512  # pixels of a side, more than a figure shows


@dataclass(frozen=True)
class CAMs(Analysis):
    """Class activation maps of files, or of images that the detector mistakes or is surest about.

    Args:
        methods: some of `METHODS`.
        layer: name of a module of the network; None takes the last feature map.
        files: paths of images of any size.
        images: how many in one figure.

    Raises:
        ValueError: an option has an impossible value.
    """

    sanity_checks: ClassVar = "files"
    methods: Sequence[str] = ("gradcam", "guided_gradcam")
    layer: str | None = None
    files: Sequence[str] = ()
    images: int = 4

    def __post_init__(self) -> None:
        check_options("cams", self.files, self.images)
        unknown = [method for method in self.methods if method not in METHODS]
        if isinstance(self.methods, str) or unknown or not self.methods:
            raise ValueError(
                f"analysis.cams.methods={self.methods}: expected a list of {', '.join(METHODS)}"
            )

    def answer(self, subject: Subject) -> Result:
        """Table `cams`, a row an image, and a figure for each choice of images."""
        chosen = select_images(subject, self.files, self.images)
        maps = ActivationMaps(subject.detector, self.layer, subject.lrp.real_sign)
        result = Result("Class activation maps")
        table: list[dict[str, Any]] = []
        for selection in chosen:
            name = f"cams_{selection.name}"
            rows, facts = self._maps(subject, maps, selection)
            table += facts
            result.figures[name] = image_grids.image_grid(rows if facts else {})
            result.captions[name] = selection.about + ("" if facts else " There are none.")
        decides = subject.lrp.real_sign > 0
        what = "the decision (real or generated)" if decides else 'the answer "generated"'
        result.about = ABOUT.format(layer=maps.layer or "(none yet)", what=what)
        columns = ["chosen", "path", "image", "layer", "p", "logit"]
        result.tables = {"cams": pd.DataFrame(table, columns=columns)}
        if "guided_gradcam" in self.methods and (
            other := non_relu_activations(subject.detector.network)
        ):
            result.warnings.append(
                "Guided backpropagation changes nn.ReLU only; this network has "
                f"{', '.join(other)}, through which its gradient is the plain one."
            )
        return result

    def _maps(
        self, subject: Subject, maps: ActivationMaps, selection: Selection
    ) -> tuple[dict[str, list[tuple[Pixels, str]]], list[dict[str, Any]]]:
        """The rows of a figure and of the table."""
        rows: dict[str, list[tuple[Pixels, str]]] = {
            line: [] for line in ("image", *(METHODS[method] for method in self.methods))
        }
        facts = []
        for path, image, kind in selection:
            pixels = image[None].to(subject.passes.device).float() / 255
            logit, found = maps(pixels, self.methods, path)
            p = 1 / (1 + np.exp(-logit))
            shown = image_grids.shrink_image(np.asarray(image.permute(1, 2, 0), np.uint8), _SIDE)
            rows["image"].append((shown, caption(p, kind)))
            for method, values in found.items():
                light = image_grids.normalize(image_grids.shrink(values, _SIDE))
                fine = method == "guided_gradcam"
                picture = image_grids.colorize(light) if fine else image_grids.overlay(shown, light)
                rows[METHODS[method]].append((picture, "" if light.any() else "nothing positive"))
            facts.append(
                {"chosen": selection.name, "path": path, "image": kind, "layer": maps.layer}
                | {"p": p, "logit": logit}
            )
        return rows, facts
