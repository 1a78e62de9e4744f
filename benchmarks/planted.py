"""Do the tests find what was planted? A detector for each cue, and what the analyses say of it.

python benchmarks/planted.py [--cues none chroma checkerboard highfreq] [--out outputs]

A detector is trained where OUT/planted-CUE holds none (some minutes), and analysed: its report is
in OUT/planted-CUE/truth, with the passes, so that a second call computes tables only. The figures
are of test images with the cue that was trained on, and of `none`, where nothing may be found. One
control is one look; how often it errs is counted with its labels dealt anew, and with channels that
were drawn at random in place of the top k. The claims of docs/planted.md are judged from these
figures: which of them hold is written down nowhere.
"""

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tff.ablations.color import Grayscale
from tff.analyses.engine.replay import cache_passes, replay
from tff.analyses.engine.subject import Subject
from tff.analyses.sensitivity import Controls, Sensitivity
from tff.data.synthetic.planted_cues import CUES
from tff.detectors.checkpoint import load
from tff.statistics.bootstrap import Estimate, draw_resamples, evaluate_resamples, shortfall
from tff.statistics.channel_tests import benjamini_hochberg, delong_test
from tff.statistics.detection import average_precision
from tff.training.from_checkpoint import load_data

ROOT = Path(__file__).resolve().parent.parent
ANALYSES = "analysis=[detection,ranking,sensitivity,ablation,median_test]"
TABLES = (
    "detection",
    "ablation",
    "conditional_share",
    "median_test",
    "sensitivity",
    "sensitivity_against_matched",
)
# What the cue is made of, by construction (docs/planted.md). Blur and JPEG change color and
# luminance, so no claim is made of them.
COLOR, LUMINANCE, CONTROL = ("chroma",), ("checkerboard", "highfreq"), "none"
CONFIDENCE = (
    0.5  # the control is sure of nothing; the same for all, so that columns can be compared
)
HIGH = 0.5  # a share is called high if it is that of most channels
TESTS = {"median": "the paper's median test", "separating": "separates worse (DeLong), corrected"}
ENDS = ("", "_low", "_high")


def trained(cue, out, options):
    """The checkpoint, trained first where there is none.

    A run that was broken off leaves a checkpoint too, so the folder gets its name at the end only.
    """
    folder = out / f"planted-{cue}"
    found = folder / "checkpoints" / "best.ckpt"
    if found.exists():
        return found
    if folder.exists():
        raise FileNotFoundError(f"{found}: missing; finish that training, or delete {folder}")
    draft = out / f"planted-{cue}-unfinished"
    command = ["train.py", "experiment=planted", f"data.cue={cue}", f"hydra.run.dir={draft}"]
    # Standard output is for the table alone.
    subprocess.run([sys.executable, *command, *options], cwd=ROOT, stdout=sys.stderr, check=True)
    draft.rename(folder)
    return found


def analysed(cue, out, options, draws):
    """The tables of a cue's detector: name -> rows of all test generators."""
    ckpt, folder = trained(cue, out, options), out / f"planted-{cue}" / "truth"
    subject = [f"subject.confidence={CONFIDENCE}", f"subject.draws={draws}"]
    command = ["analyze.py", f"ckpt={ckpt}", ANALYSES, *subject, f"hydra.run.dir={folder}"]
    log = folder.with_suffix(".log")
    print(f"{cue}: {log}", file=sys.stderr)
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=stream, stderr=stream)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(command)}: failed, see {log}")
    files = {name: folder / "report" / "tables" / f"{name}.csv" for name in TABLES}
    # `none` is the name of a cue, and no missing value.
    return {n: pd.read_csv(f, keep_default_na=False, na_values=[""]) for n, f in files.items()}


def measured(tables, generator):
    """The figures of a detector on the test images of one generator."""
    of = {name: table[table["generator"] == generator] for name, table in tables.items()}
    share, ablation, top = of["conditional_share"].iloc[0], of["ablation"], of["median_test"]
    dropped = of["sensitivity"].set_index("dropout")
    # Of matched channels the mean of single draws, as in the difference.
    left = dropped.loc["top_k", "ap"], dropped.loc["matched_k", "ap_draws_mean"]
    against = of["sensitivity_against_matched"].query("against == 'matched_k'")
    apart = [(top[area] - 0.5).abs() for area in ("area", "area_ablated")]
    return {
        "k": int(share["k"]),
        "alpha": share["alpha"],
        "ap": [of["detection"][f"ap{end}"].item() for end in ENDS],
        "ap_ablated": [ablation[f"ap_ablated{end}"].item() for end in ENDS],
        "median": (share["share"], share["share_of_all"]),
        "separating": (share["share_separating"], share["share_separating_of_all"]),
        "lost": (apart[0] - apart[1]).mean(),
        "drop": [dropped.loc["none", "ap"] - ap for ap in left],
        "more": [against[f"ap_lower_by{end}"].item() for end in ENDS],
    }


