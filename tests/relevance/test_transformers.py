"""Relevance through transformers of timm and torchvision, made small."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.models import swin_transformer
from torchvision.models.vision_transformer import VisionTransformer

from tff.detectors.detector import Detector
from tff.detectors.hooks import drop_channels
from tff.relevance.lrp import LRP

SMALL = {"embed_dim": 12, "depth": 2, "num_heads": 3, "img_size": 24, "patch_size": 8}


def of_timm(name: str, **options):
    return lambda: timm.create_model(name, num_classes=1, **options)


def swin(version: str):
    block = {
        "1": (swin_transformer.SwinTransformerBlock, swin_transformer.PatchMerging),
        "2": (swin_transformer.SwinTransformerBlockV2, swin_transformer.PatchMergingV2),
    }[version]
    return lambda: swin_transformer.SwinTransformer(
        [4, 4], 8, [2, 2], [2, 4], [3, 3], num_classes=1, block=block[0], downsample_layer=block[1]
    )


#: Network, size of its images, and its kinds of channels.
NETWORKS = {
    "vit": (of_timm("vit_tiny_patch16_224", **SMALL), 24, "enh"),
    "vit of any size": (
        of_timm("vit_tiny_patch16_224", dynamic_img_size=True, **SMALL), 40, "enh"
    ),
    "deit": (of_timm("deit3_small_patch16_224", **SMALL), 24, "enh"),
    "dinov2": (of_timm("vit_small_patch14_reg4_dinov2", **SMALL), 24, "enh"),
    "dinov2 packed": (of_timm("vit_giant_patch14_dinov2", **SMALL), 24, "enh"),
    "dinov3": (of_timm("vit_small_patch16_dinov3", **SMALL), 24, "enh"),
    "eva02": (of_timm("eva02_tiny_patch14_224", **SMALL), 24, "enh"),
    "clip": (of_timm("vit_base_patch32_clip_quickgelu_224", **SMALL), 24, "enh"),
    "siglip": (of_timm("vit_base_patch16_siglip_224", **SMALL), 24, "enh"),
    "beit": (of_timm("beit_base_patch16_224", **SMALL), 24, "enh"),
    "cait": (of_timm("cait_xxs24_224", **SMALL), 24, "enh"),
    "swin": (
        of_timm(
            "swin_tiny_patch4_window7_224", img_size=24, window_size=3, embed_dim=8, depths=(2, 2),
            num_heads=(2, 4),
        ),
        24, "enh",
    ),
    "hybrid": (of_timm("vit_tiny_r_s16_p8_224", embed_dim=12, depth=2, num_heads=3), 224, "cnh"),
    "convnext of dinov3": (
        of_timm("convnext_tiny.dinov3_lvd1689m", depths=(1, 1, 1, 1), dims=(4, 8, 8, 8)), 40, "c"
    ),
    "torchvision vit": (lambda: VisionTransformer(24, 8, 2, 3, 12, 20, num_classes=1), 24, "enh"),
    "torchvision swin": (swin("1"), 36, "enh"),
    "torchvision swin v2": (swin("2"), 36, "enh"),
}  # fmt: skip
KINDS = {"c": "conv", "e": "embedding", "n": "neurons", "h": "heads"}


def made(name: str, seed: int = 0) -> tuple[Detector, torch.Tensor]:
    """A random network in float64 whose constants are not 0 or 1, and images."""
    make, size, _ = NETWORKS[name]
    torch.manual_seed(seed)
    network = make().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Detector(network.double()).double().eval(), torch.rand(2, 3, size, size).double()


@pytest.mark.parametrize("attention", ["cp", "attnlrp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_conserved_or_recorded_as_lost(name, attention):
    detector, images = made(name)
    lrp = LRP(detector, attention=attention)
    found = lrp.explain(images, pixels=True)
    with torch.no_grad():
        torch.testing.assert_close(found.logit, detector(images), rtol=1e-9, atol=1e-12)
    kinds = {detector.channels.kind(layer) for layer in detector.channels.layers}
    assert kinds == {KINDS[letter] for letter in NETWORKS[name][2]}
    lost = found.conservation[:, :, 2] + found.conservation[:, :, 3]
    size = found.conservation[:, :, 0].abs().amax(1).clamp(min=1)
    assert ((1 - lost.sum(1) - found.pixels.sum((1, 2, 3))).abs() <= 1e-8 * size).all()
    if "h" in NETWORKS[name][2] and attention == "cp":
        assert found.conservation[:, :, 3].abs().max() <= 1e-5 * size.max()
    assert found.shares.isfinite().all()
    assert lrp.channels == detector.channels


@pytest.mark.parametrize("attention", ["cp", "attnlrp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_layer_receives_much_more_than_the_last(name, attention):
    """By the sum of |R|; the head itself hands out any amount where a logit is close to 0."""
    detector, images = made(name)
    head = [module for module in detector.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logit = detector(images)
    left = (seen[0] * head.weight[0]).abs().sum(1) / logit.abs()
    engine = LRP(detector, attention=attention)
    last = len(engine.steps) - 1
    activations = engine.propagator.forward(detector.normalise(images), last)
    seed = torch.ones_like(activations.values[last])
    for layer, sums in engine.propagator.backward(activations, last, seed).sums.items():
        assert (sums.absolute <= 10 * left).all(), layer


@pytest.mark.parametrize("name", NETWORKS)
def test_dropped_neurons_and_heads_equal_weights_of_zero(name):
    detector, images = made(name)
    channels = detector.channels
    for layer in channels.layers:
        kind, module = channels.kind(layer), detector.network.get_submodule(layer)
        if kind not in ("neurons", "heads"):
            continue
        with torch.no_grad():
            with drop_channels(detector, torch.tensor([channels.flat_index(layer, 1)])):
                dropped = detector(images)
            kept = [p.clone() for p in module.parameters()]
            if kind == "heads":
                width = module.in_features // channels.widths[layer]
                module.weight[:, width : 2 * width] = 0
            else:
                row = channels.rows(layer).start + 1
                for parameter in module.parameters():
                    parameter[row] = 0
            torch.testing.assert_close(dropped, detector(images), rtol=1e-9, atol=1e-11)
            for parameter, before in zip(module.parameters(), kept, strict=True):
                parameter.copy_(before)
            assert not torch.equal(dropped, detector(images))


def test_network_that_chooses_by_size_is_refused_with_its_place():
    network = timm.create_model("naflexvit_base_patch16_gap", embed_dim=12, depth=1, num_heads=3)
    with pytest.raises(NotImplementedError, match=r"NaFlexVit cannot be traced .*embeds"):
        LRP(network)


def test_position_embedding_of_any_size_keeps_its_relevance():
    """Whether it is interpolated in each pass, or once."""
    options = SMALL | {"img_size": 40}
    torch.manual_seed(0)
    fixed = timm.create_model("vit_tiny_patch16_224", num_classes=1, **options).double().eval()
    dynamic = timm.create_model(
        "vit_tiny_patch16_224", num_classes=1, dynamic_img_size=True, **options
    )
    dynamic.double().eval().load_state_dict(fixed.state_dict())
    images = torch.rand(2, 3, 40, 40).double()
    one, other = (
        LRP(network, box=False).explain(images, pixels=True) for network in (fixed, dynamic)
    )
    torch.testing.assert_close(one.pixels, other.pixels)
    torch.testing.assert_close(one.shares, other.shares)
    assert isinstance(fixed.pos_embed, nn.Parameter)


class Normed(nn.Module):
    """Attention whose linear layers have a BatchNorm behind them, as in LeViT, or its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.values = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6, bias=False)
        self.norm, self.proj, self.head = nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 1)
        self.num_heads = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        v = self.values(x)
        v = self.norm(v.flatten(0, 1)).reshape_as(v)
        q = torch.unflatten(v, 2, (2, 3)).transpose(1, 2)
        x = nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)
        return self.head(self.proj(x).mean(1))


def test_batch_norm_behind_a_linear_layer_is_a_part_of_it():
    torch.manual_seed(0)
    apart = Normed().double().eval()
    for parameter in (apart.norm.running_mean, apart.norm.running_var, *apart.norm.parameters()):
        nn.init.uniform_(parameter, 0.5, 1.5)
    fused = copy.deepcopy(apart)
    fused.values = nn.utils.fusion.fuse_linear_bn_eval(apart.values, apart.norm)
    fused.norm = nn.Identity()
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    one, other = (
        LRP(network, box=False, epsilon=1e-12).explain(images, pixels=True)
        for network in (apart, fused)
    )
    torch.testing.assert_close(one.pixels, other.pixels, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(one.shares, other.shares, rtol=1e-6, atol=1e-9)
