"""Detectors from timm, and the paper's EfficientNet-B0."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import timm
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from torch import Tensor, nn

from tff.detectors.detector import Detector
from tff.detectors.trained import TRAINED
from tff.detectors.weights import initialise, load_head
from tff.options import PATH, checked, number, whole


@checked("detector")
def timm_model(
    name: str,
    pretrained: bool | Annotated[str, PATH] = True,
    train: Annotated[str, TRAINED] = "all",
    image_size: Annotated[int, whole(1)] | None = None,
) -> Detector:
    """A timm network with one logit, on pixels normalised as its weights expect.

    Args:
        name: such as `resnet50d`, or with the tag of its weights: `resnet50.a1_in1k`.
        pretrained: true: the published weights (downloaded); false: random; or a file of weights.
        train: which parameters are trained: `all`, `head`, or `last_4` (blocks).
        image_size: side in pixels of the images of a transformer with position embeddings, which
            are interpolated; None: that of its weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: timm has no such network, or the weights do not fit or cannot be downloaded.
    """
    network = build_network(name, pretrained, image_size)
    config: Any = network.pretrained_cfg
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Detector(network, mean=mean, std=std, trained=train)


def build_network(name: str, pretrained: bool | str, image_size: int | None = None) -> nn.Module:
    """The bare network, normalised images (B, 3, H, W) -> (B, 1); arguments of `timm_model`."""
    _require_known(name)
    network = _create(name, image_size, num_classes=1)
    # timm downloads the weights and converts them to its current names and shapes; we load them.
    initialise(network, pretrained, lambda: _create(name, image_size, pretrained=True).state_dict())
    return network


def _require_known(name: str) -> None:
    if not isinstance(name, str) or not timm.is_model(name):
        models = timm.list_models()
        close = difflib.get_close_matches(str(name).partition(".")[0], models)
        near = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"detector.name={name}: timm has no such network.{near} timm.list_models() lists all "
            f"{len(models):,}: resnet50, resnet50d, convnext_tiny, regnety_008, ..."
        )
    architecture, _, tag = name.partition(".")
    tags = _list_tags(architecture)
    if tag and tag not in tags:
        raise ValueError(
            f"detector.name={name}: timm has no such weights of {architecture}; available: "
            f"{', '.join(tags) or 'none'}"
        )


def _list_tags(architecture: str) -> list[str]:
    """Tags of the weights that timm knows of an architecture."""
    return [t.partition(".")[2] for t in timm.list_pretrained(f"{architecture}.*")]


def _create(name: str, image_size: int | None, **options: Any) -> nn.Module:
    """A network of timm's for images of a size."""
    if image_size is None:
        network: nn.Module = timm.create_model(name, **options)
        return network
    try:
        network = timm.create_model(name, img_size=image_size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        raise ValueError(
            f"detector.image_size={image_size}: {name} has no such setting, since it takes images "
            "of many sizes; leave it out"
        ) from None
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))
    if image_size % patch[0]:
        raise ValueError(
            f"detector.image_size={image_size}: expected a multiple of {patch[0]}, the side of the "
            f"patches of {name}"
        )
    return network


class LinearProbe(nn.Module):
    """A linear layer on the features of a tower.

    Args:
        tower: normalised images (B, 3, H, W) -> (B, D).
        features: their number D.
    """

    def __init__(self, tower: nn.Module, features: int) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(features, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images -> (B, 1)."""
        logit: Tensor = self.head(self.tower(image))
        return logit


@checked("detector")
def clip_linear(
    name: str = "vit_large_patch14_clip_quickgelu_224.openai",
    pretrained: bool | Annotated[str, PATH] = True,
    head: Annotated[str, PATH] | None = None,
    projected: bool = True,
    train: Annotated[str, TRAINED] = "head",
    image_size: Annotated[int, whole(1)] | None = None,
    lora_alpha: Annotated[float, number(above=0)] | None = None,
) -> Detector:
    """The image tower of CLIP, and a linear layer on its features.

    As UniversalFakeDetect (Ojha et al., CVPR 2023), which trains that layer alone.

    Args:
        name: of a CLIP tower in timm, optionally with the tag of its weights; the networks with
            `quickgelu` are OpenAI's.
        pretrained: true: the published weights (downloaded); false: random; or a file of weights
            with the names of OpenAI, OpenCLIP, transformers or timm.
        head: file with the `weight` (1, D) and `bias` (1,) of the linear layer; None: random.
        projected: the features are those compared with text (768 of ViT-L/14); false: those
            before that projection (1,024), as in Effort (Yan et al., ICML 2025).
        train: which parameters are trained: `all`, `head`, or `last_4` (blocks).
        image_size: side of the images in pixels, see `timm_model`.
        lora_alpha: scale of LoRA updates in a file, where it holds any.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such tower, or weights do not fit or cannot be downloaded.
    """
    _require_known(name)
    width = _projection_width(name) if projected else 0
    tower = _create(name, image_size, num_classes=width)
    network = LinearProbe(tower, width or int(getattr(tower, "num_features", 0)))

    def download() -> dict[str, Any]:
        loaded = _create(name, image_size, pretrained=True, num_classes=width)
        return {f"tower.{key}": value for key, value in loaded.state_dict().items()}

    initialise(network, pretrained, download, lora_alpha)
    if head is not None:
        load_head(network, head)
    # Without a tag, the weights may be anybody's; all but few of LAION's were trained with these.
    config: Any = tower.pretrained_cfg if "." in name else {}
    return Detector(
        network,
        mean=tuple(config.get("mean", OPENAI_CLIP_MEAN)),
        std=tuple(config.get("std", OPENAI_CLIP_STD)),
        trained=train,
    )


def _projection_width(name: str) -> int:
    """Number of features that a CLIP tower shares with text."""
    architecture = name.partition(".")[0]
    for tag in _list_tags(architecture):
        config = timm.get_pretrained_cfg(f"{architecture}.{tag}")
        # Towers whose head is a classifier were trained further, or are none of CLIP.
        if "clip" in architecture and config is not None and 0 < config.num_classes < 1000:
            return int(config.num_classes)
    raise ValueError(
        f"detector.name={name}: timm knows no projection of it to features that are compared with "
        "text; use detector.projected=false, or a CLIP tower such as vit_base_patch32_clip_224"
    )


# The authors train efficientnet_pytorch's network, which equals timm's TensorFlow variant ("same"
# padding, BatchNorm eps 1e-3), not torchvision's.
_EFFICIENTNET_B0 = "tf_efficientnet_b0.in1k"


@checked("detector")
def efficientnet_b0(pretrained: bool | Annotated[str, PATH] = True) -> Detector:
    """EfficientNet-B0 with one logit.

    Args:
        pretrained: true: ImageNet weights (downloaded); false: random; or a file of weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the weights do not fit or cannot be downloaded.
    """
    # The paper's k: the top 27 of 21,008 channels (0.13 %).
    return Detector(build_network(_EFFICIENTNET_B0, pretrained), tff_fraction=27 / 21008)
