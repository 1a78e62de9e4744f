"""Passes are computed once, in memory and on disk, and files are never half written."""

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
from tff.analyses.engine.cache import Cache, Expected, digest, digest_network, identify
from tff.analyses.engine.parts import Parts
from tff.analyses.engine.passes import (
    RESAMPLES_SIZE,
    Passes,
    Relevance,
    draw_images,
    resample_column,
)
from tff.analyses.engine.subject import Subject
from tff.data.datamodule import Splits
from tff.data.dataset import View
from tff.parquet import read, write

ORDER = torch.tensor([9, 2, 0, 1, 3, 4, 5, 6, 7, 8, 10, 11])
CHOICES = {"top": torch.tensor([3, 1]), "random_0": torch.tensor([7, 8])}


def values(first):
    """One for each channel, by layer, to replace dropped channels."""
    halves = torch.linspace(first, 1, 12).view(2, 1, 6, 1, 1)
    return {"conv1": halves[0], "conv2": halves[1]}


PASSES = (
    "compute_relevance",
    "compute_outputs",
    "compute_outputs_without_channels",
    "compute_activity",
)


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
def plain(images):
    """A subject whose passes are cached in memory only."""
    options = {"device": "cpu", "batch_size": 5, "sample": 3, "k": 3}
    return Subject.of(tiny.detector(3), Splits(images, images), **options)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "passes" / "deep"


@pytest.fixture
def subject(plain, folder):
    """Subjects of the same detector, by options; `folder=None` caches in memory only."""

    def make(folder=folder, images=plain.images, detector="of these weights", passes=True, **new):
        options = replace(plain.options, **new)
        made = replace(
            plain, images=images, options=options, cache=Cache(folder, detector),
            _passes=plain.passes if passes else None,
        )  # fmt: skip
        made.ranking = ORDER  # without a pass of relevance
        return made

    return make


@pytest.fixture
def calls(monkeypatch):
    """Names of the passes that are run."""
    made = []
    for name in PASSES:
        original = getattr(Passes, name)

        def counted(self, *args, name=name, original=original):
            made.append(name)
            return original(self, *args)

        monkeypatch.setattr(Passes, name, counted)
    return made


