"""Options and fixtures of all tests: one seed for random inputs, profiles, tiny trained things."""

import secrets
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from tests.helpers import machine_faults, scripts, tiny

# Grouped convolutions in float64 synchronise their threads once per group: on a busy machine two
# threads take minutes where one takes seconds.
torch.set_num_threads(1)

# `make test` takes the first, `make test-full` the second (--hypothesis-profile=full).
settings.register_profile("fast", max_examples=25, deadline=None, print_blob=True)
settings.register_profile("full", max_examples=300, deadline=None, print_blob=True)
settings.load_profile("fast")


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="seed of all random inputs (default: a new one)")


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its own option
def pytest_configure(config):
    """Draw the seed once; pytest-xdist hands the options to its workers."""
    # A shell starts jobs in the background with SIGINT ignored, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed is None:
        config.option.seed = secrets.randbits(32)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = config.option.seed


def pytest_sessionstart(session):
    # Not pytest_report_header: `-q` hides the header.
    if reporter := session.config.pluginmanager.getplugin("terminalreporter"):
        reporter.write_line(f"random inputs: --seed {session.config.option.seed}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        report.sections.append(("Random inputs", f"repeat with --seed {item.config.option.seed}"))
    return report


@pytest.fixture(scope="session")
def seed(pytestconfig) -> int:
    """Seed of this run, for fixtures that live longer than one test."""
    return pytestconfig.option.seed


@pytest.fixture
def rng(seed, request) -> np.random.Generator:
    """Generator of a test's random inputs: new in each run, the same for the same --seed."""
    return np.random.default_rng([seed, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(autouse=True)
def own_port(monkeypatch):
    """Without the address that processes of an earlier test have left: all jobs would share it."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def image_tree(tmp_path_factory) -> Path:
    """Image folder of two generators, 6 images of each label in 32x32 (read only)."""
    return tiny.tree(tmp_path_factory.mktemp("image_tree"))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """Folder with `images` and the finished `run` of a tiny training on them (read only).

    `train.py` makes it once for all workers of pytest-xdist: one epoch of `test_resnet` without
    pretrained weights (machine_faults.TRAIN) on two generators, 12 images of each label in 32x32.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if folder.name.startswith("popen-") else folder) / "trained_run"
    with FileLock(f"{folder}.lock"):
        if not (folder / "run" / "finished.json").exists():
            images = tiny.tree(folder / "images", images=12)
            scripts.run(
                "train.py", *machine_faults.TRAIN, f"data.root={images}", "data.workers=0",
                "trainer.max_epochs=1", f"hydra.run.dir={folder / 'run'}",
            )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def hostile() -> str:
    """A name that tries to inject HTML, a template and rich markup."""
    return "<script>alert('x')</script>\"'&{{ 7 * 7 }}[/bold]"
