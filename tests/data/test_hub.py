"""Sets on a hub of our own."""

from __future__ import annotations

import json
import time

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from tff.data.download import hub, transfer
from tff.data.download.__main__ import main
from tff.data.download.fetch import RECORD
from tff.data.download.sources import HubFiles

FILES = {
    "README.md": b"words",
    "data/train-0.parquet": b"0" * 5000,
    "data/train-1.parquet": b"1" * 5000,
}
PARQUET = HubFiles("owner/set", ["data/*.parquet"])


@pytest.fixture
def repo(server, monkeypatch, tmp_path):
    server.add_repo("owner/set", FILES)
    monkeypatch.setenv("HF_ENDPOINT", server.url())
    return server


def declare(folder, **hub):
    text = {"repo": "owner/set", "files": ["data/*.parquet"]} | hub
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.yaml").write_text(
        f"page: p\nlicence: l\nsplits: {{train: {{into: train, hub: {json.dumps(text)}}}}}\n"
    )
    return folder


def fetch(tmp_path, *more, **hub):
    sources = declare(tmp_path / "sets", **hub)
    return main(["own", "split=train", f"to={tmp_path / 'it'}", *more], sources)


def error_of(capsys, *args, **options):
    with pytest.raises(SystemExit):
        fetch(*args, **options)
    return " ".join(capsys.readouterr().err.split())


def test_files_of_a_repository(repo, tmp_path, disk, capsys, caplog):
    caplog.set_level("INFO", "tff")
    assert fetch(tmp_path) == 0
    folder = tmp_path / "it/train"
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.parquet")}
    assert found == {name: content for name, content in FILES.items() if name != "README.md"}
    assert capsys.readouterr().out == f"{folder}\n"
    assert caplog.text.count("its SHA-256 is the published one") == 2
    record = json.loads((folder / RECORD).read_text())
    assert record["owner/set@main"]["commit"] == "c" * 40
    assert record["data/train-0.parquet"]["verified"]
    asked = len(repo.asked)
    assert fetch(tmp_path) == 0
    assert len(repo.asked) == asked  # complete: nothing is asked


def test_a_branch_that_moves_does_not_mix_two_versions(repo, tmp_path, disk, capsys):
    repo.plan = [{}, {"status": 404}]
    assert "answers 404" in error_of(capsys, tmp_path)
    repo.add_repo("owner/set", FILES, commit="d" * 40)
    assert "no revision cccc" in error_of(capsys, tmp_path)


def test_a_file_is_resumed(repo, tmp_path, disk, capsys):
    repo.plan = [{}, {"cut": 3000}, {"status": 503}]
    assert "answers 503" in error_of(capsys, tmp_path)
    assert fetch(tmp_path) == 0
    assert repo.ranges == [None, None, "bytes=3000-", "bytes=3000-"]


def test_a_pinned_revision(repo, tmp_path, disk, capsys):
    assert fetch(tmp_path, revision="c" * 40) == 0
    assert "no revision dddd" in error_of(capsys, tmp_path / "other", revision="d" * 40)


def test_mirror(repo, server, tmp_path, disk, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(tmp_path, f"mirror={server.url()}") == 0


def test_file_with_another_checksum_than_on_the_hub(repo, tmp_path, disk, capsys):
    repo.plan = [{"content": b"x" * 5000}]
    assert "is not the published one" in error_of(capsys, tmp_path)


def test_gated(repo, tmp_path, disk, capsys, monkeypatch):
    repo.add_repo("owner/set", FILES, gated=True)
    assert "Log in there and accept the conditions" in error_of(capsys, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "good")
    assert fetch(tmp_path) == 0
    assert repo.tokens[-1] == "Bearer good"


def test_no_such_repository_or_file(repo, tmp_path, disk, capsys):
    assert "no such data set, or it is private" in error_of(capsys, tmp_path, repo="owner/none")
    assert "no file *.zip at revision main" in error_of(capsys, tmp_path, files=["*.zip"])


def test_no_connection(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"9/datasets/owner/set: no connection .*HF_ENDPOINT=URL"):
        hub.list_files(PARQUET, "main")


def test_offline(repo, monkeypatch):
    def refuse(*args, **options):
        raise OfflineModeIsEnabled

    monkeypatch.setattr(hub.HfApi, "dataset_info", refuse)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE=1 is set"):
        hub.list_files(PARQUET, "main")


@pytest.mark.parametrize("name", ["data/../../x.parquet", "data/\x1b.parquet"])
def test_unsafe_file_names_from_the_hub(server, monkeypatch, name):
    server.add_repo("owner/set", {name: b"1"})
    with pytest.raises(ValueError, match=r"its file .* has (`\.\.`|a control character) in its"):
        hub.list_files(PARQUET, "main", server.url())


def test_a_hub_that_answers_with_another_commit(server, monkeypatch):
    server.add_repo("owner/set", FILES)
    server.repos["owner/set"]["commit"] = "d" * 40
    with pytest.raises(ValueError, match="no revision cccc"):
        hub.list_files(PARQUET, "c" * 40, server.url())


def test_a_hub_that_answers_too_slowly(server, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.3)
    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda *_args, **_options: time.sleep(20))
    with pytest.raises(ValueError, match=r"owner/set: the server is too slow .*HF_ENDPOINT=URL"):
        hub.list_files(PARQUET, "main", server.url())