REQUESTS = {
    "relevance": lambda s: s.relevance,
    "logits": lambda s: s.evaluate(),
    "responses": lambda s: s.evaluate(Grayscale(), responses=True),
    "dropped": lambda s: s.evaluate_without_channels(CHOICES),
    "replaced by values": lambda s: s.evaluate_without_channels(CHOICES, values(-1)),
    "replaced by maps": lambda s: s.evaluate_without_channels(CHOICES, s.draw_replacements()),
    "activity": lambda s: s.activity,
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


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_computed_once_and_equal_to_the_last_bit(request_, subject, folder, calls):
    expected = request_(subject(folder=None))
    assert len(calls) == 1
    one = subject()
    for _ in range(2):  # computed, then from memory
        same(request_(one), expected)
    assert len(calls) == 2
    # From the file: another run, and one without a detector.
    same(request_(subject()), expected)
    same(request_(subject(passes=False)), expected)
    assert len(calls) == 2
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_missing_pass_needs_a_detector(request_, subject, folder):
    with pytest.raises(ValueError, match=r"holds no such pass .*; run analyze\.py with ckpt="):
        request_(subject(passes=False))
    assert not folder.exists()
    with pytest.raises(ValueError, match=r"holds no such pass \(the detector\)"):
        _ = subject(passes=False).lrp


def test_no_image_with_enough_confidence_comes_back_too(plain, images, folder):
    def compute():
        return plain.passes.compute_relevance(images, 1.5)

    table = compute()
    needed = Expected(
        len(table.rows),
        Relevance.columns(),
        sizes={resample_column(name): RESAMPLES_SIZE for name in Relevance.resampled()},
    )
    for _ in range(2):
        found = Cache(folder, "x").get("relevance", {"pass": "relevance"}, compute, needed)
        for name in needed.columns:
            pd.testing.assert_series_equal(found.rows[name], table.rows[name], check_exact=True)
        for kind in ("fake", "real"):
            expected, again = (Relevance.from_table(t, kind) for t in (table, found))
            assert expected.images == again.images == 0
            np.testing.assert_array_equal(again.conservation, expected.conservation)


@pytest.mark.parametrize("kind", ["in memory", "on disk"])
def test_everything_that_numbers_depend_on_tells_passes_apart(kind, subject, images, folder, calls):
    home = folder if kind == "on disk" else None
    other = replace(images, manifest=images.manifest.iloc[:-1].reset_index(drop=True))
    digests = images.manifest["digest"]
    swapped = images.manifest.assign(digest=digests.where(digests.index > 0, 1))
    one = subject(home)

    def of(**changes):
        """Subject of other images, which shares the cache."""
        changed = replace(one, images=Splits(*[replace(images, **changes)] * 2))
        return changed

    def with_options(ranking=ORDER, **changes):
        changed = replace(one, options=replace(one.options, **changes))
        changed.ranking = ranking
        return changed

    requests = [
        *[lambda r=r: r(one) for r in REQUESTS.values()],
        lambda: with_options(confidence=0.8).relevance,
        lambda: one.evaluate(Darker()),
        lambda: one.evaluate(Darker(0.25)),
        lambda: with_options(sample=4).evaluate(Grayscale(), responses=True),
        lambda: with_options(ORDER.flip(0)).evaluate(Grayscale(), responses=True),
        lambda: one.evaluate_without_channels({"first": CHOICES["top"]}),
        lambda: one.evaluate_without_channels({**CHOICES, "top": ORDER[:3]}),
        lambda: one.evaluate_without_channels(CHOICES, values(-2)),
        lambda: one.evaluate_without_channels(CHOICES, draw_images(images, len(images), 4)),
        lambda: replace(one, images=Splits(other, other)).activity,
        lambda: of(manifest=swapped).activity,
        lambda: of(view=View("center24")).activity,
        lambda: of(view=View(resize=24)).activity,
        lambda: of(seed=1).activity,
        lambda: of(match_format=True).activity,
    ]
    if home:
        requests.append(lambda: subject(home, detector="of others").activity)
    for count, request in enumerate(requests, 1):
        request()
        assert len(calls) == count
        assert home is None or len(list(home.iterdir())) == count
    for request in requests:
        request()
    assert len(calls) == len(requests)


@pytest.mark.parametrize("kind", ["in memory", "on disk"])
def test_a_larger_pass_serves_a_smaller_request(kind, plain, subject, folder, calls):
    home = folder if kind == "on disk" else None
    full = subject(home)
    full.evaluate(responses=True)
    full.evaluate_without_channels(CHOICES)

    def fresh(order=ORDER, **options):
        one = full if kind == "in memory" else subject(home)
        made = replace(one, options=replace(one.options, **options))
        made.ranking = order
        return made

    expected = [
        subject(None).evaluate(),
        subject(None, k=2).evaluate(responses=True),
        subject(None, k=3, sample=1).evaluate(responses=True),
    ]
    turned = ORDER[torch.tensor([2, 1, 0, *range(3, 12)])]
    three = subject(None)
    three.ranking = turned
    expected.append(three.evaluate(responses=True))
    top = {"top": CHOICES["top"].flip(0)}
    without = subject(None).evaluate_without_channels(top)
    calls.clear()
    same(fresh().evaluate().logits, expected[0].logits)
    same(fresh(k=2).evaluate(responses=True), expected[1])
    same(fresh(sample=1).evaluate(responses=True), expected[2])
    same(fresh(turned).evaluate(responses=True), expected[3])
    same(fresh().evaluate_without_channels(top), without)
    assert calls == []
    # The same name for other channels, and another cue, are not there.
    fresh().evaluate_without_channels({"top": ORDER[:3]})
    fresh().evaluate(Grayscale())
    fresh(ORDER.flip(0)).evaluate(responses=True)
    assert calls == ["compute_outputs_without_channels", "compute_outputs", "compute_outputs"]


class Nameless:
    """A cue whose repr does not show its options."""

    cue = "light"

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, image):
        return image * self.factor


def test_a_cue_whose_repr_does_not_show_its_options(subject, folder):
    with pytest.raises(ValueError, match=r"<.*Nameless object .*; make it a frozen dataclass"):
        subject().evaluate(Nameless(0.5))
    assert not folder.exists()
    one = subject(None)  # in memory each object is a cue of its own
    logits = [one.evaluate(Nameless(factor)).logits for factor in (0.5, 0.25)]
    assert (logits[0] != logits[1]).any()


def test_the_order_of_dropped_channels_does_not_matter(subject, calls):
    one = subject().evaluate_without_channels(CHOICES)
    turned = {name: channels.flip(0) for name, channels in reversed(CHOICES.items())}
    other = subject().evaluate_without_channels(turned)
    assert len(calls) == 1
    assert list(other) == list(turned)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_what_a_caller_does_with_logits_stays_with_the_caller(subject):
    one = subject(None)
    first = one.evaluate_without_channels(CHOICES)
    first["more"] = first.pop("top")
    assert list(one.evaluate_without_channels(CHOICES)) == list(CHOICES)


