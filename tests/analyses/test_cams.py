"""Class activation maps against literal replicas; the detector stays unchanged."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision
from tests.helpers import tiny
from torch import nn

from tff.analyses.cams import METHODS, ActivationMaps, CAMs
from tff.detectors.detector import Detector
from tff.detectors.feature_maps import non_relu_activations
from tff.detectors.hooks import last_feature_map


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), images=4)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return Detector(torchvision.models.resnet18(num_classes=1)).eval().requires_grad_(False)


IMAGE = torch.rand(1, 3, 96, 80, generator=torch.Generator().manual_seed(1))


def grad_cam(detector, layer, image, sign):
    """Selvaraju et al. (ICCV 2017) in the shortest way."""
    kept = []
    module = detector.network.get_submodule(layer)
    hook = module.register_forward_hook(lambda _m, _i, out: kept.append(out) or out.clone())
    logit = detector(image.clone().requires_grad_(True))
    hook.remove()
    (slope,) = torch.autograd.grad(sign * logit.sum(), kept[0])
    weights = slope.mean((2, 3), keepdim=True)
    cam = (weights * kept[0]).sum(1)[0].clamp(min=0).detach().numpy()
    cam = (cam - cam.min()) / (cam - cam.min()).max()
    large = cv2.resize(cam, (image.shape[3], image.shape[2]))
    return (large - large.min()) / (large - large.min()).max()


@pytest.mark.parametrize("layer", ["layer4", "layer3.1.bn2", "layer2.0.conv1"])
def test_grad_cam_equals_its_definition(resnet, layer):
    with torch.no_grad():
        sign = 1.0 if float(resnet(IMAGE)) >= 0 else -1.0
    logit, found = ActivationMaps(resnet, layer)(IMAGE, ["gradcam"], "x")
    assert logit == pytest.approx(float(resnet(IMAGE)))
    assert found["gradcam"].shape == (96, 80)
    expected = grad_cam(resnet, layer, IMAGE, sign)
    np.testing.assert_allclose(found["gradcam"], expected, atol=1e-5)


@pytest.mark.parametrize("shift", [-50.0, 50.0])
@pytest.mark.parametrize("real_sign", [1.0, -1.0])
def test_map_of_a_real_image(resnet, shift, real_sign):
    bias = resnet.network.fc.bias
    before = bias.data.clone()
    try:
        bias.data += shift
        _, found = ActivationMaps(resnet, "layer3.1.bn2", real_sign)(IMAGE, ["gradcam"], "x")
    finally:
        bias.data.copy_(before)
    sign = -1.0 if shift < 0 and real_sign > 0 else 1.0
    expected, opposite = (grad_cam(resnet, "layer3.1.bn2", IMAGE, s) for s in (sign, -sign))
    assert np.abs(expected - opposite).max() > 0.5
    np.testing.assert_allclose(found["gradcam"], expected, atol=1e-5)


def test_guided_grad_cam_is_the_product_of_both(resnet):
    logit, found = ActivationMaps(resnet)(IMAGE, ["guided_gradcam", "gradcam"], "x")
    assert list(found) == ["guided_gradcam", "gradcam"]
    network = torchvision.models.resnet18(num_classes=1)
    network.load_state_dict(resnet.network.state_dict())
    other = Detector(network).eval()
    for module in other.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
            module.register_full_backward_hook(lambda _m, inner, _o: (inner[0].clamp(min=0),))
    image = IMAGE.clone().requires_grad_(True)
    ((1 if logit >= 0 else -1) * other(image)).sum().backward()
    guided = image.grad[0].sum(0).clamp(min=0).double().numpy()
    expected = guided * found["gradcam"]
    assert expected.max() > 0
    np.testing.assert_allclose(
        found["guided_gradcam"], expected, atol=1e-4 * expected.max(), rtol=1e-3
    )


@pytest.mark.parametrize("inference", [False, True])
def test_the_detector_is_unchanged(root, inference):
    with torch.inference_mode(inference):
        subject = tiny.subject(root)
        before = {key: value.clone() for key, value in subject.detector.state_dict().items()}
        kinds = [(type(m), getattr(m, "inplace", None)) for m in subject.detector.modules()]
        CAMs(methods=list(METHODS), images=2)(subject)
    after = subject.detector.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert kinds == [(type(m), getattr(m, "inplace", None)) for m in subject.detector.modules()]
    for module in subject.detector.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    for parameter in subject.detector.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_map_of_the_size_of_the_image(resnet, method, capfd):
    _, found = ActivationMaps(resnet, "layer2")(IMAGE[:, :, :48], [method], "x")
    assert found[method].shape == (48, 80)
    assert np.isfinite(found[method]).all()
    assert found[method].min() >= 0
    assert found[method].std() > 0
    assert capfd.readouterr().err == ""


def test_the_analysis_shows_the_detectors_answer(root):
    subject = tiny.subject(root)
    result = CAMs(images=2)(subject)
    table = result.tables["cams"]
    logits = dict(zip(subject.images.test.manifest["path"], subject.evaluate().logits, strict=True))
    assert [*table["logit"]] == pytest.approx([logits[path] for path in table["path"]], abs=1e-4)
    assert (table["layer"] == "bn2").all()
    assert list(result.figures) == ["cams_mistakes", "cams_surest"]
    titles = [ax.get_title("left") for ax in result.figures["cams_surest"].axes]
    assert [title for title in titles if title] == ["image", "GradCAM", "Guided Grad-CAM"]
    assert not result.warnings


def test_the_last_map_is_the_last_one_with_several_places(resnet):
    assert last_feature_map(resnet, IMAGE) == "layer4"
    assert last_feature_map(resnet, IMAGE[:, :, :32, :32]) == "layer3"
    assert all(not module._forward_hooks for module in resnet.modules())
    with pytest.raises(ValueError, match="images of \\(1, 1\\) pixels leave no feature map"):
        last_feature_map(resnet, IMAGE[:, :, :1, :1])


def test_activations_that_are_not_guided_are_named():
    class Odd(tiny.Net):
        def forward(self, x):
            return super().forward(nn.functional.silu(x))

    assert non_relu_activations(tiny.Net()) == []
    assert non_relu_activations(Odd()) == ["silu()"]
    assert non_relu_activations(nn.Sequential(nn.Conv2d(3, 2, 1), nn.GELU(), nn.Hardswish())) == [
        "GELU",
        "Hardswish",
    ]


def test_a_network_without_relu_is_warned_of(root):
    detector = tiny.detector()
    detector.network.relu = nn.SiLU()
    subject = tiny.Subject.of(detector, tiny.splits(root), draws=10, device="cpu")
    (warning,) = CAMs(images=1)(subject).warnings
    assert "nn.ReLU only; this network has SiLU" in warning
    assert not CAMs(images=1, methods=["gradcam"])(subject).warnings


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer9", r"cams\.layer=layer9: the network has no such module; it has conv1, bn1"),
        ("fc", r"cams\.layer=fc: gives \[1, 1\] for cat\.png"),
        ("avgpool", r"gives \[1, 512, 1, 1\] for cat\.png"),
        ("layer4.0.relu", r"gives \[1, 512, 3, 3\], \[1, 512, 3, 3\] for"),
    ],
)
def test_layers_without_a_single_map_are_refused(resnet, layer, message):
    with pytest.raises(ValueError, match=message):
        ActivationMaps(resnet, layer)(IMAGE, ["gradcam"], "cat.png")


def test_a_missing_package_says_how_to_get_it(resnet, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ValueError, match="needs the package grad-cam: pip install"):
        ActivationMaps(resnet)


@pytest.mark.parametrize("methods", [[], ["gradcam", "cam"], "gradcam"])
def test_unknown_methods_are_refused(methods):
    with pytest.raises(
        ValueError,
        match=r"analysis\.cams\.methods=.*expected a list of different names from gradcam, ",
    ):
        CAMs(methods=methods)


def test_grad_cam_of_tokens_equals_its_definition():
    detector = tiny.transformer().eval().requires_grad_(False)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    kept = []
    module = detector.network.blocks[1].norm1
    hook = module.register_forward_hook(lambda _m, _i, out: kept.append(out) or out.clone())
    logit = detector(image.clone().requires_grad_(True))
    hook.remove()
    (slope,) = torch.autograd.grad(logit.sum().abs(), kept[0])
    weights, tokens = slope[0, 1:].mean(0), kept[0][0, 1:]  # without the class token
    cam = (tokens @ weights).clamp(min=0).reshape(8, 8).detach().numpy()
    cam = (cam - cam.min()) / (cam - cam.min()).max()
    large = cv2.resize(cam, (32, 32))
    expected = (large - large.min()) / (large - large.min()).max()
    maps = ActivationMaps(detector)
    _, found = maps(image, ["gradcam"], "x")
    assert maps.layer == "blocks.1.norm1"
    np.testing.assert_allclose(found["gradcam"], expected, atol=1e-5)
    # After the last attention, the class token reads no other token.
    assert not ActivationMaps(detector, "norm")(image, ["gradcam"], "x")[1]["gradcam"].any()


def test_windows_and_unknown_axes_are_no_map():
    torch.manual_seed(0)
    sizes = {"img_size": 56, "embed_dim": 24, "depths": (1, 1, 1, 1)}
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=1, **sizes)
    detector = Detector(swin).eval().requires_grad_(False)
    image = torch.rand(1, 3, 56, 56)
    assert last_feature_map(detector, image) == "norm"
    found = ActivationMaps(detector, "layers.1")(image, ["gradcam"], "x")[1]["gradcam"]
    assert found.shape == (56, 56)
    message = r"attn\.proj: gives \[4, 49, 24\] for x, but a single map .* or tokens of the entire"
    with pytest.raises(ValueError, match=message):
        ActivationMaps(detector, "layers.0.blocks.0.attn.proj")(image, ["gradcam"], "x")
