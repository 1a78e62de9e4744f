"""Experiments with a frozen tower, from training to report, with tiny towers at random."""

import pandas as pd
import pytest
from tests.helpers import scripts, tiny

TOWERS = {
    "ufd_clip_linear": ["detector.name=vit_xsmall_patch16_clip_224", "detector.image_size=32"],
    "dinov3_convnext": ["detector.name=test_convnext"],
}


@pytest.mark.parametrize("name", TOWERS)
def test_a_head_is_trained_on_kept_features_and_analysed(name, tmp_path):
    for seed, split in enumerate(("train", "val", "test")):
        tiny.tree(tmp_path / "images" / split, images=8, size=40, seed=seed)
    root, out = tmp_path / "images", tmp_path / "run"
    scripts.run(
        "train.py", f"experiment={name}", "data=folder", f"data.root={root}", *TOWERS[name],
        "detector.pretrained=false", "data.size=32", "data.crop=center32", "aug.resize=null",
        "data.batch_size=8", "data.workers=0", f"data.cache={tmp_path / 'cache'}", "data.views=2",
        "trainer.max_epochs=3", "trainer.accelerator=cpu", "module.optimizer.lr=0.1",
        "callbacks.analyze=null", "logger=none", f"hydra.run.dir={out}",
    )  # fmt: skip
    kept = {path.name.partition("-")[0] for path in (tmp_path / "cache/features").iterdir()}
    assert kept == {"train", "val"}
    scripts.run(
        "analyze.py", f"ckpt={out / 'checkpoints/best.ckpt'}", "analysis=[detection,ranking]",
        "subject.confidence=0.5", "subject.device=cpu", "subject.draws=20", "images=4",
        f"hydra.run.dir={tmp_path / 'report'}",
    )  # fmt: skip
    table = pd.read_csv(tmp_path / "report/report/tables/omega_fake.csv")
    assert table["mean_relevance"].max() > 0