def show(rows):
    """The figures as Markdown, a row a detector and test generator."""
    k = " or ".join(str(k) for k in sorted({row["k"] for row in rows.values()}))
    heads = [
        "trained on", "tested on", "AP", "AP without color", f"median test: top {k}", "all",
        f"separates worse: top {k}", "all", f"area lost, top {k}", f"AP drop: top {k}",
        "matched random", "difference",
    ]  # fmt: skip
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for names, row in rows.items():
        ap, without, more = (
            "{:.3f} ({:.3f} to {:.3f})".format(*row[name]) for name in ("ap", "ap_ablated", "more")
        )
        shares = [f"{share:.2f}" for share in (*row["median"], *row["separating"])]
        changes = [f"{number:.3f}" for number in (row["lost"], *row["drop"])]
        first = [f"`{name}`" for name in names]
        print(f"| {' | '.join([*first, ap, without, *shares, *changes, more])} |")


def ap(labels, scores, rows):
    """AP of scores, with its resamples."""

    def of(at):
        return average_precision(labels[at], scores[at])

    return Estimate(float(average_precision(labels, scores)), evaluate_resamples(of, rows))


def called(difference):
    """Whether a difference is called more, or less, than chance."""
    low, high = difference.interval
    return low > 0 or high < 0


def false_alarms(passes, alpha, draws, deals):
    """In how many deals of the control's labels something is found, by each test.

    Its images are all drawn alike, so every deal is another control, and all that is found is
    false. Channels stay as correlated as they are.
    """
    # Passes of an earlier checkpoint may lie there too: those just used are the newest.
    newest = max(passes.rglob("subject-*.json"), key=lambda file: file.stat().st_mtime)
    subject = replay(newest, partial(Subject.of, confidence=CONFIDENCE, draws=draws))
    plain, gray = (subject.evaluate(cue, responses=True) for cue in (None, Grayscale()))
    at = subject.images.test.rows_of(CONTROL)
    labels, inside = subject.labels[at], np.isin(subject.sample, at)
    sampled = subject.labels[subject.sample[inside]]
    logits = subject.evaluate_dropped(Sensitivity().choices(subject))
    top = logits["top_k"][at]
    matched = [of[at] for name, of in logits.items() if name.startswith("matched")]
    rng, found = np.random.default_rng(0), np.zeros(2, int)
    for deal in range(deals):
        of = delong_test(rng.permutation(sampled), plain.sample[inside], gray.sample[inside])
        loses = np.abs(of.auc_b - 0.5) < np.abs(of.auc_a - 0.5)
        found[0] += ((benjamini_hochberg(of.p) <= alpha) & loses).any()
        dealt = rng.permutation(labels)
        rows = draw_resamples(dealt, draws, deal)
        of_matched = [ap(dealt, one, rows) for one in matched]
        found[1] += called(shortfall(ap(dealt, top, rows), of_matched))
    return {"separates worse": found[0], "AP difference": found[1]}


def random_tops(ckpt, cue, passes, draws, sets):
    """How often channels drawn at random are called special, each set held against the next five.

    They lie in the layers of the top k, and matter to the detector, since it has learned its cue.
    """
    splits = load_data(str(ckpt)).splits()
    subject = cache_passes(
        Subject.of(load(ckpt), splits, confidence=CONFIDENCE, draws=draws), passes
    )
    controls = Controls(subject.channels, subject.ranking, subject.k, subject.seed + 1)
    drawn = {str(i): channels for i, channels in enumerate(controls.matched(sets))}
    at = subject.images.test.rows_of(cue)
    labels = subject.labels[at]
    rows = draw_resamples(labels, draws, subject.seed)
    aps = [ap(labels, of[at], rows) for of in subject.evaluate_dropped(drawn).values()]
    ring = aps + aps[:5]
    return sum(called(shortfall(ring[i], ring[i + 1 : i + 6])) for i in range(sets))


