"""The history of a training, from the folders that the callback leaves."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom, spearmanr

from tff.comparisons.emergence import Emergence
from tff.report.page import write
from tff.report.results import write_results

WIDTHS = {"=odd.layer": 8, "NA": 30, "001": 22}
GENERATORS = ("NA", "001", "=x")
K = 7


def ranking(omega, **protocol):
    """Table `ranking` of omega by layer, as the analysis writes it."""
    rows = [(layer, c, v) for layer, values in omega.items() for c, v in enumerate(values)]
    table = pd.DataFrame(rows, columns=["layer", "channel", "omega"])
    table = table.sort_values("omega", ascending=False, ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    bounds = {"omega_low": table["omega"] - 0.01, "omega_high": table["omega"] + 0.02}
    said = {"crop": "none", "relevance": "rule=zplus", "seed": 0} | protocol
    return table.assign(**bounds, **({"images": 40, "weights": "step"} | said))


def shares(random):
    rows = [
        {
            "generator": name, "seen": name == "001", "cue": "color", "k": K,
            "share": random.random(), "share_losing": random.random(),
            "share_turning": random.random(), "images": 30 + i,
        }
        for i, name in enumerate(GENERATORS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def save(folder, step, table, share=None, k=K):
    tables = {"ranking": table} | ({} if share is None else {"conditional_share": share})
    report = folder / "checkpoints" / f"step{step:06d}"
    report.mkdir(parents=True, exist_ok=True)
    write_results(report, tables, {} if k is None else {"ranking/k": k}, {})


def drifting(random, steps, widths=WIDTHS):
    """Omega of one training: each checkpoint moves a little away from the one before."""
    omega = {layer: random.random(n) / n for layer, n in widths.items()}
    for step in steps:
        yield step, {layer: values.copy() for layer, values in omega.items()}
        for values in omega.values():
            values += random.random(len(values)) * 0.6 / len(values)


@pytest.fixture(scope="module")
def template(tmp_path_factory, seed):
    """A run of five analysed checkpoints, and the tables written there."""
    folder, random = tmp_path_factory.mktemp("run"), np.random.default_rng(seed)
    written = {}
    for step, omega in drifting(random, (5, 40, 100, 101, 2000)):
        written[step] = ranking(omega), shares(random)
        save(folder, step, *written[step])
    return folder, written


@pytest.fixture
def history(template, tmp_path):
    """A copy to spoil."""
    shutil.copytree(template[0], tmp_path, dirs_exist_ok=True)
    return tmp_path, template[1]


def answer(folder, **options):
    return Emergence(str(folder), **options)()


@pytest.fixture(scope="module")
def result(template):
    """Comparison of all checkpoints as they are."""
    return answer(template[0])


def named(table):
    return set(zip(table["layer"], table["channel"], strict=True))


def test_the_final_top_at_every_step(template, result):
    written, table = template[1], result.tables["emergence"]
    assert result.warnings == []
    final = written[2000][0].head(K)
    assert len(table) == 5 * K
    for step, part in table.groupby("step"):
        assert named(part) == named(final)
        assert part.sort_values("rank_final")["rank_final"].tolist() == list(range(1, K + 1))
        both = part.merge(written[step][0], on=["layer", "channel"], suffixes=("", "_true"))
        for column in ("rank", "omega", "omega_low", "omega_high", "images"):
            np.testing.assert_array_equal(both[column], both[f"{column}_true"])
        assert (part["in_top"] == (part["rank"] <= K)).all()


def test_stability_is_that_of_pairs_recomputed(template, result):
    written = template[1]
    table = result.tables["stability"].set_index(["compared", "step", "other_step"])
    steps = sorted(written)
    pairs = [("next", *p) for p in pairwise(steps)] + [("final", s, 2000) for s in steps[:-1]]
    assert list(table.index) == pairs
    n = sum(WIDTHS.values())
    for compared, one, other in pairs:
        a, b = written[one][0], written[other][0]
        row = table.loc[(compared, one, other)]
        found = len(named(a.head(K)) & named(b.head(K)))
        assert (row["k"], row["overlap"], row["share"]) == (K, found, found / K)
        assert row["by_chance"] == pytest.approx(K * K / n)
        assert row["p_by_chance"] == pytest.approx(hypergeom.sf(found - 1, n, K, K))
        tops = [t.head(K)["layer"].value_counts() for t in (a, b)]
        within = sum(tops[0].get(v, 0) * tops[1].get(v, 0) / w for v, w in WIDTHS.items())
        assert row["within_layers"] == pytest.approx(within)
        both = a.merge(b, on=["layer", "channel"])
        rho = spearmanr(both["omega_x"], both["omega_y"]).statistic
        assert row["spearman"] == pytest.approx(rho)


def test_shares_over_time(template, result):
    written = template[1]
    table = result.tables["conditional_over_time"]
    assert list(table["generator"]) == [*GENERATORS] * 5
    for step, part in table.groupby("step"):
        want = written[step][1]
        for column in ("share", "share_losing", "share_turning", "images", "k", "seen"):
            assert part[column].tolist() == want[column].tolist()
    first, last = written[5][1], written[2000][1]
    before, after = (100 * table["share"].mean() for table in (first, last))
    sentence = (
        f"Color-conditional (median test, as in the paper): {before:.0f} % of the top channels at "
        f"step 5, {after:.0f} % at step 2,000 (mean over 3 generators)."
    )
    assert sentence in result.findings
    assert result.scalars["share_turning_final"] == pytest.approx(last["share_turning"].mean())
    ax = result.figures["conditional_over_time"].axes[0]
    drawn = {line.get_label(): line for line in ax.lines}["median test, as in the paper"]
    want = [written[s][1]["share"].mean() for s in sorted(written)]
    np.testing.assert_allclose(drawn.get_ydata(), want)
    corners = ax.collections[2].get_paths()[0].vertices
    low = [written[s][1]["share"].min() for s in sorted(written)]
    for step, least in zip(sorted(written), low, strict=True):
        assert corners[corners[:, 0] == step, 1].min() == pytest.approx(least)


def of_ranks(order):
    """Omega of one layer that ranks its channels in this order."""
    omega = np.empty(len(order))
    omega[order] = np.linspace(1, 0.1, len(order))
    return ranking({"only": omega})


@pytest.mark.parametrize(
    ("kept", "step", "words"),
    [
        # Channels of the final top 4 (0 to 3) that are in the top 4 at steps 10, 20, 30.
        ((1, 2, 3), 20, "From step 20 on, at least half of the final top 4 (step 40)"),
        ((3, 1, 2), 30, "From step 30 on, at least half"),  # lost again at 20
        ((2, 3, 4), 10, "From step 10 on, the first analysed one, at least half"),
        ((0, 4, 1), np.nan, "Half of the final top 4 came after step 30, the last checkpoint but"),
    ],
)
def test_the_step_from_which_half_of_the_final_top_stays(tmp_path, kept, step, words):
    for place, count in enumerate((*kept, 4)):
        others = [c for c in range(4, 20)]
        top = [*range(count), *others[: 4 - count]]
        order = [*top, *(c for c in range(20) if c not in top)]
        save(tmp_path, 10 * (place + 1), of_ranks(order), k=4)
    result = answer(tmp_path)
    assert words in result.findings[0]
    np.testing.assert_equal(result.scalars["step_of_half"], step)
    assert result.scalars["overlap_of_last_two"] == kept[-1]


def test_figures_show_the_tables(template, result):
    written = template[1]
    ax = result.figures["emergence"].axes[0]
    named_lines = [line.get_label() for line in ax.lines if not line.get_label().startswith("_")]
    best = written[2000][0].head(5)
    assert named_lines == [
        *(f"{layer} #{c}" for layer, c in zip(best["layer"], best["channel"], strict=True)),
        "2 others",
    ]
    line = next(x for x in ax.lines if x.get_label() == named_lines[0])
    strongest = tuple(best[["layer", "channel"]].iloc[0])
    tables = [written[step][0].set_index(["layer", "channel"]) for step in sorted(written)]
    want = [table.loc[strongest, "omega"] for table in tables]
    np.testing.assert_array_equal(line.get_xdata(), sorted(written))
    np.testing.assert_array_equal(line.get_ydata(), want)
    table = result.tables["stability"]
    ax = result.figures["stability"].axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    for compared, label in (("final", "with the final one"), ("next", "with the next one")):
        shown = table.loc[table["compared"] == compared, "share"]
        np.testing.assert_array_equal(drawn[label], shown)
    np.testing.assert_allclose(drawn["final, by chance"], K / sum(WIDTHS.values()))
    assert set(result.captions) == set(result.figures)


def test_another_k(history):
    folder, written = history
    result = answer(folder, k=12)
    assert len(result.tables["emergence"]) == 5 * 12
    assert result.scalars["k"] == 12
    n = sum(WIDTHS.values())
    assert result.tables["stability"]["by_chance"].iloc[0] == pytest.approx(144 / n)
    with pytest.raises(ValueError, match=rf"emergence\.k=61: the detector has only {n} channels"):
        answer(folder, k=61)
    for k in (None, -1, 7.5):
        save(folder, 2000, *written[2000], k=k)
        with pytest.raises(ValueError, match=r"step 2000 do not say which k was used"):
            answer(folder)
    assert answer(folder, k=12).scalars["k"] == 12


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "7"])
def test_an_impossible_k(k):
    with pytest.raises(ValueError, match=r"analysis\.emergence\.k="):
        Emergence("run", k=k)


def test_no_run_is_named():
    with pytest.raises(ValueError, match=r"run=.*: analysis=emergence needs .* pass run=DIR"):
        Emergence(None)()
    for name in ("", ["a", "b"]):
        with pytest.raises(ValueError, match=r"emergence\.run=.*: expected a path, or null"):
            Emergence(name)


def test_no_such_run_and_no_analysed_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such folder"):
        answer(tmp_path / "nowhere")
    (tmp_path / "checkpoints" / "stepsomething").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step000100").write_text("a file")
    with pytest.raises(ValueError, match="none of its checkpoints was analysed; train with"):
        answer(tmp_path)


def test_one_checkpoint_works_and_says_so(tmp_path, rng):
    ((step, omega),) = drifting(rng, (300,))
    save(tmp_path, step, ranking(omega))
    result = answer(tmp_path)
    assert result.findings == []
    assert len(result.tables["emergence"]) == K
    assert len(result.tables["stability"]) == 0
    assert "within_layers" in result.tables["stability"]
    assert list(result.figures) == ["emergence"]
    assert any("Only one checkpoint was analysed (step 300)" in w for w in result.warnings)
    assert any("add `median_test`" in w for w in result.warnings)
    write({"emergence": result}, tmp_path / "report", {})


RANKING = {"layer": {"type": "text", "values": ["a"]}}
DAMAGES = {
    "missing": (None, "has no table `ranking`; the analysis failed or was killed"),
    "no json": ("{", "cannot be read as results of a report"),
    "not ranked": ('{"scalars": {}, "tables": {}}', "has no table `ranking`"),
    "no omega": (
        json.dumps({"scalars": {}, "tables": {"ranking": RANKING}}),
        "results.json: table ranking has no column rank, channel, omega, omega_low",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_skipped_and_named(history, damage):
    folder, written = history
    text, words = DAMAGES[damage]
    report = folder / "checkpoints" / "step000100"
    if text is None:
        shutil.rmtree(report)
        report.mkdir()
    else:
        (report / "results.json").write_text(text)
    result = answer(folder)
    assert set(result.tables["emergence"]["step"]) == set(written) - {100}
    (sentence,) = [w for w in result.warnings if "skipped" in w]
    assert sentence.startswith("The checkpoint of step 100 is skipped: ")
    assert words in sentence
    assert "step000100" in sentence


def test_no_step_that_can_be_read(history):
    folder, written = history
    for step in written:
        (folder / "checkpoints" / f"step{step:06d}" / "results.json").write_text("")
    with pytest.raises(ValueError, match=r"no checkpoint can be read\. The checkpoint of step 5 "):
        answer(folder)


def test_steps_of_another_detector_are_refused(history, rng):
    folder, _ = history
    (_, omega) = next(drifting(rng, (50,), {"conv1": 60}))
    save(folder, 50, ranking(omega))
    with pytest.raises(
        ValueError, match=r"steps 50 and 2000 rank different channels, .* two detectors"
    ):
        answer(folder)


def test_differing_options_are_named(history):
    folder, written = history
    save(folder, 101, written[101][0].assign(relevance="rule=epsilon", seed=3), written[101][1])
    warnings = answer(folder).warnings
    assert [w for w in warnings if "relevance is" in w] == [
        "The checkpoints were analysed with different options: relevance is rule=zplus at step 5, "
        "40, 100, 2000; rule=epsilon at step 101."
    ]
    assert len([w for w in warnings if "seed is" in w]) == 1
    assert len([w for w in warnings if "different options" in w]) == 2


def test_few_images_are_named(history):
    folder, written = history
    save(folder, 5, written[5][0].assign(images=29), written[5][1])
    (warning,) = answer(folder).warnings
    assert warning.startswith("At step 5 omega rests on fewer than 30 generated images")
