"""Damaged and forged files of cached passes: read rightly, or named in one sentence."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers import tiny

from tff.analyses.engine.cache import Cache
from tff.analyses.engine.replay import cache_passes, replay
from tff.analyses.engine.subject import Subject
from tff.atomic import write_json
from tff.data.datamodule import Splits
from tff.parquet import open_parquet, read, read_columns, write

OPTIONS = {"device": "cpu", "batch_size": 5, "sample": 2, "k": 3, "confidence": 0.0}
REQUESTS = {
    "relevance": lambda s: vars(s.relevance["fake"]),
    "activity": lambda s: {**vars(s.activity), **s.activity.resamples, "resamples": 0},
    "evaluate": lambda s: vars(s.evaluate(responses=True)),
    "dropped": lambda s: s.evaluate_without_channels({"top": s.top}),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=5, seed=5)


@pytest.fixture(scope="module")
def subject(root, tmp_path_factory):
    """A subject with all of its passes in a folder, and what they hold."""
    images = tiny.splits(root).test
    home = tmp_path_factory.mktemp("passes")
    subject = cache_passes(Subject.of(tiny.detector(3), Splits(images, images), **OPTIONS), home)
    return subject, {name: request(subject) for name, request in REQUESTS.items()}


def again(subject, folder):
    """The same subject in another run, with passes in another folder only."""
    one = replace(subject, cache=Cache(folder, subject.cache.detector), _passes=None)
    one.ranking = subject.ranking
    return one


@pytest.fixture(params=REQUESTS)
def attack(request, subject, tmp_path):
    """Reads a pass from a file that `change` has made, and returns the error."""
    one, expected = subject[0], subject[1][request.param]
    (source,) = one.cache.folder.glob(f"{request.param}*.parquet")
    path = tmp_path / source.name

    def read_back(change):
        path.unlink(missing_ok=True)
        change(source, path)
        try:
            found = REQUESTS[request.param](again(one, tmp_path))
        except ValueError as error:
            assert re.fullmatch(rf"[^\n]*{path.name}: [^\n]*; delete it and run again", str(error))
            return str(error)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
        return None

    return read_back


def test_a_pass_is_read_as_it_was_written(attack):
    assert attack(lambda source, path: path.write_bytes(source.read_bytes())) is None


@pytest.mark.parametrize("kind", ["bits", "cut", "zeros", "insert", "double"])
def test_damaged_bytes_never_change_a_number(kind, attack, rng):
    """Read rightly, where the bytes do not matter, or refused."""
    refused = 0
    for _ in range(25):

        def change(source, path):
            data = bytearray(source.read_bytes())
            at, end = sorted(rng.integers(0, len(data), 2).tolist())
            if kind == "bits":
                for place in rng.integers(0, len(data), rng.integers(1, 4)):
                    data[place] ^= 1 << rng.integers(8)
            elif kind == "cut":
                del data[at:]
            elif kind == "zeros":
                data[at:end] = bytes(end - at)
            elif kind == "insert":
                data[at:at] = rng.bytes(3)
            else:
                data[at:at] = data[at:end]
            path.write_bytes(data)

        refused += attack(change) is not None
    assert refused > 5


def forge(change):
    """A file whose digests fit what `change` has made of its table and facts."""

    def make(source, path):
        table, facts = read(source)
        table, facts = change(table.copy(), json.loads(json.dumps(facts)))
        write(path, table, facts)

    return make


def set_column(values):
    return lambda table, facts: (table.assign(**{table.columns[-1]: values(table)}), facts)


def set_facts(value, *keys):
    def change(table, facts):
        place = facts
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        return table, facts

    return change


FORGED = {
    "text": set_column(lambda t: "x"),
    "integers": set_column(lambda t: 1),
    "fewer rows": lambda table, facts: (table.iloc[:-1], facts),
    "more rows": lambda table, facts: (pd.concat([table, table]), facts),
    "no rows": lambda table, facts: (table.iloc[:0], facts),
    "no column": lambda table, facts: (table.iloc[:, :-1], facts),
    "no columns": lambda table, facts: (table[[]], facts),
    "no key": set_facts(None, "key"),
    "key of another": set_facts("x", "key", "detector"),
    "key of lists": set_facts([[1], {}], "key", "channels"),
    "no facts": set_facts([], "facts"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_tables_are_refused(name, attack):
    error = attack(forge(FORGED[name]))
    if name not in ("text", "integers", "no column"):  # of a column that is not read
        assert error is not None


@pytest.mark.parametrize(
    "value",
    [
        None, 1, [], {}, {"images": 3}, {"images": "3", "ledger": []}, {"images": -1, "ledger": []},
        {"images": True, "ledger": []}, {"images": 3, "ledger": [[1.0]]},
        {"images": 3, "ledger": [["1"] * 5]}, {"images": 3, "ledger": {"a": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_forged_facts_of_relevance_are_refused(value, subject, tmp_path):
    (source,) = subject[0].cache.folder.glob("relevance*.parquet")
    forge(set_facts(value, "facts", "fake"))(source, tmp_path / source.name)
    with pytest.raises(ValueError, match=r"its facts cannot be used; delete it and run again$"):
        _ = again(subject[0], tmp_path).relevance


@pytest.mark.parametrize("sample", ["narrow", "ragged", "other rows", "text"])
def test_forged_responses_of_all_channels_are_refused(sample, subject, tmp_path):
    def change(table, facts):
        column = table["all channels"].copy()
        rows = np.flatnonzero(column.notna())
        if sample == "other rows":
            column = column.iloc[::-1].reset_index(drop=True)
            column[len(column) - 1 - rows[0]] = None
        elif sample == "narrow":
            column[rows] = [column[row][:4] for row in rows]
        elif sample == "text":
            column[rows] = "x"
        else:
            column = pd.Series([[0.0] * (row % 3) for row in range(len(table))])
        return table.assign(**{"all channels": column}), facts

    (source,) = subject[0].cache.folder.glob("evaluate*.parquet")
    with pytest.raises(ValueError, match=rf"{source.name}: .*; delete it and run again$"):
        if sample == "ragged":
            table, _ = change(*read(source))
            pq.write_table(pa.Table.from_pandas(table), tmp_path / source.name)
        else:
            forge(change)(source, tmp_path / source.name)
        again(subject[0], tmp_path).evaluate(responses=True)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_pipe_in_place_of_a_pass_is_refused(name, subject, tmp_path):
    (source,) = subject[0].cache.folder.glob(f"{name}*.parquet")
    os.mkfifo(tmp_path / source.name)
    with pytest.raises(ValueError, match=rf"{source.name}: is a pipe, not a file; remove it"):
        REQUESTS[name](again(subject[0], tmp_path))
    (tmp_path / source.name).rename(tmp_path / f"{source.name[:-13]}0.parquet")  # of another pass
    with pytest.raises(ValueError, match=r"0\.parquet: is a pipe, not a file; remove it"):
        REQUESTS[name](again(subject[0], tmp_path))


def test_a_small_file_does_not_fill_the_memory(subject, tmp_path, little_memory):
    """A megabyte of text, named a million times: a terabyte."""
    (source,) = subject[0].cache.folder.glob("evaluate*.parquet")
    number = 1_000_000
    for column in ("logit", "path"):
        value = pa.array(["x" * number])
        same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(number, np.int32)), value)
        path = tmp_path / source.name
        pq.write_table(pa.table({column: same}), path, store_schema=False)
        assert path.stat().st_size < 100_000
        with pytest.raises(ValueError, match="delete it and run again"):
            again(subject[0], tmp_path).evaluate(responses=True)
        with pytest.raises(ValueError, match=r"would unfold to 1,000,000,000,000"):
            read_columns(open_parquet(path.open("rb")), None)


SUBJECTS = {
    "widths": [
        None,
        [],
        {},
        {"a": 0},
        {"a": -1},
        {"a": 1.5},
        {"a": True},
        {"a": 2**62},
        {"a": "1"},
    ],
    "twins": [None, {}, [0], "x", [[1]], [2.5] * 12, [5] * 12],
    "tff_fraction": [None, "x", 0, -1, 2, [], True],
    "accounts": [None, 1, [1], [[1, 2]], [["a"]], ["ab", 3]],
    "max_leak": [None, "x", []],
    "protocol": [None, 1, "x", [1]],
    "detector": [None, 1, []],
    "images": [None, {}, {"test": 1, "discovery": 2}, {"test": "../x", "discovery": "/etc/passwd"}],
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_forged_subject_is_named(name, subject, tmp_path):
    (source,) = subject[0].cache.folder.glob("subject-*.json")
    for value in SUBJECTS[name]:
        write_json(tmp_path / source.name, json.loads(source.read_text()) | {name: value})
        with pytest.raises(ValueError, match=rf"{source.name}: damaged .*; delete it and"):
            replay(tmp_path, lambda *found: Subject.of(*found, **OPTIONS))


@pytest.mark.parametrize(
    "change",
    [
        lambda t, f: (t.drop(columns="path"), f),
        lambda t, f: (t.assign(label="x"), f),
        lambda t, f: (t.assign(label=2), f),
        lambda t, f: (t.assign(generator=1), f),
        lambda t, f: (t.assign(height="x"), f),
        lambda t, f: (t.assign(generator=[None, *t["generator"][1:]]), f),
        *(
            set_facts(value, name)
            for name, values in {
                "crop": [None, 1, "center0x", []], "resize": ["x", -1, []], "seed": ["x", None],
                "real_of": [None, [1]], "notes": [None, 1],
            }.items()
            for value in values
        ),
        lambda t, f: (t, {}),
    ],
)  # fmt: skip
def test_forged_images_of_a_subject_are_named(change, subject, tmp_path):
    (source,) = subject[0].cache.folder.glob("subject-*.json")
    (tmp_path / source.name).write_bytes(source.read_bytes())
    names = json.loads(source.read_text())["images"]
    for name in set(names.values()):
        forge(change)(source.parent / name, tmp_path / name)
    with pytest.raises(ValueError, match=r"images-\w+\.parquet: damaged .*; delete it and"):
        replay(tmp_path, lambda *found: Subject.of(*found, **OPTIONS))
