"""Jobs on one machine meet at ports of their own."""

import socket

import pytest
from lightning_fabric.plugins.environments import LightningEnvironment

from tff.cli import launch
from tff.cli.launch import manage_processes


def test_a_port_that_is_in_use_is_not_taken(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        used = taken.getsockname()[1]
        monkeypatch.setattr(launch, "PORTS", [used] * 50 + [used + 1] * 50)
        assert launch.free_port() == used + 1


def test_none_is_free(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        monkeypatch.setattr(launch, "PORTS", range(used := taken.getsockname()[1], used + 1))
        monkeypatch.setattr(launch.random.SystemRandom, "sample", lambda _, them, __: list(them))
        with pytest.raises(OSError, match="no free port found"):
            launch.free_port()


def test_lightning_takes_it_unless_another_one_is_set(monkeypatch):
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with manage_processes():
        assert len({LightningEnvironment().main_port for _ in range(20)} - {0}) > 1
        assert LightningEnvironment().main_port in launch.PORTS
        monkeypatch.setenv("MASTER_PORT", "5")
        assert LightningEnvironment().main_port == 5
