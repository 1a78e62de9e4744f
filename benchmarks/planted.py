"""Do the analyses find the planted cue? Trains and analyses one detector per cue.

python benchmarks/planted.py [--cues none chroma checkerboard highfreq] [--out outputs]

A detector is trained if OUT/planted-CUE holds none (some minutes), and analysed: the report and the
cached passes are in OUT/planted-CUE/truth, so that a second call only computes tables. Figures are
for test images with the cue of the training, and for `none`, where nothing may be found. The false
alarm rate is estimated with permuted labels of the control (`--permutations`), and with random
channels in place of the top k (`--sets` per cue). The claims of docs/planted.md are checked against
these figures.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from common import option_parser
from scipy.stats import binomtest

from tff.ablations.color import Grayscale
from tff.analyses.engine.controls import Comparison, Controls
from tff.analyses.engine.replay import cache_passes, replay
from tff.analyses.engine.subject import Subject
from tff.analyses.sensitivity import Sensitivity
from tff.data.synthetic.planted_cues import CUES
from tff.detectors.checkpoint import load
from tff.startup import prepare_process
from tff.statistics.bootstrap import Estimate, draw_resamples, evaluate_resamples
from tff.statistics.channel_tests import benjamini_hochberg, delong_test
from tff.statistics.detection import average_precision
from tff.training.from_checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parent.parent
ANALYSES = "analysis=[detection,ranking,sensitivity,ablation,median_test]"
TABLES = (
    "detection", "ablation", "conditional_share", "median_test", "sensitivity",
    "sensitivity_against_matched",
)  # fmt: skip
# Components of a cue by construction (docs/planted.md). Blur and JPEG change both color and
# luminance, so there is no claim about them.
COLOR, LUMINANCE, CONTROL = ("chroma",), ("checkerboard", "highfreq"), "none"
CONFIDENCE = 0.5  # the control is never confident; the same for all, to keep columns comparable
HIGH = 0.5  # a share above this is called high
TESTS = {"median": "the paper's median test", "separating": "separates worse (DeLong), corrected"}
ENDS = ("", "_low", "_high")
DRAWS = 10  # as in `sensitivity`


def train(cue, out, options):
    """Checkpoint of a cue, trained first if there is none.

    An interrupted run leaves a checkpoint too, so the folder is renamed at the end only.
    """
    folder = out / f"planted-{cue}"
    found = folder / "checkpoints" / "best.ckpt"
    if found.exists():
        return found
    if folder.exists():
        raise FileNotFoundError(f"{found}: missing; finish that training, or delete {folder}")
    draft = out / f"planted-{cue}-unfinished"
    command = ["train.py", "experiment=planted", f"data.cue={cue}", f"hydra.run.dir={draft}"]
    # Standard output is reserved for the table.
    subprocess.run([sys.executable, *command, *options], cwd=ROOT, stdout=sys.stderr, check=True)
    draft.rename(folder)
    return found


def analyze(cue, out, options, draws):
    """Tables of the detector of a cue: name -> rows of all test generators."""
    ckpt, folder = train(cue, out, options), out / f"planted-{cue}" / "truth"
    subject = [f"subject.confidence={CONFIDENCE}", f"subject.draws={draws}"]
    command = ["analyze.py", f"ckpt={ckpt}", ANALYSES, *subject, f"hydra.run.dir={folder}"]
    log = folder.with_suffix(".log")
    print(f"{cue}: {log}", file=sys.stderr)
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=stream, stderr=stream)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(command)}: failed, see {log}")
    files = {name: folder / "report" / "tables" / f"{name}.csv" for name in TABLES}
    # `none` is the name of a cue, not a missing value.
    return {n: pd.read_csv(f, keep_default_na=False, na_values=[""]) for n, f in files.items()}


def figures(tables, generator):
    """Figures of a detector on the test images of one generator."""
    of = {name: table[table["generator"] == generator] for name, table in tables.items()}
    share, ablation, top = of["conditional_share"].iloc[0], of["ablation"], of["median_test"]
    dropped = of["sensitivity"].set_index("dropout")
    # For matched channels the mean over single draws, as in the difference.
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
    """Print the figures as Markdown, one row per detector and test generator."""
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
    """AP of scores, with its bootstrap resamples."""

    def of(at):
        return average_precision(labels[at], scores[at])

    return Estimate(float(average_precision(labels, scores)), evaluate_resamples(of, rows))


def is_significant(top, drawn):
    """Whether AP without the top channels differs from that without one more random draw."""
    low, high = Comparison.of(top, drawn).from_one.interval
    return low > 0 or high < 0


def false_alarms(passes, alpha, draws, permutations):
    """Number of permutations of the control's labels in which each test finds something.

    All images of the control follow one distribution, so every permutation is another control and
    every finding is false. The correlation of channels is preserved.
    """
    # The folder may also hold passes of earlier checkpoints: take the newest.
    newest = max(passes.rglob("subject-*.json"), key=lambda file: file.stat().st_mtime)
    subject = replay(newest, partial(Subject.of, confidence=CONFIDENCE, draws=draws))
    plain, gray = (subject.evaluate(cue, responses=True) for cue in (None, Grayscale()))
    at = subject.images.test.rows_of(CONTROL)
    labels, inside = subject.labels[at], np.isin(subject.sample, at)
    sampled = subject.labels[subject.sample[inside]]
    logits = subject.evaluate_without_channels(Sensitivity().choices(subject))
    top = logits["top_k"][at]
    matched = [of[at] for name, of in logits.items() if name.startswith("matched")]
    rng, found = np.random.default_rng(0), np.zeros(2, int)
    for number in range(permutations):
        of = delong_test(rng.permutation(sampled), plain.sample[inside], gray.sample[inside])
        loses = np.abs(of.auc_b - 0.5) < np.abs(of.auc_a - 0.5)
        found[0] += ((benjamini_hochberg(of.p) <= alpha) & loses).any()
        permuted = rng.permutation(labels)
        rows = draw_resamples(permuted, draws, number)
        of_matched = [ap(permuted, one, rows) for one in matched]
        found[1] += is_significant(ap(permuted, top, rows), of_matched)
    return {"separates worse": found[0], "AP difference": found[1]}


def random_tops(ckpt, cue, passes, draws, sets):
    """Number of random channel sets that differ significantly from the next ten sets.

    They are in the layers of the top k of a detector that has learned its cue.
    """
    splits = Checkpoint.read(str(ckpt)).data.splits()
    subject = cache_passes(
        Subject.of(load(ckpt), splits, confidence=CONFIDENCE, draws=draws), passes
    )
    controls = Controls(subject.channels, subject.ranking, subject.seed + 1)
    drawn = {str(i): order[: subject.k] for i, order in enumerate(controls.matched(sets))}
    at = subject.images.test.rows_of(cue)
    labels = subject.labels[at]
    rows = draw_resamples(labels, draws, subject.seed)
    aps = [ap(labels, of[at], rows) for of in subject.evaluate_without_channels(drawn).values()]
    ring = aps + aps[:DRAWS]
    return sum(is_significant(ring[i], ring[i + 1 : i + 1 + DRAWS]) for i in range(sets))


def verdicts(rows):
    """Claims with [(subject, whether it holds)]; the list is empty if nothing was measured."""
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
    # A color detector responds to color in `none` too, but nothing can be separated there.
    for test, tested in (("median", control), ("separating", nothing)):
        yield (
            f"control: no share above the stated rate by {TESTS[test]}",
            [(c, max(row[test]) <= row["alpha"]) for c, row in tested.items()],
        )
    yield (
        "top k cost more AP than matched random k",
        [(c, r["more"][1] > 0) for c, r in cues.items()],
    )
    yield "control: the top k do not", [(c, r["more"][1] <= 0) for c, r in control.items()]


def print_claim(claim, found):
    held = "holds" if all(holds for _, holds in found) else "DOES NOT HOLD"
    each = ", ".join(f"{what}: {'yes' if holds else 'no'}" for what, holds in found)
    print(f"- {claim}: {held} ({each})")


def main():
    parser = option_parser(__doc__, out="outputs", draws=1000, permutations=200, sets=20)
    parser.add_argument("--cues", nargs="+", choices=CUES, default=[CONTROL, *COLOR, *LUMINANCE])
    parser.add_argument("--train", nargs="*", default=[], help="options of train.py")
    args = parser.parse_args()
    out, rows = Path(args.out).expanduser().resolve(), {}
    for cue in args.cues:
        tables = analyze(cue, out, args.train, args.draws)
        rows |= {(cue, g): figures(tables, g) for g in dict.fromkeys((cue, CONTROL))}
    show(rows)
    for claim, found in verdicts(rows):
        if found:
            print_claim(claim, found)
    if CONTROL in args.cues and args.permutations:
        alpha = rows[CONTROL, CONTROL]["alpha"]
        passes = out / f"planted-{CONTROL}" / "truth" / "passes"
        for test, count in false_alarms(passes, alpha, args.draws, args.permutations).items():
            # At most the stated rate, up to chance in this number of permutations.
            fits = (
                binomtest(int(count), args.permutations, alpha, alternative="greater").pvalue > 0.01
            )
            found = [(f"{count} of {args.permutations} permutations, stated {alpha:g}", fits)]
            print_claim(f"control, permuted labels: false alarms at the stated rate, {test}", found)
    if args.sets:
        found = []
        for cue in [cue for cue in args.cues if cue != CONTROL]:
            ckpt, passes = train(cue, out, []), out / f"planted-{cue}" / "truth" / "passes"
            count = random_tops(ckpt, cue, passes, args.draws, args.sets)
            fits = binomtest(count, args.sets, 0.05, alternative="greater").pvalue > 0.01
            found.append((f"{cue}: {count} of {args.sets} sets, stated 0.05", fits))
        print_claim("random channels in place of the top k: false alarms at 0.05", found)


if __name__ == "__main__":
    prepare_process()
    main()
