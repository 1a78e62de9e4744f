"""Secrets do not leave the machine."""

import pytest

from tff.training.wandb_logger import HIDDEN, WeightsAndBiases, finish_loggers, hide_secrets


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("MY_HUB_TOKEN", "s3cr3t-of-mine")
    return "s3cr3t-of-mine"


def test_secrets_are_hidden_wherever_they_stand(secret):
    config = {
        "api_key": "abc",
        "data": [{"root": f"/mnt/{secret}/x"}, "https://me:pass@host/x", ("hf://a@b", 3)],
        secret: True,
        "tokens": 5,
        "password": None,
    }
    assert hide_secrets(config) == {
        "api_key": HIDDEN,
        "data": [{"root": f"/mnt/{HIDDEN}/x"}, f"https://{HIDDEN}@host/x", [f"hf://{HIDDEN}@b", 3]],
        HIDDEN: True,
        "tokens": 5,
        "password": None,
    }


def test_what_is_no_secret_stays(monkeypatch):
    monkeypatch.setenv("OTHER_TOKEN", "a")  # would be found in any text
    monkeypatch.setenv("MONKEY", "banana")
    config = {"key_frames": "banana", "data": {"root": "a@b", "size": 1.5, "classes": None}}
    assert hide_secrets(config) == config


def test_no_file_of_a_run_holds_a_secret(tmp_path, secret, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    mine = WeightsAndBiases("tff", str(tmp_path), [], None, config={"root": f"/{secret}"})
    mine.log_metrics({"a": 1.0}, 1)
    finish_loggers([mine])
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(HIDDEN.encode() in content for content in files.values())
    for path, content in files.items():
        assert secret.encode() not in content, path
        assert b"f" * 40 not in content, path
