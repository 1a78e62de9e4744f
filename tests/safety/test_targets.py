"""A checkpoint can only instantiate our detectors and data sets.

Targets in other packages, also reached through our modules, are tested in
`tests/detectors/test_checkpoint.py`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
import torch

import tff.data
import tff.detectors
from tff.data.datamodule import Data
from tff.detectors.checkpoint import _makes, build, load
from tff.detectors.detector import Detector
from tff.training.from_checkpoint import load_data

CRASHING = [
    "tff.detectors.detector\0.Detector", "tff.detectors..os.system", "tff.detectors.\n.x",
    "tff.detectors.\udcff.x", "tff.detectors." + "a." * 5000 + "b", "tff.detectors.", "", ".", 5,
    None, ["os.system"], {"_target_": "os.system"}, "tff.detectorsX.y", "tff.detectors/../../x",
]  # fmt: skip


@pytest.mark.parametrize("target", CRASHING, ids=lambda target: repr(target)[:30])
def test_malformed_targets_are_refused(target):
    with pytest.raises(ValueError, match=r"^checkpoint x\.ckpt: names .* refused$") as caught:
        build({"_target_": target}, "x.ckpt", "tff.detectors", Detector)
    assert len(str(caught.value)) < 300


def callables(package: Any) -> dict[str, Any]:
    """All classes and functions defined in the modules of a package."""
    return {
        f"{module.name}.{name}": value
        for module in walk_packages(package.__path__, package.__name__ + ".")
        for name, value in vars(import_module(module.name)).items()
        if callable(value) and getattr(value, "__module__", None) == module.name
    }


@pytest.mark.parametrize(
    ("package", "kind", "few"),
    [
        # `load` does not accept `pretrained`, which is always passed, so it never runs.
        (
            tff.detectors,
            Detector,
            "Detector clip_linear efficientnet_b0 load timm_model torchvision_model",
        ),
        (tff.data, Data, "AutoGAN Data Folder GeneratedSet Planted"),
    ],
)
def test_only_detectors_and_data_sets_can_be_called(package, kind, few):
    """Our own functions that download, delete or write are out of reach."""
    names = callables(package)
    assert len(names) > 30
    called = {name for name, value in names.items() if _makes(value, kind)}
    assert sorted(name.rpartition(".")[2] for name in called) == sorted(few.split())
    for name in set(names) - called:
        with pytest.raises(ValueError, match=r"refused$"):
            build({"_target_": name}, "x.ckpt", package.__name__, kind)


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "tff.data.download.__main__.main", "arguments": ["cifake", "to={inside}"]},
        {"_target_": "tff.data.manifest.save_cache", "table": 1, "store": "{inside}/x"},
        {"_target_": "tff.data.synthetic.image_tree.write_images", "images": [],
         "folder": "{inside}/x"},
        {"_target_": "tff.data.folder.Folder", "root": {"_target_": "os.mkdir", "path": "x"}},
        {"_target_": "tff.data.folder.Folder", "root": "x", "layout": {"train": 3}},
        {"_target_": "tff.data.folder.Folder", "root": "x", "layout": {"train": {"folders":
         ["{{class*}}/{{class*}}"]}}},
        {"_target_": "tff.data.folder.Folder", "root": "x", "fractions": ["a", "b"]},
        {"_target_": "tff.data.folder.Folder", "root": "x", "resize": -(10**30)},
        {"_target_": "tff.data.folder.Folder", "root": "x", "cache": "/nowhere/of/mine"},
        {"_target_": "tff.data.folder.Folder", "root": "x", "cache": "~nobody_of_that_name/x"},
        {"_target_": "tff.data.folder.Folder", "root": "x", "cache": "a\0b"},
        {"_target_": "tff.data.folder.Folder", "root": "x", "cache": {"a": 1}},
        {"_target_": "tff.data.synthetic.autogan.AutoGAN", "cache": "{inside}/../beside"},
        {"_target_": "tff.data.synthetic.planted.Planted", "cache": "{inside}", "counts":
         {"train": 10**12}},
    ],
)  # fmt: skip
def test_malicious_data_options_are_refused(settings, inside, monkeypatch):
    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        return node.format(inside=inside) if isinstance(node, str) else node

    path = inside / "evil.ckpt"
    torch.save({"state_dict": {}, "tff": {"data": filled(settings)}}, path)
    monkeypatch.chdir(inside)
    with pytest.raises(ValueError, match=r"^checkpoint .*evil\.ckpt: "):
        load_data(str(path))
    assert list(inside.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
def test_cache_that_exists_or_is_below_the_working_folder_is_used(there, inside, monkeypatch):
    cache = inside / "cache"
    if there:
        cache.mkdir()
    monkeypatch.chdir("/" if there else inside)
    settings = {"_target_": "tff.data.folder.Folder", "root": "x", "cache": str(cache)}
    torch.save({"tff": {"data": settings}}, inside / "own.ckpt")
    assert load_data(str(inside / "own.ckpt")).files == cache / "files"


def test_checkpoint_cannot_change_network_sizes(tmp_path):
    """No argument makes a network larger than its library defines it."""
    target = "tff.detectors.torchvision_models.torchvision_model"
    for more in ({"width_per_group": 10**9}, {"num_classes": 10**12}, {"layers": [10**6] * 4}):
        said = {"detector": {"_target_": target, "name": "resnet50", **more}}
        torch.save({"state_dict": {"a": torch.zeros(1)}, "tff": said}, tmp_path / "evil.ckpt")
        with pytest.raises(ValueError, match=r"evil\.ckpt: .* unexpected keyword argument"):
            load(tmp_path / "evil.ckpt")


def test_function_without_return_annotation_is_refused(tmp_path, monkeypatch):
    def mine(pretrained=True):
        return Detector(torch.nn.Linear(1, 1))

    mine.__module__ = "tff.detectors.timm_models"
    monkeypatch.setattr("tff.detectors.timm_models.mine", mine, raising=False)
    with pytest.raises(ValueError, match=r"nor a function annotated with `-> Detector`; refused"):
        build("tff.detectors.timm_models.mine", Path("x.ckpt"), "tff.detectors", Detector)
    mine.__annotations__["return"] = "Detector"
    mine.__globals__["Detector"] = Detector
    assert isinstance(
        build("tff.detectors.timm_models.mine", "x.ckpt", "tff.detectors", Detector), Detector
    )


@pytest.mark.parametrize(
    "name", ["convnextv2_huge", "regnety_2560", "eva02_enormous_patch14_clip_224"]
)
def test_a_network_larger_than_the_memory_is_not_built(name, tmp_path, little_memory):
    """It is compared with the weights in the file before its own are made."""
    detector = {"_target_": "tff.detectors.timm_models.timm_model", "name": name}
    content = {"state_dict": {"stem.weight": torch.zeros(3, 3)}, "tff": {"detector": detector}}
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=rf"x\.ckpt: does not fit .*{name}"):
        load(tmp_path / "x.ckpt")


@pytest.mark.parametrize("value", [torch.zeros(2), b"x", {1}, 1j])
def test_settings_hold_text_and_numbers_only(value, tmp_path):
    content = {"state_dict": {"a": torch.zeros(1)}, "tff": {"detector": {"name": [value]}}}
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt: its 'tff' entry holds .*; expected text"):
        load(tmp_path / "x.ckpt")
