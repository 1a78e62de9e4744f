"""Checks of options: what is allowed, what is refused, and in which words."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from tff.options import checked, each, interval, number, one_of, some_of, whole


@dataclass(frozen=True)
@checked("group")
class Example:
    sigma: Annotated[float, number(above=0, most=100)] = 1.0
    count: Annotated[int | None, whole(1)] | None = None
    mode: Literal["zero", "mean"] = "zero"
    names: Annotated[tuple[str, ...], some_of(["a", "b"])] = ("a",)
    ks: Annotated[tuple[int, ...], each(whole(1))] = ()
    free: str = "anything"

    def __post_init__(self):
        if self.free == "odd":
            raise ValueError("the own check")


def test_defaults_and_allowed_values():
    Example()
    Example(100, 1, "mean", ["b", "a"], [1, 2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma": 0}, "group.sigma=0: expected a number above 0 and at most 100"),
        ({"sigma": True}, "group.sigma=True: expected a number above 0 and at most 100"),
        ({"sigma": float("nan")}, "group.sigma=nan: expected a number above 0 and at most 100"),
        ({"sigma": float("inf")}, "group.sigma=inf: expected a number above 0 and at most 100"),
        ({"sigma": "1"}, "group.sigma=1: expected a number above 0 and at most 100"),
        ({"sigma": None}, "group.sigma=None: expected a number above 0 and at most 100"),
        ({"count": 0}, "group.count=0: expected a whole number of at least 1, or null"),
        ({"count": 1.0}, "group.count=1.0: expected a whole number of at least 1, or null"),
        ({"mode": "x"}, "group.mode=x: expected one of zero, mean"),
        ({"mode": ["zero"]}, "group.mode=['zero']: expected one of zero, mean"),
        ({"names": "a"}, "group.names=a: expected a list of different names from a, b"),
        ({"names": []}, r"group.names=[]: expected a list of different names from a, b"),
        ({"names": ["a", "a"]}, "group.names=['a', 'a']: expected a list of different names"),
        ({"names": ("c",)}, "group.names=['c']: expected a list of different names from a, b"),
        ({"ks": [1, 0]}, "group.ks=[1, 0]: expected a list, each element a whole number of at"),
        ({"ks": 3}, "group.ks=3: expected a list, each element a whole number of at least 1"),
        ({"free": "odd"}, "the own check"),
    ],
)
def test_messages(given, message):
    with pytest.raises(ValueError) as error:
        Example(**given)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("ends", [[1, 1], (0, 5)])
def test_interval(ends):
    interval(whole(0)).require("a", ends)


@pytest.mark.parametrize("ends", [[2, 1], [1], [0, 1, 2], 3, [-1, 2], [0.5, 1], "01", None])
def test_no_interval(ends):
    expected = r"expected \[low, high\] with low <= high, each a whole number of at least 0"
    with pytest.raises(ValueError, match=expected):
        interval(whole(0)).require("a", ends)


def test_limits_in_words():
    assert number(0, 1).expected == "a number from 0 to 1"
    assert number(above=0, below=1, hint=", such as 0.05").expected == (
        "a number above 0 and below 1, such as 0.05"
    )
    assert whole().expected == "a whole number"
    assert one_of([1, 2]).expected == "one of 1, 2"
