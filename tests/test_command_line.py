import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tff.command_line import quote_paths, unify_paths
from tff.errors import readable_errors

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


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data.generators=[2023]", ["2023"]),
        ("data.generators=[1_5,2023,null,progan]", ["1_5", "2023", "null", "progan"]),
        ("data.generators=[true,007,1.10]", ["true", "007", "1.10"]),
        ("data.generators=[0x1F,1e5,NaN]", ["0x1F", "1e5", "NaN"]),
        ("data.generators=2023", "2023"),
        ("data.generators=progan", "progan"),
        ("data.generators=null", None),
        ("data.generators=[]", []),
        ('data.generators=["1_5", a]', ["1_5", "a"]),
        ("data.generators=[a b, c=d,e(f),ü,$x]", ["a b", "c=d", "e(f)", "ü", "$x"]),
        ("data.classes='1_5'", "1_5"),
        ("+discovery.test_only=[5]", ["5"]),
        ("detector.name=1_5", "1_5"),
        ("tags=[1,dev,a:b]", ["1", "dev", "a:b"]),
        ("analyze_options=[images=100,analysis=[audit]]", ["images=100", "analysis=[audit]"]),
        ("logger.wandb.name=007", "007"),
        ("data.root=2023", "2023"),
        ("data.root=a\\", "a\\"),
        ('data.root=a\\"b', 'a\\"b'),
        ("ckpt=[runs/epoch=3.ckpt,b (1).ckpt]", ["runs/epoch=3.ckpt", "b (1).ckpt"]),
        ("runs=[1,2]", ["1", "2"]),
        ("detector.pretrained=true", True),
        ("detector.pretrained=5", "5"),
    ],
)
def test_names_and_paths_come_back_literally(argument, value):
    (quoted,) = quote_paths([argument])
    assert OverridesParser.create().parse_override(quoted).value() == value


def test_each_value_of_a_sweep_over_names_comes_back_literally():
    _, argument = quote_paths(["-m", "data.generators=[2023],1_5,null,choice"])
    override = OverridesParser.create().parse_override(argument)
    assert list(override.sweep_string_iterator()) == ['["2023"]', '"1_5"', "null", "choice"]


@pytest.mark.parametrize("key", ["data.root", "+ckpt", "out"])
def test_the_same_path_reads_the_same_however_it_was_typed(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed in ("a/t", "./a/t", "a/../a/t/", f"{tmp_path}/a/t", "~/a/t"):
        assert unify_paths(f'{key}="{typed}"') == f'{key}="a/t"'
        assert unify_paths(f"{key}=[{typed},/x]") == f"{key}=[a/t,/x]"
    assert unify_paths(f'{key}="../t"') == f'{key}="{tmp_path.parent}/t"'
    assert unify_paths("seed=1") == "seed=1"
    assert unify_paths(f"{key}=null") == f"{key}=null"


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


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes\n differ"), TypeError("no number"), KeyError("name"), IndexError(),
        AttributeError("x"), AssertionError(), RecursionError("deep"), ZeroDivisionError("of 0"),
        type("Own", (Exception,), {})("of a library"),
    ],
)  # fmt: skip
def test_other_errors_are_one_sentence_too(error, capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as end, readable_errors():
        raise error
    assert end.value.code == 1
    printed = " ".join(capsys.readouterr().err.split())
    assert f"Error: {type(error).__name__}: " in printed
    assert "please report it" in printed
    assert "Traceback" not in printed
