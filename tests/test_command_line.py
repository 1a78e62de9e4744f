import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tff.errors import quote_paths, readable_errors

NASTY = [
    "runs/epoch=3-step=10.ckpt", "a (1).ckpt", "[x].ckpt", "a,b.ckpt", "it's.ckpt", "{x}.ckpt",
    "with space.ckpt", "ünïcode.ckpt", 'quo"te.ckpt', "1e5", "a:b", "$x", "a\\b", "100%.ckpt",
]  # fmt: skip


@pytest.mark.parametrize("path", NASTY)
def test_paths_come_back_literally(path):
    (argument,) = quote_paths([f"ckpt={path}"])
    assert OverridesParser.create().parse_override(argument).value() == path


@pytest.mark.parametrize(
    "argument",
    ["ckpt=null", "ckpt='a=b'", 'ckpt="a=b"', "ckpt=a\\=b", "ckpt=${out}/x", "seed=1", "--help"],
)
def test_the_rest_stays_as_it_is(argument):
    assert quote_paths([argument]) == [argument]


def test_a_sweep_over_checkpoints_keeps_its_commas():
    assert quote_paths(["-m", "ckpt=a.ckpt,b.ckpt"]) == ["-m", "ckpt=a.ckpt,b.ckpt"]


def test_a_list_of_checkpoints_stays_a_list():
    argument = "ckpt=[a/best.ckpt,b/best.ckpt]"
    assert quote_paths([argument]) == [argument]
    parsed = OverridesParser.create().parse_override(argument).value()
    assert parsed == ["a/best.ckpt", "b/best.ckpt"]


def test_a_protocol_is_chosen_with_a_dot_too():
    assert quote_paths(["report.protocol=tff2022"]) == ["report/protocol=tff2022"]
    argument = "report.protocol.threshold=oracle"
    assert quote_paths([argument]) == [argument]


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert quote_paths(["ckpt=~/x.ckpt"]) == ['ckpt="/home/me/x.ckpt"']


def test_errors_end_in_one_sentence(capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as end, readable_errors():
        raise ValueError("k=0: must be [more]")
    assert end.value.code == 1
    assert "Error: k=0: must be [more]" in capsys.readouterr().err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="k=0"), readable_errors():
        raise ValueError("k=0")


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), readable_errors():
        raise ZeroDivisionError
