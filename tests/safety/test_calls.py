"""No call in the source can run code from a file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / "src").rglob("*.py")), ROOT / "train.py", ROOT / "analyze.py"]
NEVER = {
    "eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.loads", "shelve.open", "joblib.load", "pd.read_pickle", "pd.eval", "np.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "torch.hub.load",
    "torch.package.PackageImporter", "torch.export.load", "tarfile.open", "shutil.unpack_archive",
    "ssl._create_unverified_context",
}  # fmt: skip
# Methods of data frames, archives and Lightning classes.
NEVER_METHODS = {"load_from_checkpoint", "extractall", "to_pickle", "read_pickle"}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


def wrong(name: str, call: ast.Call) -> bool:
    options = {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name == "torch.load" or name.endswith("trainer.fit"):
        return options.get("weights_only") != "True"
    if name.endswith((".query", ".eval")) and call.args:  # of a data frame: code in a string
        return not isinstance(call.args[0], ast.Constant)
    if name.endswith("Image.open"):  # restricts `formats`, except for images that we encoded
        return "formats" not in options and ast.unparse(call.args[0]).startswith("str")
    return (
        name in NEVER
        or name.rpartition(".")[2] in NEVER_METHODS
        or options.get("shell") == "True"
        or options.get("allow_pickle") == "True"
        or options.get("trust_remote_code") == "True"
        or (options.get("weights_only") == "False" and "save" not in name)
        or options.get("autoescape") == "False"
        or options.get("verify") == "False"
    )


def test_no_call_can_run_code_from_a_file():
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        for path in FILES
        for name, call in calls(path)
        if wrong(name, call)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(p)",
        "self.trainer.fit(module)", "pickle.load(file)", "Net.load_from_checkpoint(path)",
        "run(x, shell=True)", "eval(text)", "table.query(f'a == {name}')", "Image.open(stream)",
        "archive.extractall(folder)",
    ],
)  # fmt: skip
def test_dangerous_calls_are_detected(text, tmp_path):
    (tmp_path / "x.py").write_text(text)
    ((name, call),) = calls(tmp_path / "x.py")
    assert wrong(name, call)


def test_all_loaders_are_covered():
    names = [name for path in FILES for name, _ in calls(path)]
    assert "torch.load" in names
    assert "trainer.fit" in names
    assert names.count("Image.open") >= 3
