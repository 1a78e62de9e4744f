"""Rules of the code base that a program can check."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_imports_go_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_the_import_contract_names_every_module():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = tools["importlinter"]["contracts"]
    named = [module for layer in contract["layers"] for module in layer.split(" | ")]
    package = ROOT / "src/tff"
    modules = [*package.glob("*.py"), *(path.parent for path in package.glob("*/__init__.py"))]
    assert sorted(named) == sorted(f"tff.{p.stem}" for p in modules if p.stem != "__init__")


def test_scripts_are_short():
    for name in ("train.py", "analyze.py"):
        assert len((ROOT / name).read_text().splitlines()) < 60


def test_init_files_hold_only_a_docstring():
    for path in SOURCES:
        if path.name == "__init__.py":
            docstring, *rest = ast.parse(path.read_text()).body
            assert isinstance(docstring, ast.Expr), path
            # The package itself also keeps albumentations off the network.
            assert not rest or path == ROOT / "src" / "tff" / "__init__.py", path


def test_no_module_is_called_utils():
    for path in SOURCES:
        assert path.stem not in ("utils", "helpers", "misc")


def test_every_target_in_conf_exists():
    for path in (ROOT / "conf").rglob("*.yaml"):
        for target in re.findall(r"_target_: (tff\.[\w.]+)", path.read_text()):
            module = ROOT / "src" / Path(*target.split("."))
            while not module.with_suffix(".py").is_file():
                module = module.parent
                assert module != ROOT / "src", f"{path}: {target}"
