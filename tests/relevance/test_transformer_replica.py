"""The engine against explicit sums, on random small transformers with all options of timm's."""

from __future__ import annotations

import pytest
import torch
from tests.helpers.lrp_agreement import close
from tests.helpers.lrp_replica import transformers
from tests.helpers.lrp_replica.shares import EPSILON
from timm.layers import set_fused_attn
from timm.layers.activations import QuickGELU
from timm.layers.mlp import GluMlp, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tff.relevance.lrp import LRP

SMALL = {"patch_size": 4, "embed_dim": 6, "depth": 1, "num_heads": 3, "mlp_ratio": 1.5}
VITS = {
    "plain": {},
    "averaged": {"class_token": False, "global_pool": "avg", "fc_norm": True},
    "dinov2": {"reg_tokens": 2, "no_embed_class": True, "init_values": 0.5},
    "dinov2 packed": {"init_values": 0.5, "mlp_layer": SwiGLUPacked, "mlp_ratio": 2.0},
    "gate last": {"mlp_layer": GluMlp, "act_layer": nn.GELU, "mlp_ratio": 2.0},
    "clip": {"pre_norm": True, "act_layer": QuickGELU, "norm_layer": nn.LayerNorm},
    "siglip": {"class_token": False, "global_pool": "map"},
    "query and key norms": {"qk_norm": True, "qkv_bias": False, "num_heads": 1},
    "registers averaged": {"reg_tokens": 1, "global_pool": "avg", "proj_bias": False},
}
EVAS = {
    "dinov3": {
        "use_rot_pos_emb": True, "use_abs_pos_emb": False, "num_reg_tokens": 2, "init_values": 0.5,
        "rope_type": "dinov3", "rope_rotate_half": True, "qkv_bias": False, "embed_dim": 8,
        "num_heads": 2, "global_pool": "avg", "no_embed_class": True,
    },
    "eva02": {
        "use_rot_pos_emb": True, "swiglu_mlp": True, "scale_mlp": True, "qkv_fused": False,
        "embed_dim": 8, "num_heads": 2, "scale_attn_inner": True, "ref_feat_shape": (2, 3),
    },
}  # fmt: skip
NETWORKS = {name: (VisionTransformer, options) for name, options in VITS.items()}
NETWORKS |= {name: (Eva, options) for name, options in EVAS.items()}
#: How attention is explained and computed, and the rule of linear layers and convolutions.
RULES = {
    "cp": ("cp", True, {"rule": "epsilon"}),
    "cp gamma": ("cp", True, {"rule": "gamma", "gamma": 0.25}),
    "attnlrp": ("attnlrp", True, {"rule": "epsilon"}),
    "attnlrp in steps": ("attnlrp", False, {"rule": "epsilon"}),
}


def network(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    make, options = NETWORKS[name]
    made = make(img_size=(8, 12), num_classes=1, **SMALL | options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.double().eval()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_random_transformers_agree_with_the_replica(name, rule, rng):
    attention, fused, options = RULES[rule]
    if name == "siglip" and not fused:
        pytest.skip("its pool is replayed in one step")
    set_fused_attn(fused)
    try:
        made = network(name, int(rng.integers(2**31)))
    finally:
        set_fused_attn(True)
    box = bool(rng.integers(2))
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    engine = LRP(made, box=box, epsilon=EPSILON, attention=attention, **options)
    found = engine.explain(images, pixels=True)
    known = transformers.explain(made, images, engine.channels, attention, box, **options)
    with torch.no_grad():
        close(found.logit, made(images)[:, 0], 1e-11)
    close(found.logit, known.logit, 1e-11)
    names = [name for name, _ in engine.leaky_operations]
    assert len(names) == len(known.accounts)
    assert all(a in (b, "") for a, b in zip(known.accounts, names, strict=True))
    if known.doubt > 1e5:
        return
    assert (found.shares - known.shares).abs().max() <= 1e-9
    close(found.pixels, known.pixels, 1e-8)
    close(found.conservation[..., :4], known.ledger[..., :4], 1e-8)
    arrives, leaves, to_constants, at_zero, _ = found.conservation.unbind(-1)
    close(arrives, leaves + to_constants + at_zero, 1e-10)
