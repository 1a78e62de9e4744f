"""The same numbers, however images lie in memory and whatever computes them."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from tests.helpers import lrp_replica as replicas
from tests.helpers.lrp_agreement import close
from torch import Tensor, nn

from tff.relevance.conv_rules import CONVOLUTIONS
from tff.relevance.lrp import LRP, Explanation

KINDS = [("basic", 3, 1), ("inverted", 4, 2), ("convnext", 4, 1), ("blur", 3, 1)]


@pytest.fixture(scope="module")
def network() -> replicas.Network:
    return replicas.network(KINDS, seed=11, pool=nn.MaxPool2d(3, 2, 1))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 3, 17, 15, dtype=torch.float64, generator=torch.manual_seed(1))


def same(found: Explanation, known: Explanation) -> None:
    assert (found.logit - known.logit).abs().max() <= 1e-12
    assert (found.shares - known.shares).abs().max() <= 1e-12
    torch.testing.assert_close(found.pixels, known.pixels, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        found.conservation, known.conservation, rtol=1e-9, atol=1e-12, equal_nan=True
    )


def test_result_does_not_depend_on_the_batch(network, images):
    engine = LRP(network)
    together = engine.explain(images, pixels=True)
    for i in range(len(images)):
        alone = engine.explain(images[i : i + 1], pixels=True)
        same(alone, Explanation(*(part[i : i + 1] for part in together)))
    turned = engine.explain(images.flip(0), pixels=True)
    same(Explanation(*(part.flip(0) for part in turned)), together)


def test_result_does_not_depend_on_the_memory_format(network, images):
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    found = LRP(last).explain(images.to(memory_format=torch.channels_last), pixels=True)
    same(found, LRP(network).explain(images, pixels=True))


def test_images_need_not_be_contiguous(network, images):
    wide = images.repeat_interleave(2, 3)[..., ::2]
    assert not wide.is_contiguous()
    same(LRP(network).explain(wide, pixels=True), LRP(network).explain(images, pixels=True))


def test_inference_mode_does_not_matter(network, images):
    engine = LRP(network)
    known = engine.explain(images, pixels=True)
    with torch.inference_mode():
        inference = images.clone()
        same(engine.explain(images, pixels=True), known)
        same(engine.explain(inference, pixels=True), known)
        same(LRP(network).explain(inference, pixels=True), known)
        maximum = engine.explain_maximum(inference, "stem.conv", 1)
    assert inference.is_inference()
    same(engine.explain(inference, pixels=True), known)  # an inference tensor outside of it
    assert torch.equal(maximum.pixels, engine.explain_maximum(images, "stem.conv", 1).pixels)


def test_gradients_stay_enabled_outside(network, images):
    wanted = images.clone().requires_grad_()
    known = LRP(network).explain(images, pixels=True)
    found = LRP(network).explain(wanted, pixels=True)
    same(found, known)
    assert torch.is_grad_enabled()
    assert not found.pixels.requires_grad


def test_single_precision_is_close_to_double_precision(network, images):
    found = LRP(copy.deepcopy(network).float()).explain(images.float(), pixels=True)
    known = LRP(network).explain(images, pixels=True)
    assert found.shares.dtype == found.conservation.dtype == torch.float32
    assert (found.shares - known.shares).abs().max() <= 1e-3
    assert (found.logit - known.logit).abs().max() <= 1e-4


@pytest.mark.parametrize("rule", sorted(CONVOLUTIONS))
def test_bfloat16_is_close_to_single_precision(rule, network, images):
    single, images = copy.deepcopy(network).float(), images.float()
    found = LRP(single, rule=rule, precision="bf16").explain(images, pixels=True)
    known = LRP(single, rule=rule).explain(images, pixels=True)
    assert torch.equal(found.logit, known.logit)
    for part in (found.shares, found.pixels, found.conservation[..., :4]):
        assert part.isfinite().all()
    difference = (found.shares - known.shares).abs()
    assert difference.max() > 0
    if rule != "epsilon":  # where z may be nearly zero, so is nothing certain
        assert difference.max() <= 2e-2


def test_tf32_changes_nothing_on_a_cpu(network, images):
    before = torch.backends.cudnn.conv.fp32_precision
    same(
        LRP(network, precision="tf32").explain(images, pixels=True),
        LRP(network).explain(images, pixels=True),
    )
    assert torch.backends.cudnn.conv.fp32_precision == before


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 1)).eval()


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler")
def test_compilation_starts_with_the_second_batch_of_a_size(plain, monkeypatch):
    compiled, compiler = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: compiled.append(f) or compiler(f))
    images, sign = torch.randn(2, 3, 8, 8), torch.tensor([1.0, -1.0])
    engine, known = LRP(plain, compile=True), LRP(plain).explain(images, sign)
    for times in range(3):
        found = engine.explain(images, sign)
        assert len(compiled) == min(times, 1)  # not for a shape of images that comes just once
        assert (found.shares - known.shares).abs().max() <= 1e-6
        close(found.logit, known.logit, 1e-6)
        close(found.conservation.nan_to_num(), known.conservation.nan_to_num(), 1e-6)
    assert torch.equal(found.shares, engine.explain(images, sign).shares)
    torch.testing.assert_close(engine.explain(-images).shares, LRP(plain).explain(-images).shares)


def test_missing_compiler_raises_a_clear_error(plain, monkeypatch):
    def broken(function: object) -> object:
        def run(*_: object) -> None:
            raise RuntimeError("no compiler here")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    engine, images = LRP(plain, compile=True), torch.randn(1, 3, 8, 8)
    engine.explain(images)
    with pytest.raises(ValueError, match=r"relevance\.compile=true.*no compiler here"):
        engine.explain(images)
    assert engine.explain(images, pixels=True).pixels.shape == images.shape
