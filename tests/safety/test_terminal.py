"""Hostile names in the terminal: in reports and in errors."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from tests.helpers.tiny import tree

from tff.data.folder import Folder
from tff.detectors.checkpoint import load
from tff.plots.curves import highlighted_lines
from tff.plots.grouped import box_plot, grouped_points
from tff.plots.image_grids import image_grid
from tff.plots.scatter import matrix_plot, repeated_trainings, scatter_plot
from tff.report.page import render_png
from tff.report.terminal import show
from tff.safe_text import make_printable
from tff.types import Result

#: Color codes written by rich, the only escape sequences allowed.
COLOR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("color", [None, "truecolor"])
def test_report_prints_no_escape_sequences(color, hostile, tmp_path):
    table = pd.DataFrame({"generator": hostile[:14], hostile[9]: hostile[4:], "ap": 0.5})
    results = {
        hostile[9]: Result(hostile[9], findings=hostile, alarms=hostile, warnings=hostile),
        "b": Result("", tables={"t": table}),
        hostile[12]: Result("", scalars=dict.fromkeys(hostile, 1.0)),
    }
    file = io.StringIO()
    console = Console(file=file, width=250, color_system=color, force_terminal=bool(color))
    show(results, tmp_path / "a\x1b[2Jb" / "index.html", console)
    text = COLOR.sub("", file.getvalue()) if color else file.getvalue()
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert ("\x1b[" in file.getvalue()) == bool(color)
    for name in hostile:
        for mark in "•!":
            assert f"{mark} {make_printable(name)}" in text
    # No name starts a line of its own, like a finding would.
    assert not re.search(r"^(two|overwritten)", text, re.MULTILINE)


def test_logs_and_warnings_show_control_characters(tmp_path):
    """Those of libraries too, such as matplotlib's about glyphs that a font has not."""
    script = """
import logging, warnings
from tff.errors import readable_errors
logging.basicConfig()
with readable_errors():
    logging.getLogger("lib").warning("file %s", "a\\x1b[2Jb\\x07")
    warnings.warn("glyph \\x1b]8;;x\\x07 is missing")
    raise ValueError("name \\x1b[2J\\u202e")
"""
    arguments = [sys.executable, "-c", script]
    run = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout == ""
    assert not set(run.stderr) & set("\x1b\x07\u202e")
    for text in (r"file a\x1b[2Jb\x07", r"glyph \x1b]8;;x\x07 is", r"name \x1b[2J\u202e"):
        assert text in run.stderr


def test_figures_draw_names_without_control_characters(hostile):
    """Where a font has no glyph for a character, matplotlib warns with that character."""
    table = pd.DataFrame({"group": hostile, "x": 0.5, "y": 0.5, "seen": True})
    figures = [
        repeated_trainings(table, "group", "y", hostile[9]),
        scatter_plot(table, "x", "y", "group", hostile[9], hostile[10]),
        grouped_points(table.assign(hue=hostile), "group", "hue", "y", None, None, hostile[9]),
        matrix_plot(pd.DataFrame(0.1, hostile, hostile), hostile[9], 1.0),
        highlighted_lines(table, "x", "group", "y", hostile[9], hostile),
        box_plot({name: {name: np.ones(3)} for name in hostile}, hostile[10]),
        image_grid({name: [(np.zeros((9, 9, 3), np.uint8), name)] for name in hostile}),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for figure in figures:
            render_png(figure)
    assert not {str(w.message) for w in caught if not str(w.message).isprintable()}


def test_errors_name_files_with_odd_names(hostile, tmp_path):
    """The message is the same for any file name; `readable_errors` prints it."""
    root = tree(tmp_path / "images")
    names = [name for name in hostile if "/" not in name]
    for name in names:
        (root / "seen/1_fake" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=rf"{len(names)} of {24 + len(names)} images cannot be"):
        Folder(root=str(root)).splits()


def test_generators_may_have_any_name(hostile, tmp_path):
    names = [name for name in hostile if "/" not in name]
    root = tree(tmp_path / "images", generators=names, images=12)
    images = Folder(root=str(root), cache=str(tmp_path / "cache")).images("all")
    assert images.generators == sorted(names)
    again = Folder(root=str(root), cache=str(tmp_path / "cache")).images("all")
    pd.testing.assert_frame_equal(images.manifest, again.manifest)


@pytest.mark.parametrize("place", ["key", "setting", "target"])
def test_checkpoint_errors_print_no_escape_sequences(place, hostile, tmp_path):
    for name in hostile:
        content = {"state_dict": {name if place == "key" else "a": torch.zeros(1)}}
        if place != "key":
            target = "tff.detectors.torchvision_models.torchvision_model"
            said = {"_target_": name if place == "target" else target, "name": name}
            content["tff"] = {"detector": said}
        torch.save(content, tmp_path / "evil.ckpt")
        with pytest.raises(ValueError, match=r"evil\.ckpt") as caught:
            load(tmp_path / "evil.ckpt")
        text = str(caught.value)
        assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text), repr(text)
