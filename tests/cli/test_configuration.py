"""Options of the composed configuration: each one declared, checked, and its paths full."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from tff.cli.configuration import SECTIONS, _Check, prepare

CONF = Path(__file__).parents[2] / "conf"
HERE = Path("/typed/here")


def composed(name, *overrides):
    """Configuration as `main` of a script gets it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, [*overrides], return_hydra_config=True)
    OmegaConf.set_readonly(cfg.hydra, False)
    with open_dict(cfg), open_dict(cfg.hydra):
        cfg.hydra.runtime.merge_with({"cwd": str(HERE), "output_dir": "/runs/one"})
        cfg.hydra.job.merge_with({"num": 0, "name": name, "config_name": name})
        HydraConfig.instance().cfg = cfg.copy()
        del cfg["hydra"]
    return cfg


def prepared(name, *overrides):
    cfg = composed(name, *overrides)
    prepare(cfg, name)
    return cfg


def refuse(name, option, message):
    with pytest.raises(ValueError) as caught:
        prepared(name, *option.split())
    assert str(caught.value).startswith(message), str(caught.value)
    assert "\n" not in str(caught.value)


ROOTS = "data=folder data.root=DIR "


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("images=0", "images=0: expected a whole number of at least 1, or null"),
        ("images=-1", "images=-1: expected"),
        ("images=1.5", "images=1.5: expected"),
        ("images=abc", "images=abc: expected"),
        ("images=true", "images=True: expected"),
        (f"{ROOTS}data.limit=0", "data.limit=0: expected a whole number of at least 1, or null"),
        (f"{ROOTS}data.limit=-1", "data.limit=-1: expected"),
        (f"{ROOTS}data.generators=[]", "data.generators=[]: expected a list of names"),
        (f"{ROOTS}data.generators=[null]", "data.generators=[None]: expected a list of names"),
        (f"{ROOTS}data.classes=1.5", "data.classes=1.5: expected a list of names"),
        (f"{ROOTS}data.crop=center0", "data.crop=center0: expected none, or center"),
        (f"{ROOTS}data.match_format=maybe", "data.match_format=maybe: expected true or false"),
        (f"{ROOTS}+data.crops=none", "data.crops: there is no such option; did you mean crop"),
        ("data=folder data.root=''", "data.root=: expected a path"),
        ("data=folder", "data.root is needed: pass data.root=..."),
        ("subject.confidence=abc", "subject.confidence=abc: expected a number from 0 to 1"),
        ("subject.draws=1.5", "subject.draws=1.5: expected a whole number"),
        ("subject.batch_size=abc", "subject.batch_size=abc: expected a whole number"),
        ("subject.seed=abc", "subject.seed=abc: expected a whole number"),
        ("subject.device=gpu7", "subject.device=gpu7: expected auto, cpu, or"),
        ("subject.device=cuda:99", "subject.device=cuda:99: expected auto, cpu, or"),
        ("subject.k=0", "subject.k=0: expected"),
        ("trainer.devices=abc", "trainer.devices=abc: expected"),
        ("trainer.devices=0", "trainer.devices=0: expected"),
        ("trainer.accelerator=abacus", "trainer.accelerator=abacus: expected"),
        ("seed=abc", "seed=abc: expected a whole number from 0"),
        ("seed=-1", "seed=-1: expected"),
        ("relevance.max_leak=-1", "relevance.max_leak=-1: expected a number of at least 0"),
        ("relevance.rule=z", "relevance.rule=z: expected one of auto, zplus"),
        ("~relevance", "subject.relevance: Interpolation key 'relevance' not found"),
        ("+relevanze=1", "relevanze: there is no such option; did you mean relevance"),
        ("resume=maybe", "resume=maybe: expected one of auto, True, False, or null"),
        ("resume=1", "resume=1: expected one of"),
        ("ablation=blur ablation.sigma=1e400", "ablation.sigma=inf: expected a number above 0"),
        ("ablation._target_=tff.ablations.nope", "ablation._target_=tff.ablations.nope: cannot be"),
        ("report.protocol.crop=middle", "report.protocol.crop=middle: expected none, or center"),
        ("out=null", "out=None: expected a path"),
        ("ckpt=[]", "ckpt=[]: expected a path, or a list"),
    ],
)
def test_values_of_the_analysis_that_are_refused(option, message):
    refuse("analyze", option, message)


