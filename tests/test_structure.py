"""The house rules that a machine can check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_imports_go_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_scripts_are_short():
    for name in ("train.py", "analyze.py"):
        assert len((ROOT / name).read_text().splitlines()) < 60


def test_packages_re_export_nothing():
    for path in SOURCES:
        if path.name == "__init__.py":
            (docstring,) = ast.parse(path.read_text()).body
            assert isinstance(docstring, ast.Expr), path


def test_no_utils():
    for path in SOURCES:
        assert path.stem not in ("utils", "helpers", "misc")


def test_every_yaml_target_is_a_file_of_its_own():
    for path in (ROOT / "conf").rglob("*.yaml"):
        for target in re.findall(r"_target_: (tff\.[\w.]+)", path.read_text()):
            module = ROOT / "src" / Path(*target.split("."))
            while not module.with_suffix(".py").is_file():
                module = module.parent
                assert module != ROOT / "src", f"{path}: {target}"
