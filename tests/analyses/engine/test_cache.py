"""Kept passes: read where they are there, made where they are not, never half there."""

import copy
import pickle
import threading
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.engine.cache import Kept, digest, digest_of, identity, read, write
from tff.analyses.engine.passes import Passes, draw_images, sample_evenly
from tff.data.dataset import View
from tff.relevance.lrp import LRP

NOTHING, NO_ROWS = torch.empty(0, dtype=torch.int64), np.empty(0, np.int64)
CHANNELS = torch.tensor([9, 2, 0])
CHOICES = {"top": torch.tensor([3, 1]), "random_0": torch.tensor([7, 8])}


@dataclass(frozen=True)
class Darker:
    """Another cue, with an option."""

    factor: float = 0.5
    cue: ClassVar[str] = "light"

    def __call__(self, image):
        return image * self.factor


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=7, seed=5)
    return tiny.splits(root).test


@pytest.fixture(scope="module")
def passes():
    detector = tiny.detector(3).requires_grad_(False)
    return Passes(detector, LRP(detector), torch.device("cpu"), 5, 0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "passes" / "deep"


@pytest.fixture
def kept(passes, folder):
    return Kept(passes, folder, "of these weights", passes.detector.channels)


@pytest.fixture
def calls(monkeypatch):
    """Names of the passes that are made."""
    made = []
    for name in ("relevance", "evaluate", "evaluate_dropped", "activity"):
        original = getattr(Passes, name)

        def counted(self, *args, name=name, original=original):
            made.append(name)
            return original(self, *args)

        monkeypatch.setattr(Passes, name, counted)
    return made


#: Each pass with its arguments, as a function of `Passes` or `Kept`.
ASKED = {
    "relevance": lambda p, i: p.relevance(i, 0.9),
    "no sure image": lambda p, i: p.relevance(i, 1.0),
    "logits": lambda p, i: p.evaluate(i, None, NOTHING, NO_ROWS),
    "responses": lambda p, i: p.evaluate(i, Grayscale(), CHANNELS, sample_evenly(i, 3)),
    "only a sample": lambda p, i: p.evaluate(i, None, NOTHING, np.array([4, 9])),
    "dropped": lambda p, i: p.evaluate_dropped(i, CHOICES, None),
    "exchanged": lambda p, i: p.evaluate_dropped(i, CHOICES, torch.linspace(-1, 1, 12)),
    "lent": lambda p, i: p.evaluate_dropped(i, CHOICES, draw_images(i, len(i), 3)),
    "activity": lambda p, i: p.activity(i),
}


def same(one, other):
    """Equal to the last bit, in type and shape too."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            same(getattr(one, name), getattr(other, name))
    else:
        assert one == other


@pytest.mark.parametrize("asked", ASKED)
def test_made_once_and_read_to_the_last_bit(asked, kept, passes, images, folder, calls):
    ask = ASKED[asked]
    expected = ask(passes, images)
    assert len(calls) == 1
    same(ask(kept, images), expected)
    assert len(calls) == 2
    same(ask(kept, images), expected)
    # Another process finds it too, without a detector.
    same(ask(Kept(None, folder, "of these weights", kept.channels), images), expected)
    assert len(calls) == 2
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_not_there_needs_a_detector(asked, passes, images, folder):
    empty = Kept(None, folder, "of these weights", passes.detector.channels)
    with pytest.raises(ValueError, match=r"holds no such pass .*; run analyze\.py with ckpt="):
        ASKED[asked](empty, images)
    assert not folder.exists()
    with pytest.raises(ValueError, match=r"holds no such pass \(the detector \(lrp\)\)"):
        _ = empty.lrp


def test_every_argument_has_a_file_of_its_own(kept, images, folder, calls):
    other = replace(images, manifest=images.manifest.iloc[:-1].reset_index(drop=True))
    bytes_of = images.manifest["bytes"]
    swapped = images.manifest.assign(bytes=bytes_of.where(bytes_of.index > 0, 1))
    weights = replace(kept, detector_digest="of others")
    differ = [
        *ASKED.values(),
        lambda p, i: p.relevance(i, 0.8),
        lambda p, i: p.evaluate(i, Darker(), NOTHING, NO_ROWS),
        lambda p, i: p.evaluate(i, Darker(0.25), NOTHING, NO_ROWS),
        lambda p, i: p.evaluate(i, Grayscale(), CHANNELS, sample_evenly(i, 4)),
        lambda p, i: p.evaluate(i, Grayscale(), CHANNELS + 1, sample_evenly(i, 3)),
        lambda p, i: p.evaluate_dropped(i, {"first": CHOICES["top"]}, None),
        lambda p, i: p.evaluate_dropped(i, {**CHOICES, "top": CHANNELS}, None),
        lambda p, i: p.evaluate_dropped(i, CHOICES, torch.linspace(-2, 1, 12)),
        lambda p, i: p.evaluate_dropped(i, CHOICES, draw_images(i, len(i), 4)),
        lambda _p, i: weights.activity(i),
        lambda p, _i: p.activity(other),
        lambda p, i: p.activity(replace(i, manifest=swapped)),
        lambda p, i: p.activity(replace(i, view=View("center24"))),
        lambda p, i: p.activity(replace(i, view=View(resize=24))),
        lambda p, i: p.activity(replace(i, seed=1)),
        lambda p, i: p.activity(replace(i, match_format=True)),
    ]
    for number, ask in enumerate(differ, 1):
        ask(kept, images)
        assert len(calls) == len(list(folder.iterdir())) == number
    for ask in differ:
        ask(kept, images)
    assert len(calls) == len(differ)


def test_what_holds_more_is_read_for_less(kept, passes, images, calls):
    sample = sample_evenly(images, 3)
    kept.evaluate(images, None, CHANNELS, sample)
    kept.evaluate_dropped(images, CHOICES, None)
    less = [
        (NOTHING, NO_ROWS),
        (CHANNELS.flip(0), NO_ROWS),
        (CHANNELS[1:2], sample[::2]),
        (NOTHING, sample[3:]),
    ]
    for channels, rows in less:
        expected = passes.evaluate(images, None, channels, rows)
        calls.clear()
        same(kept.evaluate(images, None, channels, rows), expected)
    top = {"top": CHOICES["top"].flip(0)}
    expected = passes.evaluate_dropped(images, top, None)
    calls.clear()
    same(kept.evaluate_dropped(images, top, None), expected)
    assert calls == []
    # The same name for other channels, and another cue, are not there.
    kept.evaluate_dropped(images, {"top": CHANNELS}, None)
    kept.evaluate(images, Grayscale(), NOTHING, NO_ROWS)
    kept.evaluate(images, None, CHANNELS + 1, sample)
    assert calls == ["evaluate_dropped", "evaluate", "evaluate"]


def test_a_cue_that_does_not_tell_what_it_is(kept, images, folder):
    with pytest.raises(ValueError, match=r"of <function .*; make it a frozen dataclass"):
        kept.evaluate(images, lambda image: image / 2, NOTHING, NO_ROWS)
    assert not folder.exists()


def test_channels_dropped_in_another_order_are_the_same(kept, images, calls):
    one = kept.evaluate_dropped(images, CHOICES, None)
    turned = {name: channels.flip(0) for name, channels in reversed(CHOICES.items())}
    other = kept.evaluate_dropped(images, turned, None)
    assert calls == ["evaluate_dropped"]
    assert list(other) == list(turned)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def only(folder):
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign", "no facts", "binary"])
def test_broken_files_are_named(damage, kept, images, folder):
    kept.activity(images)
    path = only(folder)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("channel,effect\n")
    elif damage == "foreign":
        pd.DataFrame({"effect": [1.0]}).to_parquet(path)
    else:
        facts = b"{}" if damage == "no facts" else b"\xff\xfe"
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({b"tff": facts}), path)
    with pytest.raises(ValueError, match=rf"{path.name}: .*; delete it and run again"):
        kept.activity(images)
    path.unlink()
    kept.activity(images)


def test_a_file_under_another_ones_name_is_refused(kept, images, folder):
    kept.relevance(images, 0.9)
    path = only(folder)
    content = path.read_bytes()
    path.unlink()
    kept.relevance(images, 0.8)
    only(folder).write_bytes(content)
    with pytest.raises(ValueError, match=r"relevance-.*holds another pass than its name says"):
        kept.relevance(images, 0.8)


def test_the_file_says_what_it_holds(kept, images, folder):
    kept.evaluate(images, Darker(0.25), CHANNELS, np.array([1, 20]))
    path = only(folder)
    assert path.name.startswith("evaluate-darker-")
    table, told = read(path)
    assert told["key"]["cue"] == "without Darker(factor=0.25)"
    assert told["key"]["detector"] == "of these weights"
    assert told["facts"]["response 9"] == "conv2 #3"
    assert table["path"].tolist() == images.manifest["path"].tolist()
    assert table.index[table["all channels"].notna()].tolist() == [1, 20]


@pytest.mark.parametrize("when", ["at once", "in the middle"])
def test_a_write_that_fails_leaves_nothing(when, kept, images, folder, monkeypatch):
    original = pq.write_table

    def fail(table, where, **options):
        if when == "in the middle":
            original(table, where, **options)
            where.write_bytes(where.read_bytes()[:100])
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", fail)
        with pytest.raises(OSError, match="No space left"):
            kept.activity(images)
    assert list(folder.iterdir()) == []
    kept.activity(images)
    assert only(folder).suffix == ".parquet"


def test_a_pass_that_fails_leaves_nothing(kept, images, folder, monkeypatch):
    def fail(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Passes, "evaluate", fail)
        with pytest.raises(KeyboardInterrupt):
            kept.evaluate(images, None, NOTHING, NO_ROWS)
    assert not folder.exists()


def test_two_runs_at_the_same_time(kept, images, folder, monkeypatch):
    """Both find nothing, both compute, both write; whoever is last leaves a whole file."""
    both, original = threading.Barrier(2, timeout=60), Passes.activity

    def meet(self, images):
        both.wait()
        return original(self, images)

    monkeypatch.setattr(Passes, "activity", meet)
    found = []

    def work(run):
        found.append(run.activity(images))

    runs = [replace(kept, passes=copy.deepcopy(kept.passes)) for _ in range(2)]
    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    same(*found)
    same(kept.activity(images), found[0])
    assert only(folder).suffix == ".parquet"


def test_kept_passes_can_be_copied(kept, images, folder):
    kept.activity(images)
    empty = Kept(None, folder, "of these weights", kept.channels)
    copies = copy.copy(kept), copy.deepcopy(kept), copy.deepcopy(empty)
    for other in (*copies, pickle.loads(pickle.dumps(empty))):
        same(other.activity(images), kept.activity(images))


def test_detector_and_device_are_those_of_the_passes(kept, passes):
    assert kept.detector is passes.detector
    assert kept.lrp is passes.lrp
    assert kept.device == torch.device("cpu")
    with pytest.raises(AttributeError):
        _ = kept.weather


def test_identity_outlives_a_round_trip_through_a_file(images, tmp_path):
    kinds = {
        "as they are": images.manifest,
        "texts": images.manifest.astype({"path": object, "generator": "category"}),
        "small numbers": images.manifest.astype({"label": np.int8, "bytes": np.int32}),
        "no sizes": images.manifest.drop(columns="bytes"),
    }
    for name, manifest in kinds.items():
        write(tmp_path / f"{name}.parquet", manifest, {"of": name})
        table, facts = read(tmp_path / f"{name}.parquet")
        assert facts == {"of": name}
        before, after = (replace(images, manifest=m) for m in (manifest, table))
        assert identity(before) == identity(after)
    assert len({digest(identity(replace(images, manifest=m))) for m in kinds.values()}) == 2


def test_identity_knows_rows_and_their_order(images):
    table = images.manifest
    others = [
        table.iloc[::-1].reset_index(drop=True),
        table.iloc[1:].reset_index(drop=True),
        table.assign(label=1 - table["label"]),
        table.assign(path=table["path"] + "x"),
        table.assign(generator=table["generator"].replace("seen", "unseen")),
        table.assign(bytes=table["bytes"] + 1),
    ]
    found = [digest(identity(replace(images, manifest=m))) for m in [table, *others]]
    assert len(set(found)) == 7
    # What changes no pixel changes nothing.
    assert digest(identity(replace(images, notes=("x",)))) == found[0]


def test_digest_of_a_network():
    network = tiny.detector(3).network
    first = digest_of(network, {"rule": "zplus"})
    assert digest_of(copy.deepcopy(network), {"rule": "zplus"}) == first
    assert digest_of(copy.deepcopy(network).to(memory_format=torch.channels_last),
                     {"rule": "zplus"}) == first  # fmt: skip
    assert digest_of(network, {"rule": "epsilon"}) != first
    for change in (
        lambda n: n.bn2.running_var.data[4].add_(1e-6),
        lambda n: n.fc.bias.data.neg_(),
        lambda n: setattr(n.conv1, "stride", (1, 1)),  # the weights stay
        lambda n: setattr(n, "relu", torch.nn.SiLU()),
    ):
        other = copy.deepcopy(network)
        change(other)
        assert digest_of(other, {"rule": "zplus"}) != first


def test_digest_does_not_depend_on_the_order_of_names():
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": [2, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