def only(folder):
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign", "no facts", "binary"])
def test_damaged_files_are_named(damage, subject, folder):
    _ = subject().activity
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
        _ = subject().activity
    path.unlink()
    _ = subject().activity


def test_a_file_under_the_name_of_another_is_refused(subject, folder):
    _ = subject().relevance
    path = only(folder)
    content = path.read_bytes()
    path.unlink()
    _ = subject(confidence=0.8).relevance
    only(folder).write_bytes(content)
    with pytest.raises(ValueError, match=r"relevance-.*holds another pass than its name says"):
        _ = subject(confidence=0.8).relevance


def test_the_file_says_what_it_holds(subject, images, folder):
    subject(sample=1).evaluate(Darker(0.25), responses=True)
    path = only(folder)
    assert path.name.startswith("evaluate-darker-")
    table, facts = read(path)
    assert facts["key"]["cue"] == "without Darker(factor=0.25)"
    assert facts["key"]["detector"] == "of these weights"
    assert facts["facts"]["response 9"] == "conv2 #3"
    assert table["path"].tolist() == images.manifest["path"].tolist()
    assert table.index[table["all channels"].notna()].tolist() == facts["key"]["sample"]


@pytest.mark.parametrize("when", ["at once", "in the middle"])
def test_a_failed_write_leaves_no_file(when, subject, folder, monkeypatch):
    original = pq.write_table

    def fail(table, where, **options):
        if when == "in the middle":
            original(table, where, **options)
            where.write_bytes(where.read_bytes()[:100])
        raise OSError("No space left on device")

    one = subject()
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", fail)
        with pytest.raises(OSError, match="No space left"):
            _ = one.activity
    assert list(folder.iterdir()) == []
    _ = one.activity
    assert only(folder).suffix == ".parquet"


def test_a_failed_pass_leaves_no_file(subject, folder, monkeypatch):
    def fail(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Passes, "compute_outputs", fail)
    with pytest.raises(KeyboardInterrupt):
        subject().evaluate()
    assert not folder.exists()


def test_two_runs_at_the_same_time(plain, subject, folder, monkeypatch):
    """Both find nothing, both compute, both write; whoever is last leaves a whole file."""
    both, original = threading.Barrier(2, timeout=60), Passes.compute_activity

    def meet(self, images):
        both.wait()
        return original(self, images)

    monkeypatch.setattr(Passes, "compute_activity", meet)
    found = []

    def work(run):
        found.append(run.activity)

    runs = [replace(subject(), _passes=copy.deepcopy(plain.passes)) for _ in range(2)]
    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    same(*found)
    same(subject(passes=False).activity, found[0])
    assert only(folder).suffix == ".parquet"


def test_a_subject_of_cached_passes_can_be_copied(subject):
    activity = subject().activity
    alone = subject(passes=False)
    for other in (copy.copy(alone), copy.deepcopy(alone), pickle.loads(pickle.dumps(alone))):
        same(other.activity, activity)


def test_identity_outlives_a_round_trip_through_a_file(images, tmp_path):
    kinds = {
        "as they are": images.manifest,
        "texts": images.manifest.astype({"path": object, "generator": "category"}),
        "small numbers": images.manifest.astype({"label": np.int8, "bytes": np.int32}),
        "no digests": images.manifest.drop(columns="digest"),
    }
    for name, manifest in kinds.items():
        write(tmp_path / f"{name}.parquet", manifest, {"of": name})
        table, facts = read(tmp_path / f"{name}.parquet")
        assert facts == {"of": name}
        before, after = (replace(images, manifest=m) for m in (manifest, table))
        assert identify(before) == identify(after)
    assert len({digest(identify(replace(images, manifest=m))) for m in kinds.values()}) == 1


def test_identity_knows_rows_and_their_order(images):
    table = images.manifest
    others = [
        table.iloc[::-1].reset_index(drop=True),
        table.iloc[1:].reset_index(drop=True),
        table.assign(label=1 - table["label"]),
        table.assign(path=table["path"] + "x"),
        table.assign(generator=table["generator"].replace("seen", "unseen")),
        table.assign(digest=table["digest"] + 1),
    ]
    found = [digest(identify(replace(images, manifest=m))) for m in [table, *others]]
    assert len(set(found)) == 7
    # What changes no pixel changes nothing.
    assert digest(identify(replace(images, notes=("x",)))) == found[0]


