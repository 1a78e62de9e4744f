"""Every analysis on a transformer: neurons, heads, and channels of the embedding."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.audit import Audit
from tff.analyses.cams import CAMs
from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import run
from tff.analyses.engine.replay import cache_passes, replay
from tff.analyses.engine.subject import Subject
from tff.analyses.heatmaps import Examples, Heatmaps
from tff.analyses.k_sweep import KSweep
from tff.analyses.median_test import MedianTest
from tff.analyses.mediation import Mediation
from tff.analyses.patches import Patches
from tff.analyses.published import Published
from tff.analyses.ranking import Ranking
from tff.analyses.ranking_agreement import RankingAgreement
from tff.analyses.sensitivity import Sensitivity
from tff.comparisons.checkpoints import Analyzed, combine
from tff.comparisons.emergence import Emergence
from tff.data.folder import Folder
from tff.training.analyze_checkpoints import AnalyzeCheckpoints
from tff.training.module import UniversalDetector

CACHED = {
    "detection": Detection(),
    "ranking": Ranking(),
    "sensitivity": Sensitivity(random_draws=2),
    "k_sweep": KSweep(("omega", "contrast"), [1, 9], instead=("zero", "insert"), random_orders=2),
    "ablation": Ablation(Grayscale()),
    "median_test": MedianTest(Grayscale(), mediated=True),
    "mediation": Mediation(Grayscale(), random_draws=2, channels=3),
}
OTHERS = {
    "patches": Patches(channels=6, images=2),
    "heatmaps": Heatmaps(images=2),
    "examples": Examples(images=1),
    "cams": CAMs(images=1),
    "published": Published(),
    "ranking_agreement": RankingAgreement(),
    "audit": Audit(),
}
K = {"heads": 2, "neurons": "5%", "embedding": 2}  # of 4 heads, 128 neurons, 16 channels


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=6)


@pytest.fixture(scope="module")
def subject(root):
    return tiny.subject(root, tiny.transformer(), k=K)


@pytest.fixture(scope="module")
def results(subject):
    return run(CACHED | OTHERS, subject)


def test_tables_name_the_kind_of_each_channel(results):
    named = [
        (f"{analysis}/{name}", table)
        for analysis, result in results.items()
        for name, table in result.tables.items()
        if {"layer", "channel"} <= set(table)
    ]
    assert {name for name, _ in named} == {
        "ranking/ranking", "median_test/median_test", "median_test/median_test_all",
        "mediation/mediation_channels", "mediation/mediation_all", "patches/patches",
        "patches/filters",
    }  # fmt: skip
    of_layer = {"patch_embed.proj": "embedding", "fc1": "neurons", "attn.proj": "heads"}
    for name, table in named:
        for layer, kind in zip(table["layer"], table["kind"], strict=True):
            assert layer.endswith(next(end for end, of in of_layer.items() if of == kind)), name


def test_tables_of_convolutional_networks_name_none(root):
    for table in Ranking()(tiny.subject(root)).tables.values():
        assert "kind" not in table


def test_findings_say_how_many_of_each_kind_are_on_top(results, subject):
    assert subject.k == 10
    top = results["ranking"].tables["ranking"].head(10)
    assert top["kind"].value_counts().to_dict() == {"neurons": 6, "heads": 2, "embedding": 2}
    (sentence,) = (line for line in results["ranking"].findings if "attention heads" in line)
    assert "2 of 16 channels of the patch embedding, 6 of 128 neurons and 2 of 4 attention" in (
        sentence
    )
    assert "10 of 148 channels (2 embedding, 6 neurons, 2 heads)" in subject.describe()["k"]


def test_peaks_at_tokens_of_the_grid_have_a_row_and_a_column(results, subject):
    table = results["patches"].tables["patches"]
    known = table[table["peak_row"].notna()]
    assert len(known)
    assert known[["peak_row", "peak_column"]].isin(range(8)).all(axis=None)
    assert (table["peak_row"].isna() == table["peak_column"].isna()).all()
    filters = results["patches"].tables["filters"]
    assert (filters["kind"] == "embedding").all()
    assert len(filters) == (table.drop_duplicates("rank")["kind"] == "embedding").sum() > 0


def test_maps_of_activation_are_of_tokens_that_the_class_token_reads(results):
    assert set(results["cams"].tables["cams"]["layer"]) == {"blocks.1.norm1"}


def test_what_constants_keep_does_not_count_as_lost(results):
    found = results["ranking"]
    ledger = found.tables["ledger"].query("images == 'generated'")
    assert ledger["lost_to_constants"].abs().sum() > 0.05
    expected = ledger["lost_at_zero"].abs().sum()
    assert found.scalars["relevance_leak"] == pytest.approx(expected, abs=1e-9)
    assert "does not count as lost" in found.captions["relevance_lost"]
    assert not any("not conserved" in warning for warning in found.warnings)


def test_the_same_ranking_agrees_with_itself(results, subject, tmp_path):
    file = tmp_path / "omega.csv"
    results["ranking"].tables["omega_fake"].to_csv(file, index=False)
    found = RankingAgreement(other=str(file))(subject)
    table = found.tables["ranking_agreement"].set_index("k")
    assert (table["overlap"] == table.index).all()
    assert table.loc[10, "by_chance"] == pytest.approx(2 * 2 / 4 + 6 * 6 / 128 + 2 * 2 / 16)
    assert set(found.tables["ranking_agreement_top"]["kind"]) == {"neurons", "heads", "embedding"}


def test_tables_from_cached_passes_are_the_same(root, results, tmp_path):
    first = cache_passes(tiny.subject(root, tiny.transformer(), k=K), tmp_path)
    run(CACHED, first)
    again = run(CACHED, replay(tmp_path, partial(Subject.of, draws=50, device="cpu", k=K)))
    for name, result in again.items():
        for key, table in result.tables.items():
            pd.testing.assert_frame_equal(table, results[name].tables[key], check_exact=True)


def test_batches_do_not_change_the_ranking(root, results):
    table = Ranking()(tiny.subject(root, tiny.transformer(), k=K, batch_size=5)).tables["ranking"]
    other = results["ranking"].tables["ranking"]
    np.testing.assert_allclose(table["omega"], other["omega"], atol=1e-5)


def test_only_heads(root):
    subject = tiny.subject(root, tiny.transformer(), units=["heads"], k=1)
    table = Ranking()(subject).tables["ranking"]
    assert set(table["kind"]) == {"heads"}
    assert len(table) == 4


def test_checkpoints_side_by_side(results, subject):
    runs = {name: Analyzed(subject, CACHED, results) for name in ("a/best.ckpt", "b/best.ckpt")}
    joined = combine(runs)
    assert set(joined["ranking"].tables["ranking"]["kind"]) == {"neurons", "heads", "embedding"}


def test_checkpoints_of_a_training_are_ranked_and_followed(root, tmp_path):
    pl.seed_everything(1, verbose=False)
    folder = tmp_path / "checkpoints"
    options = {"draws": 10, "confidence": 0.5, "batch_size": 8, "k": {"heads": 1, "neurons": 4}}
    analyses = {"ranking": Ranking(("omega",))}
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=4, logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        default_root_dir=tmp_path,
        callbacks=[
            ModelCheckpoint(folder, "last", enable_version_counter=False,
                            every_n_train_steps=2, save_on_train_epoch_end=False),
            AnalyzeCheckpoints(analyses, partial(Subject.of, **options), 4, str(folder)),
        ],
    )  # fmt: skip
    module = UniversalDetector(tiny.transformer(), partial(torch.optim.Adam, lr=1e-3))
    trainer.fit(module, Folder(root=str(root), batch_size=4, size=32, workers=0))
    result = Emergence(run=str(tmp_path))()
    assert set(result.tables["emergence"]["kind"]) == {"heads", "neurons"}
    row = result.tables["stability"].iloc[0]
    assert row["by_chance"] == pytest.approx(1 * 1 / 4 + 4 * 4 / 128)