def verdicts(rows):
    """(claim, [(of what, whether it holds)]); the list is empty where nothing was measured."""
    own = {cue: row for (cue, generator), row in rows.items() if cue == generator}
    cues = {cue: row for cue, row in own.items() if cue != CONTROL}
    colors, grays = ([c for c in own if c in some] for some in (COLOR, LUMINANCE))
    control = {cue: row for cue, row in own.items() if cue == CONTROL}
    nothing = {f"{c} on {g}": row for (c, g), row in rows.items() if g == CONTROL}

    def chance(numbers):
        return bool(numbers[1] <= 0.5 <= numbers[2])

    def high(cue, test):
        return bool(own[cue][test][0] > HIGH)

    yield "the cue is learned: AP above chance", [(c, r["ap"][1] > 0.5) for c, r in cues.items()]
    for test, words in TESTS.items():
        yield f"chroma: a high share by {words}", [(c, high(c, test)) for c in colors]
        yield f"luminance: no high share by {words}", [(c, not high(c, test)) for c in grays]
    yield "chroma: AP near 0.5 without color", [(c, chance(own[c]["ap_ablated"])) for c in colors]
    yield (
        "luminance: AP above 0.5 without color",
        [(c, own[c]["ap_ablated"][1] > 0.5) for c in grays],
    )
    yield "control: AP near 0.5", [(c, chance(row["ap"])) for c, row in nothing.items()]
    # A detector of color responds to it in `none` too; but nothing can be separated there.
    for test, looked_at in (("median", control), ("separating", nothing)):
        yield (
            f"control: no share above the stated rate by {TESTS[test]}",
            [(c, max(row[test]) <= row["alpha"]) for c, row in looked_at.items()],
        )
    yield (
        "top k cost more AP than matched random k",
        [(c, r["more"][1] > 0) for c, r in cues.items()],
    )
    yield "control: the top k do not", [(c, r["more"][1] <= 0) for c, r in control.items()]


def tell(claim, found):
    held = "holds" if all(holds for _, holds in found) else "DOES NOT HOLD"
    each = ", ".join(f"{what}: {'yes' if holds else 'no'}" for what, holds in found)
    print(f"- {claim}: {held} ({each})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cues", nargs="+", choices=CUES, default=[CONTROL, *COLOR, *LUMINANCE])
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    parser.add_argument("--draws", type=int, default=1000, help="resamples behind each interval")
    parser.add_argument("--deals", type=int, default=200, help="of the control's labels")
    parser.add_argument("--sets", type=int, default=20, help="of random channels, for each cue")
    parser.add_argument("--train", nargs="*", default=[], help="options of train.py, as seed=1")
    args = parser.parse_args()
    out, rows = args.out.expanduser().resolve(), {}
    for cue in args.cues:
        tables = analysed(cue, out, args.train, args.draws)
        rows |= {(cue, g): measured(tables, g) for g in dict.fromkeys((cue, CONTROL))}
    show(rows)
    for claim, found in verdicts(rows):
        if found:
            tell(claim, found)
    if CONTROL in args.cues and args.deals:
        alpha = rows[CONTROL, CONTROL]["alpha"]
        passes = out / f"planted-{CONTROL}" / "truth" / "passes"
        for test, count in false_alarms(passes, alpha, args.draws, args.deals).items():
            # No more often than stated, but for what chance does in so many deals.
            fits = binomtest(int(count), args.deals, alpha, alternative="greater").pvalue > 0.01
            found = [(f"{count} of {args.deals} deals, stated {alpha:g}", fits)]
            tell(f"control, labels dealt anew: something is found by chance only, {test}", found)
    if args.sets:
        found = []
        for cue in [cue for cue in args.cues if cue != CONTROL]:
            ckpt, passes = trained(cue, out, []), out / f"planted-{cue}" / "truth" / "passes"
            count = random_tops(ckpt, cue, passes, args.draws, args.sets)
            fits = binomtest(count, args.sets, 0.05, alternative="greater").pvalue > 0.01
            found.append((f"{cue}: {count} of {args.sets} sets, stated 0.05", fits))
        tell("random channels in place of the top k are special by chance only", found)


if __name__ == "__main__":
    main()