def test_digest_of_a_network():
    network = tiny.detector(3).network
    first = digest_network(network, {"rule": "zplus"})
    assert digest_network(copy.deepcopy(network), {"rule": "zplus"}) == first
    assert digest_network(copy.deepcopy(network).to(memory_format=torch.channels_last),
                          {"rule": "zplus"}) == first  # fmt: skip
    assert digest_network(network, {"rule": "epsilon"}) != first
    for change in (
        lambda n: n.bn2.running_var.data[4].add_(1e-6),
        lambda n: n.fc.bias.data.neg_(),
        lambda n: setattr(n.conv1, "stride", (1, 1)),  # the weights stay
        lambda n: setattr(n, "relu", torch.nn.SiLU()),
    ):
        other = copy.deepcopy(network)
        change(other)
        assert digest_network(other, {"rule": "zplus"}) != first


def test_digest_does_not_depend_on_the_order_of_names():
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": [2, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


# Parts of a pass that is interrupted.


@pytest.fixture
def batches(monkeypatch):
    """Counts batches that are added; interrupts before the one with the number in `stop`."""

    class Counted:
        added, stop, error = 0, 0, KeyboardInterrupt()

    counted = Counted()
    original = Parts.begin_batch

    def begin(parts):
        counted.added += 1
        if counted.added == counted.stop:
            raise counted.error
        original(parts)

    monkeypatch.setattr(Parts, "begin_batch", begin)
    return counted


def interrupt(made, batches, request, stop=4):
    batches.stop = stop
    with pytest.raises(type(batches.error)):
        REQUESTS[request](made)
    batches.added = batches.stop = 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), ValueError("odd")])
@pytest.mark.parametrize("request_", REQUESTS)
def test_an_interrupted_pass_goes_on(subject, plain, folder, batches, request_, error):
    expected = REQUESTS[request_](subject(None))
    total, batches.added, batches.error = batches.added, 0, error
    interrupt(subject(), batches, request_)
    assert [path.suffix for path in folder.iterdir()] == [".partial"]
    same(REQUESTS[request_](subject()), expected)
    assert batches.added == total - 3 > 0
    assert [path.suffix for path in folder.iterdir()] == [".parquet"]


def test_a_batch_that_was_half_added_is_not_stored(subject, folder, batches, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tff.statistics.per_image.PerImage.update", fail)
    with pytest.raises(KeyboardInterrupt):
        subject().evaluate()
    assert not folder.exists()


def test_parts_are_written_now_and_then(subject, folder, batches, monkeypatch):
    """As a process may be killed at any time."""
    monkeypatch.setattr("tff.analyses.engine.parts.INTERVAL", 0)
    monkeypatch.setattr("tff.analyses.engine.parts.SHARE", 1e9)
    monkeypatch.setattr(Parts, "__exit__", lambda *_: None)
    interrupt(subject(), batches, "logits")
    expected = subject(None).evaluate()
    batches.added = 0
    same(subject().evaluate(), expected)
    assert batches.added == 3


@pytest.mark.parametrize(
    ("detector", "change"),
    [
        ("other weights", {}),
        ("of these weights", {"match_format": True}),
        ("of these weights", {"view": View("center8")}),
    ],
)
def test_parts_of_other_content_are_not_used(subject, images, batches, detector, change):
    interrupt(subject(), batches, "logits")
    other = replace(images, **change)
    subject(images=Splits(other, other), detector=detector).evaluate()
    assert batches.added == 6


def spoiled_bytes(path):
    path.write_bytes(path.read_bytes()[:-200])


def spoiled_count(path):
    torch.save({**torch.load(path), "done": 10**9}, path)


def spoiled_shape(path):
    content = torch.load(path)
    for state in content["states"].values():
        state.update({name: torch.zeros(1) for name in state if name in ("sums", "counts")})
    torch.save(content, path)


def spoiled_kind(path):
    path.write_bytes(b"no file of torch")


@pytest.mark.parametrize("spoil", [spoiled_bytes, spoiled_count, spoiled_shape, spoiled_kind])
def test_damaged_parts_are_not_used(subject, folder, batches, spoil):
    expected = subject(None).relevance
    batches.added = 0
    interrupt(subject(), batches, "relevance")
    (path,) = folder.iterdir()
    spoil(path)
    same(subject().relevance, expected)
    assert batches.added == 6


def test_parts_that_cannot_be_written_end_no_pass(subject, batches, monkeypatch, caplog):
    def fail(*_):
        raise OSError(28, "full")

    monkeypatch.setattr("tff.analyses.engine.parts.INTERVAL", 0)
    monkeypatch.setattr("tff.analyses.engine.parts.torch.save", fail)
    subject().evaluate()
    assert "not stored so far" in caplog.text
