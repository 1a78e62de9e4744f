"""A finished run is reused only with the options that it was trained with."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from tff.cli import run_folder
from tff.cli.analyze import prepare_analysis
from tff.cli.run_folder import (
    ProtectRun,
    finished_result,
    lock_folder,
    require_same_options,
    write_result,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def composed(tmp_path, monkeypatch):
    """Settings of a training in `out`, as Hydra hands them to `main`."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)

    def compose_one(*options, mode="RUN"):
        cfg = compose("train", [*options, f"hydra.mode={mode}"], return_hydra_config=True)
        cfg.hydra.runtime.output_dir = str(tmp_path / "out")
        cfg.hydra.run.dir = str(tmp_path / "out")
        HydraConfig.instance().set_config(cfg)
        return cfg

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield compose_one


@pytest.fixture
def done(tmp_path):
    """Makes a finished run in `out`; with `files` of its own."""

    def make(*options, files=("checkpoints/best.ckpt", "checkpoints/last.ckpt")):
        for name in files:
            path = tmp_path / "out" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        write_result(tmp_path / "out", 0.5, {}, 1.0, list(options))
        return tmp_path / "out"

    return make


SAME = [
    (["seed=1", "aug=none"], ["aug=none", "seed=1"]),
    (["seed=1"], ["seed=1", "resume=auto", "tags=[x]", "logger=wandb", "+logger.wandb.notes=n"]),
    (["seed=1", "callbacks.analyze.images=4", "analyze=false"], ["seed=1", "analyze=auto"]),
    (["seed=1", "seed=2"], ["seed=2"]),
]


@pytest.mark.parametrize(("then", "now"), SAME)
def test_the_same_run(done, then, now):
    require_same_options(done(*then), now)


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        (["seed=1"], ["seed=2"], "seed: 1 then, 2 now"),
        ([], ["seed=2"], "seed: not given then, 2 now"),
        (["trainer.max_epochs=1"], [], "trainer.max_epochs: 1 then, not given now"),
        (["aug=none"], ["aug=none", "~callbacks.best"], "~callbacks.best: not given then,  now"),
    ],
)
def test_another_one_is_refused_by_name(done, then, now, told):
    out = done(*then)
    with pytest.raises(ValueError) as refused:
        require_same_options(out, [*now, "resume=auto"])
    assert str(out) in str(refused.value)
    assert f"({told})" in str(refused.value)
    assert "hydra.run.dir=DIR" in str(refused.value)


def test_a_folder_that_is_not_finished_takes_any(tmp_path, composed):
    require_same_options(tmp_path, ["seed=1"])
    assert finished_result(composed("seed=1", "resume=auto")) is None


def test_an_experiment_in_a_folder_of_its_own(done, composed):
    out = done("experiment=demo")
    assert finished_result(composed("experiment=demo", "resume=auto"))["objective"] == 0.5
    with pytest.raises(ValueError, match="seed: not given then, 5 now"):
        finished_result(composed("experiment=demo", "seed=5", "resume=auto"))
    with pytest.raises(SystemExit):
        ProtectRun().on_run_start(config=composed("experiment=demo", "seed=5", "resume=auto"))
    ProtectRun().on_run_start(config=composed("experiment=demo", "seed=5"))  # begins it anew
    ProtectRun().on_run_start(config=composed("experiment=demo", "resume=auto"))
    assert list(out.glob(".hydra")) == []


def test_the_guard_sees_who_is_there(tmp_path, composed, capsys):
    cfg = composed("seed=1")
    with lock_folder(tmp_path / "out"), pytest.raises(SystemExit) as ended:
        ProtectRun().on_run_start(config=cfg)
    assert ended.value.code == 1
    assert "another training is running" in capsys.readouterr().err
    ProtectRun().on_run_start(config=cfg)