def test_at_least_one_analysis():
    refuse("analyze", "analysis=[]", "analysis is needed: pass analysis=")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("module.optimizer.lr=abc", "module.optimizer.lr=abc: expected a number above 0"),
        ("module.optimizer.lr=-1", "module.optimizer.lr=-1: expected"),
        ("module.optimizer.lr=nan", "module.optimizer.lr=nan: expected"),
        ("+module.optimizer.wait=1", "module.optimizer.wait: there is no such option"),
        ("module.compile=maybe", "module.compile=maybe: expected true or false"),
        ("module.scheduler=bogus", "module.scheduler=bogus: expected a class, such as"),
        ("data.batch_size=0", "data.batch_size=0: expected a whole number of at least 1"),
        ("data.batch_size=1.5", "data.batch_size=1.5: expected"),
        ("data.batch_size=abc", "data.batch_size=abc: expected"),
        ("trainer.max_epochs=abc", "trainer.max_epochs=abc: expected"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: expected"),
        ("+trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: expected"),
        ("+trainer.val_check_interval=0", "trainer.val_check_interval=0: expected"),
        ("+trainer.precision=maybe", "trainer.precision=maybe: expected one of"),
        ("trainer.strategy=bogus", "trainer.strategy=bogus: expected auto, or a strategy"),
        ("aug.probability=2", "aug.probability=2: expected a number from 0 to 1"),
        ("data.size=abc", "data.size=abc: expected"),
        ("tags=dev", "tags=dev: expected a list"),
        ("analyze=maybe", "analyze=maybe: expected one of True, False, auto"),
        ("callbacks.last.minutes=0", "callbacks.last.minutes=0: expected a number above 0, or"),
        ("callbacks.best.mode=up", "callbacks.best.mode=up: expected one of min, max"),
        ("callbacks.analyze.subject.draws=0", "callbacks.analyze.subject.draws=0: expected"),
        ("~callbacks", "callbacks is needed"),
        ("detector.name=5", "detector.name=5: expected text"),
        ("detector.pretrained=1", "detector.pretrained=1: expected true or false, or a path"),
    ],
)
def test_values_of_the_training_that_are_refused(option, message):
    refuse("train", option, message)


def test_paths_are_full_and_start_where_the_command_was_typed():
    cfg = prepared("train", "data=folder", "data.root=tree/../t", "ckpt=a.ckpt")
    assert cfg.data.root == cfg.origin.data.root == "/typed/here/t"
    assert cfg.ckpt == "/typed/here/a.ckpt"
    assert cfg.data.cache == "/typed/here/outputs/cache"
    assert cfg.callbacks.best.dirpath == "/runs/one/checkpoints"
    cfg = prepared(
        "analyze", 'ckpt=[a.ckpt,"~/b.ckpt"]', "analysis=[ranking_agreement,heatmaps]",
        "analysis.heatmaps.files=[a.png]", "runs=[x-*,/y]",
    )  # fmt: skip
    assert list(cfg.ckpt) == ["/typed/here/a.ckpt", str(Path.home() / "b.ckpt")]
    assert cfg.analysis.ranking_agreement.other == "published"
    assert list(cfg.analysis.heatmaps.files) == ["/typed/here/a.png"]
    assert list(cfg.runs) == ["/typed/here/x-*", "/y"]


def test_a_name_that_is_a_number_is_taken_as_the_name():
    prepared("analyze", "data=folder", "data.root=t", "data.generators=[2023]", "data.classes=5")


class Undeclared(_Check):
    """Collects the options without declared values."""

    def option(self, parts, allowed, nested=True):
        name, refers = self._name(parts)
        if allowed is None and not refers and nested:
            self.found.append(name)
        super().option(parts, allowed, nested)


def choices():
    for group in sorted(path for path in CONF.rglob("*") if path.is_dir()):
        name = group.relative_to(CONF).as_posix()
        if name.split("/")[0] in ("hydra", "hparams_search", "report"):
            continue
        for choice in sorted(path.stem for path in group.glob("*.yaml")):
            if (name, choice) != ("data", "common"):
                yield name, choice


@pytest.mark.parametrize(("group", "choice"), choices())
def test_every_option_declares_its_values(group, choice):
    given = f"{group}=[{choice}]" if group == "analysis" else f"{group}={choice}"
    roots = (
        ["data.root=DIR"] if "root: ???" in (CONF / group / f"{choice}.yaml").read_text() else []
    )
    if group == "experiment" and choice not in ("demo", "planted"):
        roots = ["data.root=DIR"]
    if group == "trainer":
        roots.append("trainer.accelerator=cpu")  # a GPU may be absent
    scripts = [
        script for script in SECTIONS
        if (CONF / f"{script}.yaml").read_text().find(f"- {group}: ") >= 0
    ]  # fmt: skip
    assert scripts
    for script in scripts:
        if (script, choice) == ("train", "checkpoint"):
            continue
        check = Undeclared(composed(script, given, *roots), HERE)
        check.found = []
        check.section(SECTIONS[script], ())
        assert not check.found
