"""Labels, generators, classes and splits from the folders of any tree."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tff.data.layout import AnyTree, Layout, name_root
from tff.data.tree import Tree

SETS, KINDS = "{train,val,test}", "{0_real,1_fake}"


def expand(pattern: str) -> list[str]:
    """Folders of a pattern as of a shell: `a/{b,c} d` is a/b, a/c and d."""
    folders = []
    for word in pattern.split():
        pieces = [piece.split(",") for piece in re.split(r"[{}]", word)]
        folders += ["".join(choice) for choice in itertools.product(*pieces)]
    return folders


def read(pattern: str, **options):
    tree = Tree(Path("/data/faces"), {folder: ["0.png"] for folder in expand(pattern)})
    return AnyTree(**options).read(tree)


def names(pattern: str, **options) -> dict[str, set[tuple[str, str]]]:
    """Split -> generators with their classes; each has both labels."""
    found: dict[str, set[tuple[str, str]]] = {}
    facts = read(pattern, **options).values()
    for fact in facts:
        place = (fact.split, fact.generator, fact.class_name)
        assert {f.label for f in facts if (f.split, f.generator, f.class_name) == place} == {0, 1}
        found.setdefault(fact.split, set()).add(place[1:])
    return found


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{ai,sd}/" + KINDS, {("ai", ""), ("sd", "")}),
        ("{ai,real,fake,nature}/" + KINDS, {(n, "") for n in ("ai", "real", "fake", "nature")}),
        ("ai/{nature,ai}", {("ai", "")}),
        ("{ai,sd}/imagenet_ai/{nature,ai}", {("ai", "imagenet_ai"), ("sd", "imagenet_ai")}),
        ("sd/{real,cat}/" + KINDS, {("sd", "real"), ("sd", "cat")}),
        ("{train,car,dog}/" + KINDS, {("train", ""), ("car", ""), ("dog", "")}),
        ("gan/{test,car}/" + KINDS, {("gan", "test"), ("gan", "car")}),
        ("gan/train/" + KINDS + " sd/{car,cat}/" + KINDS,
         {("gan", "train"), ("sd", "car"), ("sd", "cat")}),
        ("real fake/{ai,other}", {("", "")}),
        ("sd/real/day sd/fake/ai", {("sd", "")}),
    ],
)  # fmt: skip
def test_name_that_is_also_a_word_of_the_layout(pattern, expected):
    assert names(pattern) == {"": expected}


@pytest.mark.parametrize(
    "pattern",
    [
        "sd/{real,fake}/{nature,people}",
        "sd/{0_real,1_fake} sd/0_real/x/1_fake",
        "sd/{0_real,1_fake}/{real,cat}",
        "{real,fake}/{nature,ai}",
        "{0_real,1_fake}/{nature,ai}",
        SETS + "/sd/{real,fake}/nature",
        "sd/fake/" + SETS + "/nature sd/real/" + SETS,
    ],
)
def test_labels_that_contradict_each_other(pattern):
    with pytest.raises(ValueError, match=r"contradict each other.*\((\w+) and (\w+)\).*rename"):
        read(pattern)


def test_labels_that_contradict_each_other_are_named():
    with pytest.raises(ValueError, match=r"sd/fake/nature \(fake and nature\)"):
        read("sd/{real,fake}/{nature,people}")
    gangen = Layout(["{generator}/{class*}/{label}"])
    with pytest.raises(ValueError, match=r"sd/fake/nature \(fake and nature\)"):
        gangen.read(Tree(Path("x"), {"sd/fake/nature": ["0.png"], "sd/real/cat": ["0.png"]}))
    kept = gangen.read(Tree(Path("x"), {f"ai/{kind}": ["0.png"] for kind in ("0_real", "1_fake")}))
    assert [fact.label for fact in kept.values()] == [0, 1]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (f"{SETS}/gan/{KINDS}", {("gan", "")}),
        (f"gan/{SETS}/{KINDS}", {("gan", "")}),
        (f"gan/{KINDS}/{SETS}", {("gan", "")}),
        (f"gan/cat/{SETS}/{KINDS}", {("gan", "cat")}),
        (f"{SETS}/{KINDS}", {("", "")}),
        (f"{KINDS}/{SETS}", {("", "")}),
        (f"{SETS}/gan/train/{KINDS}", {("gan", "train")}),
        (f"{SETS}/gan/{{train,car}}/{KINDS}", {("gan", "train"), ("gan", "car")}),
        (f"{{Training,valid,TEST}}/gan/{KINDS}", {("gan", "")}),
        (f"ai/x/{SETS}/{{nature,ai}}", {("ai", "x")}),
    ],
)
def test_splits_anywhere(pattern, expected):
    assert names(pattern) == dict.fromkeys(("train", "val", "test"), expected)


def test_some_splits():
    assert list(names(f"test/{{gan,sd}}/{KINDS}")) == ["test"]
    assert list(names(f"{{gan,sd}}/train/{KINDS}")) == ["train"]
    gan = f"gan/{SETS}/{KINDS} sd/test/{KINDS}"
    assert {split: len(found) for split, found in names(gan).items()} == {
        "test": 2, "train": 1, "val": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (f"{{train,test,car}}/{KINDS}", r"train, test stand beside car; .*split_folders=false"),
        (f"{SETS}/gan/{KINDS} sd/{KINDS}", r"stand beside sd; .*data\.test_only=\[sd\]"),
        (f"gan/{SETS}/{KINDS} {{san,sd}}/{KINDS}",
         r"divide gan, but not san, sd; .*data\.test_only=\[san,sd\]"),
        (f"gan/0_real/{SETS} gan/1_fake", r"but not gan/1_fake; .*data\.split_folders=false"),
        (f"{{train,test}}/gan/{{train,val}}/{KINDS}", r"two folders .*data\.split_folders=true"),
        (f"{{train,val,valid,test}}/{KINDS}", r"val, valid, test: two of them name one split"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be_decided(pattern, message):
    with pytest.raises(ValueError, match=message):
        read(pattern)


def test_split_folders_as_declared():
    assert set(names(f"{{train,test,car}}/{KINDS}", split_folders=False)) == {""}
    assert set(names(f"{SETS}/{KINDS}", split_folders=False)) == {""}
    assert set(names(f"{{train,test}}/a/{{train,val}}/{KINDS}", split_folders=True)) == {
        "train", "test",
    }  # fmt: skip
    with pytest.raises(ValueError, match="but not car"):
        read(f"{{train,test,car}}/{KINDS}", split_folders=True)


@pytest.mark.parametrize(
    "pattern",
    [
        f"gan/{SETS}/{KINDS} sd/{KINDS}",
        f"{SETS}/gan/{KINDS} sd/{KINDS}",
        f"{SETS}/{{gan,sd}}/{KINDS}",
        f"{{gan,sd}}/{SETS}/{KINDS}",
    ],
)
def test_generators_for_the_test_only(pattern):
    found = names(pattern, test_only=["sd"])
    assert found == {
        "train": {("gan", "")}, "val": {("gan", "")}, "test": {("gan", ""), ("sd", "")},
    }  # fmt: skip
    assert names(pattern, test_only="all") == {"test": {("gan", ""), ("sd", "")}}


def test_name_of_the_tree(tmp_path, monkeypatch):
    for folder in ("faces/train", "faces/Valid"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "faces")
    roots = ["faces", "faces/train", "faces/Valid", "faces/../faces", "link"]
    assert {name_root(tmp_path / root) for root in roots} == {"faces"}
    monkeypatch.chdir(tmp_path / "faces" / "train")
    assert name_root(Path()) == name_root(Path("..")) == "faces"
    with pytest.raises(ValueError, match=r"image folder /: .*data\.generator=NAME"):
        name_root(Path("/"))
