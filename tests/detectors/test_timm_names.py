"""Image towers and heads in files of other trainers: the same logits as by hand."""

import logging

import numpy as np
import pytest
import timm
import torch
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.models.vision_transformer import checkpoint_filter_fn

from tff.detectors.checkpoint import load
from tff.detectors.low_rank import add_updates
from tff.detectors.timm_models import clip_linear, timm_model

NAME = "vit_xsmall_patch16_clip_224"
CLIP = {"_target_": "tff.detectors.timm_models.clip_linear", "name": NAME}
#: timm -> OpenAI, and timm -> transformers, in this order.
OPENAI = {
    "patch_embed.proj": "conv1", "norm_pre": "ln_pre", "blocks.": "transformer.resblocks.",
    ".norm1": ".ln_1", ".norm2": ".ln_2", "attn.qkv.": "attn.in_proj_",
    "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
TRANSFORMERS = {
    "patch_embed.proj": "embeddings.patch_embedding", "norm_pre": "pre_layrnorm",
    "blocks.": "encoder.layers.", ".norm1": ".layer_norm1", ".norm2": ".layer_norm2",
    "attn.proj": "self_attn.out_proj",
}  # fmt: skip


def renamed(name, table):
    name = f"post_{name}" if name.startswith("norm.") else name
    for ours, theirs in table.items():
        name = name.replace(ours, theirs)
    return name


def openai(tower, prefix):
    """The tower under the names of OpenAI's CLIP."""
    made = {renamed(n, OPENAI).replace("post_norm", "ln_post"): v for n, v in tower.items()}
    made |= {
        "proj": made.pop("head.weight").T, "class_embedding": made.pop("cls_token")[0, 0],
        "positional_embedding": made.pop("pos_embed")[0],
    }  # fmt: skip
    del made["head.bias"]
    return {f"{prefix}{n}": v for n, v in made.items()}


def transformers(tower, prefix):
    """The tower under the names of CLIPVisionModel, without the projection."""
    made = {
        renamed(n, TRANSFORMERS).replace("post_norm", "post_layernorm"): v
        for n, v in tower.items()
        if not n.startswith("head.")
    }
    made["embeddings.class_embedding"] = made.pop("cls_token")[0, 0]
    made["embeddings.position_embedding.weight"] = made.pop("pos_embed")[0]
    for name in [n for n in made if ".attn.qkv." in n]:
        for part, value in zip("qkv", made.pop(name).chunk(3), strict=True):
            made[name.replace("attn.qkv", f"self_attn.{part}_proj")] = value
    return {f"{prefix}{n}": v for n, v in made.items()}


@pytest.fixture(scope="module")
def tower(seed):
    """A CLIP tower whose every parameter matters."""
    torch.manual_seed(seed)
    made = timm.create_model(NAME, num_classes=512).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    made.head.bias.zero_()  # CLIP's projection has none
    return made


@pytest.fixture(scope="module")
def case(tower, seed):
    """Images, a head, and the logits of both, by hand."""
    torch.manual_seed(seed + 1)
    image, head = torch.rand(2, 3, 224, 224), torch.nn.Linear(512, 1).requires_grad_(False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return image, head, head(tower((image - mean) / std))[:, 0]


@pytest.fixture
def fc(case, tmp_path):
    """The head in a file, as UniversalFakeDetect publishes it."""
    torch.save(case[1].state_dict(), tmp_path / "fc_weights.pth")
    return str(tmp_path / "fc_weights.pth")


TEXT = {
    "logit_scale": torch.tensor(1.0), "text_projection": torch.rand(5, 4),
    "transformer.resblocks.0.ln_1.weight": torch.rand(5),
    "token_embedding.weight": torch.rand(2, 5),
}  # fmt: skip
FILES = {
    "OpenAI": lambda t: openai(t, "visual.") | TEXT,
    "wrapped": lambda t: {"state_dict": openai(t, "module.visual.")},
    "image tower alone": lambda t: openai(t, ""),
    "timm": dict,
    "OpenCLIP with a tower of timm": lambda t: (
        {f"visual.trunk.{n}": v for n, v in t.items() if not n.startswith("head")}
        | {"visual.head.proj.weight": t["head.weight"]}
    ),
    "transformers": lambda t: (
        transformers(t, "vision_model.") | {"visual_projection.weight": t["head.weight"]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("names", FILES)
def test_a_published_head_on_a_tower_under_any_names_gives_its_logits(
    names, tower, case, fc, tmp_path
):
    torch.save(FILES[names](tower.state_dict()), path := tmp_path / "tower.pth")
    image, _, expected = case
    made = clip_linear(NAME, pretrained=str(path), head=fc).eval()
    loaded = load(fc, CLIP | {"pretrained": str(path)})
    with torch.no_grad():
        torch.testing.assert_close(made(image), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(loaded(image), expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_tower_and_head_together_is_read(tower, case, tmp_path, caplog):
    image, head, expected = case
    weights = openai(tower.state_dict(), "model.visual.")
    weights |= {f"model.{n}": v for n, v in TEXT.items()}
    weights |= {f"fc.{n}": v for n, v in head.state_dict().items()}
    torch.save({"model": weights, "total_steps": 5}, path := tmp_path / "theirs.pth")
    with caplog.at_level(logging.WARNING), torch.no_grad():
        made = load(path, CLIP)(image)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    assert "not used: logit_scale, text_projection" in caplog.text


def effort(weights, rank):
    """Weights with each projection of the attention in the parts that Effort stores."""
    made = {}
    for name, value in weights.items():
        if "self_attn" not in name or name.endswith("bias"):
            made[name] = value
            continue
        left, size, right = torch.linalg.svd(value)
        parts = {
            "weight_main": (left[:, :rank] * size[:rank]) @ right[:rank],
            "S_residual": size[rank:], "U_residual": left[:, rank:], "V_residual": right[rank:],
            "S_r": size[:rank], "U_r": left[:, :rank], "V_r": right[:rank],
        }  # fmt: skip
        made |= {f"{name.removesuffix('weight')}{part}": v for part, v in parts.items()}
    return made


def test_residuals_of_effort_are_added_and_its_two_classes_are_one_logit(tower, case, tmp_path):
    image, head = case[0], torch.nn.Linear(256, 2).requires_grad_(False)
    weights = effort(transformers(tower.state_dict(), "module.backbone."), 255)
    weights |= {f"module.head.{n}": v for n, v in head.state_dict().items()}
    torch.save(weights, path := tmp_path / "effort.pth")
    loaded = load(path, CLIP | {"projected": False})
    with torch.no_grad():
        classes = head(tower.forward_head(tower.forward_features(loaded.normalise(image)), True))
        torch.testing.assert_close(
            loaded(image), classes[:, 1] - classes[:, 0], rtol=1e-3, atol=1e-4
        )
    lost = {n: v for n, v in weights.items() if not n.endswith("q_proj.S_residual")}
    torch.save(lost, path)
    with pytest.raises(ValueError, match=r"q_proj has an update without S_residual"):
        load(path, CLIP | {"projected": False})


def test_updates_of_other_shapes_are_refused_before_they_take_memory(tmp_path):
    layer = {"a.weight_main": torch.rand(4, 4), "b.weight": torch.rand(3, 3)}
    for parts, said in (
        ({"U_residual": (10**6, 1), "S_residual": (10**6,), "V_residual": (1, 4)}, "weight"),
        ({"U_residual": (4, 1), "S_residual": (1,), "V_residual": (1, 10**6)}, r"weight \(4, 4\)"),
        ({"lora_A": (1, 10**6), "lora_B": (10**6, 1)}, r"weight \(4, 4\): lora_B \(1000000, 1\)"),
    ):  # fmt: skip
        made = layer | {f"a.{part}": torch.zeros(1).expand(shape) for part, shape in parts.items()}
        with pytest.raises(ValueError, match=rf"checkpoint x: a has an update that .*{said}"):
            add_updates(made, "x", 1.0)
    with pytest.raises(ValueError, match=r"b has an update without lora_B"):
        add_updates({"b.weight": torch.rand(3, 3), "b.lora_A": torch.rand(1, 3)}, "x", 1.0)
    several = {f"b.lora_A.{name}.weight": torch.rand(1, 3) for name in "pq"}
    with pytest.raises(ValueError, match=r"holds several updates of b; merge the one"):
        add_updates(layer | several, "x", 1.0)


@pytest.mark.parametrize("style", ["peft", "loralib"])
def test_updates_of_lora_are_added(style, tower, case, fc, tmp_path):
    image, _, expected = case
    weights, rank, alpha = transformers(tower.state_dict(), "vision_model."), 4, 6.0
    weights["visual_projection.weight"] = tower.state_dict()["head.weight"]
    for name in [n for n in weights if n.endswith("self_attn.q_proj.weight")]:
        layer, value = name.removesuffix(".weight"), weights.pop(name)
        low, high = torch.randn(rank, 256), torch.randn(256, rank)
        base = value - alpha / rank * (high @ low)
        if style == "peft":
            weights[f"{layer}.base_layer.bias"] = weights.pop(f"{layer}.bias")
            weights |= {
                f"{layer}.base_layer.weight": base, f"{layer}.lora_A.default.weight": low,
                f"{layer}.lora_B.default.weight": high,
            }  # fmt: skip
        else:
            weights |= {name: base, f"{layer}.lora_A": low, f"{layer}.lora_B": high}
    prefix = "base_model.model." if style == "peft" else ""
    weights = {f"{prefix}{n}": v for n, v in weights.items()}
    torch.save(weights, path := tmp_path / "lora.pth")
    made = clip_linear(NAME, pretrained=str(path), head=fc, lora_alpha=alpha).eval()
    with torch.no_grad():
        torch.testing.assert_close(made(image), expected, rtol=1e-2, atol=1e-3)
    with pytest.raises(ValueError, match=r"rank 4, and weights do not tell its scale; pass det"):
        clip_linear(NAME, pretrained=str(path))
    alone = {n: v for n, v in weights.items() if "lora_" in n}
    torch.save(alone, path)
    with pytest.raises(ValueError, match=r"not the weight that it is added to"):
        clip_linear(NAME, pretrained=str(path), lora_alpha=1.0)


def test_position_embeddings_are_interpolated_as_timm_does(tower, tmp_path, rng):
    torch.save(openai(tower.state_dict(), "visual."), path := tmp_path / "tower.pth")
    made = clip_linear(NAME, pretrained=str(path), image_size=160).eval()
    theirs = timm.create_model(NAME, num_classes=512, img_size=160).eval()
    theirs.load_state_dict(checkpoint_filter_fn(tower.state_dict(), theirs))
    image = torch.from_numpy(rng.random((2, 3, 160, 160), np.float32))
    with torch.no_grad():
        assert torch.equal(made.network.tower(image), theirs(image))


def test_names_of_dinov2_are_read(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    theirs = timm.create_model(name, num_classes=0, img_size=56)
    weights = theirs.state_dict()
    cls = torch.rand(1, 1, 384)
    published = {n: v for n, v in weights.items() if n not in ("cls_token", "reg_token")}
    published |= {
        "register_tokens": weights["reg_token"], "mask_token": torch.rand(1, 384),
        "cls_token": weights["cls_token"] - cls,
        "pos_embed": torch.cat([cls, weights["pos_embed"]], dim=1),
    }  # fmt: skip
    torch.save(published, path := tmp_path / "dinov2.pth")
    made = timm_model(name, str(path), train="head", image_size=56)
    for key, value in weights.items():
        torch.testing.assert_close(made.network.state_dict()[key], value)


def test_what_is_missing_is_said(case, fc, tower, tmp_path):
    with pytest.raises(ValueError, match=r"512 features, and not the network that computes them"):
        load(fc, CLIP | {"pretrained": False})
    with pytest.raises(ValueError, match=r"512 features, and not the network that computes them"):
        load(fc)
    torch.save(openai(tower.state_dict(), "visual."), path := tmp_path / "tower.pth")
    with pytest.raises(ValueError, match=r"512 features, and the tower has 256"):
        clip_linear(NAME, str(path), fc, projected=False)
    with pytest.raises(ValueError, match=r"detector.head=.*nothing else; if the file holds the to"):
        clip_linear(NAME, False, str(path))
    with pytest.raises(ValueError, match=r"detector.projected=false, or a CLIP tower"):
        clip_linear("vit_tiny_patch16_224", False)
    torch.save(transformers(tower.state_dict(), ""), path)
    with pytest.raises(ValueError, match=r"2 tensors missing \(tower.head.weight, tower.head.bia"):
        clip_linear(NAME, str(path))


def test_a_checkpoint_of_ours_does_not_need_the_files_that_it_names(fc, case, tmp_path):
    made = clip_linear(NAME, False, fc)
    settings = CLIP | {"pretrained": "/nowhere/tower.pth", "head": "/nowhere/fc.pth"}
    weights = {f"detector.{n}": v for n, v in made.state_dict().items()}
    torch.save({"state_dict": weights, "tff": {"detector": settings}}, path := tmp_path / "a.ckpt")
    loaded, image = load(path), case[0]
    with torch.no_grad():
        assert torch.equal(loaded(image), made.eval()(image))
    # A file of a head names no tower, even if it claims to.
    content = case[1].state_dict() | {"tff": {"detector": settings}}
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"and not the network that computes them"):
        load(path)


def test_sizes_that_a_network_cannot_have_are_refused():
    with pytest.raises(ValueError, match=r"detector.image_size=225: expected a multiple of 16"):
        clip_linear(NAME, False, image_size=225)
    with pytest.raises(ValueError, match=r"detector.image_size=64: resnet18 has no such setting"):
        timm_model("resnet18", False, image_size=64)