@pytest.mark.parametrize("options", [(), ('analyze_options=["images=4"]',)])
def test_an_analysis_requested_later_is_still_run(done, composed, options):
    asked_for = ("seed=1", "resume=auto", "analyze=true", *options)
    out = done("seed=1")
    assert finished_result(
        composed("seed=1", "resume=auto")
    )  # `auto`: none after a single training
    assert finished_result(composed(*asked_for)) is None
    assert finished_result(composed("seed=1", "resume=auto", mode="MULTIRUN")) is None
    (out / "report").mkdir()
    (out / "report" / "summary.json").write_text("{}")
    assert bool(finished_result(composed(*asked_for))) == (not options)  # made with others
    done(*asked_for)
    assert finished_result(composed(*asked_for))


def test_a_run_that_cannot_be_analyzed_is_finished_or_refused(done, composed):
    options = ("resume=auto", "analyze=true")
    assert finished_result(composed(*options)) is None
    done(files=())
    assert finished_result(composed(*options))
    done(files=["checkpoints/best.ckpt"])
    with pytest.raises(ValueError, match=r"last.ckpt is gone; .* analyze.py ckpt=.*best.ckpt"):
        finished_result(composed(*options))


def test_an_unknown_value_of_analyze_is_refused(composed):
    with pytest.raises(ValueError, match="analyze=often: expected"):
        run_folder.is_analysis_wanted(composed("analyze=often").analyze)


def analysis(cfg, tmp_path):
    (settings,) = prepare_analysis(cfg).items()
    assert settings[0] == str(tmp_path / "out" / "checkpoints" / "best.ckpt")
    return settings[1]


def test_the_analysis_follows_the_training_in_single_values_too(tmp_path, composed):
    one = analysis(
        composed(
            "analyze=true", "relevance.rule=epsilon", "trainer=ddp", "trainer.devices=4",
            "trainer.accelerator=cpu",
            "+trainer.gradient_clip_val=1", "ablation=blur", "ablation.sigma=5",
        ),
        tmp_path,
    )  # fmt: skip
    assert (one.relevance.rule, one.relevance.alpha) == ("epsilon", 2)
    assert (one.trainer.strategy, one.trainer.devices) == ("ddp", 4)
    assert (one.ablation["_target_"], one.ablation.sigma) == ("tff.ablations.frequency.Blur", 5)
    assert one.out == str(tmp_path / "out")
    # The former training of a sweep leaves nothing behind.
    one = analysis(composed("analyze=true"), tmp_path)
    assert one.ablation == {"_target_": "tff.ablations.color.Grayscale"}
    assert (one.relevance.rule, one.trainer.devices) == ("auto", 1)


def test_the_analysis_follows_an_experiment(tmp_path, composed):
    cfg = composed("experiment=demo", "analyze=true")
    cfg.relevance.rule = "flat"  # as an experiment may set it
    assert analysis(cfg, tmp_path).relevance.rule == "flat"


def test_options_of_the_analysis_come_last(tmp_path, composed):
    chosen = 'analyze_options=["ablation=resize","relevance.rule=gamma","images=3"]'
    one = analysis(
        composed("analyze=true", "ablation=blur", "ablation.sigma=5", "relevance.box=false",
                 "relevance.rule=epsilon", chosen),
        tmp_path,
    )  # fmt: skip
    assert "sigma" not in one.ablation
    assert (one.relevance.rule, one.relevance.box, one.images) == ("gamma", False, 3)


@pytest.mark.parametrize("option", ["subject.kk=3", "ablation=nothing", "images"])
def test_a_mistyped_option_of_the_analysis_is_reported_before_the_training(composed, option):
    cfg = composed("analyze=true", f'analyze_options=["{option}"]')
    with pytest.raises(ValueError, match=r"^analyze_options=\['"):
        prepare_analysis(cfg)


def test_no_analysis_is_requested(composed, monkeypatch):
    assert prepare_analysis(composed()) == {}
    assert prepare_analysis(composed("analyze=false", mode="MULTIRUN")) == {}
    assert prepare_analysis(composed(mode="MULTIRUN"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert prepare_analysis(composed("analyze=true")) == {}
