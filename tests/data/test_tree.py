"""What stands in a tree of folders: links, hidden folders, and files that are not read."""

from __future__ import annotations

import os
import socket

import pytest

from tff.data import tree as trees
from tff.data.tree import walk

IMAGES = {".png", ".jpg"}


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def read(root, belongs=lambda folder: True):
    found = walk(root, IMAGES)
    return found.files(), found.describe_unread(belongs)


def test_files_in_an_order_of_their_own(tmp_path, monkeypatch):
    put(tmp_path, "b/1.png", "a/2.JPG", "a/10.png", "a-c/3.png", "0.png")
    expected = ["0.png", "a-c/3.png", "a/10.png", "a/2.JPG", "b/1.png"]
    assert read(tmp_path) == (expected, [])
    listed = trees._list
    monkeypatch.setattr(trees, "_list", lambda folder: listed(folder)[::-1])
    assert read(tmp_path)[0] == expected


def test_folder_that_several_links_share(tmp_path):
    put(tmp_path, "pool/deep/0.png")
    for name in ("a", "b", "c/d"):
        link(tmp_path / "set" / name, tmp_path / "pool")
    link(tmp_path / "set/c/again", tmp_path / "set/a")  # a link to a link
    files, unread = read(tmp_path / "set")
    assert files == [f"{name}/deep/0.png" for name in ("a", "b", "c/again", "c/d")]
    assert unread == []
    link(tmp_path / "other", tmp_path / "set")
    assert read(tmp_path / "other") == (files, [])


@pytest.mark.parametrize("target", [".", "..", "../..", "a", "/"])
def test_link_to_a_folder_above(target, tmp_path):
    put(tmp_path, "set/a/0.png")
    link(tmp_path / "set/a/back", tmp_path / "set/a" / target if target != "a" else "../a")
    files, (line,) = read(tmp_path / "set")
    assert files == ["a/0.png"]
    assert line == "not read: 1 link back to a folder above (a/back)"


def test_links_that_lead_to_each_other(tmp_path):
    put(tmp_path, "a/0.png", "b/1.png")
    link(tmp_path / "a/to_b", tmp_path / "b")
    link(tmp_path / "b/to_a", tmp_path / "a")
    link(tmp_path / "x", "y")
    link(tmp_path / "y", "x")
    files, (line,) = read(tmp_path)
    assert files == ["a/0.png", "a/to_b/1.png", "b/1.png", "b/to_a/0.png"]
    assert line.endswith("2 broken links (x, y)")
    assert "(a/to_b/to_a, b/to_a/to_b)" in line


def test_links_that_multiply_a_folder(tmp_path):
    for level in range(12):
        for name in "ab":
            link(tmp_path / f"{level}" / name, tmp_path / f"{level + 1}")
    put(tmp_path, "12/0.png")
    with pytest.raises(ValueError, match=r"in more than 1000 ways; remove links"):
        read(tmp_path / "0")


def test_links_to_files(tmp_path):
    put(tmp_path, "pool/0.png")
    link(tmp_path / "set/a.png", tmp_path / "pool/0.png")
    link(tmp_path / "set/b.png", tmp_path / "pool/0.png")
    link(tmp_path / "set/gone.png", tmp_path / "nowhere")  # listed, so that it is an error
    link(tmp_path / "set/0_real", tmp_path / "nowhere")
    files, unread = read(tmp_path / "set", lambda folder: folder != "")
    assert files == ["a.png", "b.png", "gone.png"]
    assert unread == ["not read: 1 broken link (0_real)"]


HIDDEN = [
    ".ipynb_checkpoints", ".Trash-1000", ".cache", ".git", "__MACOSX", "@eaDir", "#recycle",
    "$RECYCLE.BIN", "lost+found", "System Volume Information", "__pycache__", "#snapshot",
]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_folder(name, tmp_path):
    put(tmp_path, "g/0.png", f"g/{name}/deep/1.png", f"g/{name}/2.png", f"g/{name}/x.txt")
    put(tmp_path, f"h/{name}/x.txt")
    files, unread = read(tmp_path, lambda folder: folder == "g")
    assert files == ["g/0.png"]
    assert unread == [f"not read: 2 in hidden folders ({name})"]


def test_root_may_be_hidden(tmp_path):
    put(tmp_path, ".cache/lost+found/0.png")
    assert read(tmp_path / ".cache" / "lost+found") == (["0.png"], [])


def test_files_that_are_not_read(tmp_path):
    put(
        tmp_path, "g/0.png", "g/a.txt", "g/b.TXT", "g/c.heic", "g/d.jpg.part", "g/README",
        "g/._0.png", "g/.DS_Store", "g/Thumbs.db", "g/what. ever", "g/e.tar.gz", "other/f.txt",
    )  # fmt: skip
    os.mkfifo(tmp_path / "g/pipe")
    os.mkfifo(tmp_path / "g/pipe.png")  # is listed: that it is no file is an error
    monitor = socket.socket(socket.AF_UNIX)
    monitor.bind(os.path.relpath(tmp_path / "g/socket"))
    files, unread = read(tmp_path, lambda folder: folder == "g")
    monitor.close()
    assert files == ["g/0.png", "g/pipe.png"]
    assert unread == [
        "not read: 2 .txt, 2 hidden, 1 .db, 1 .gz, 1 .heic, 1 .jpg.part, 1 pipe, 1 socket, "
        "1 with an unusual suffix, 1 without suffix"
    ]


def test_many_names_and_kinds_are_cut_short(tmp_path):
    put(tmp_path, *(f"g/0.x{number:02}" for number in range(23)), "g/1.x22")
    put(tmp_path, *(f"g/.{name}/0.png" for name in "abcdefghij"))
    line = read(tmp_path)[1][0]
    assert "10 in hidden folders (.a, .b, .c, .d, .e, .f, .g, .h and 2 more)" in line
    assert "2 .x22, 1 .x00, 1 .x01" in line
    assert line.endswith("1 .x18, 3 of other kinds")


def test_control_characters_in_names(tmp_path):
    put(tmp_path, "g/.a\x1b[2J\a/0.png")
    assert read(tmp_path)[1][0] == r"not read: 1 in hidden folders (.a\x1b[2J\x07)"


def test_folders_without_anything_to_read(tmp_path):
    put(tmp_path, "a/0_real/0.png", "a/1_fake/note.txt", "a/1_fake/deep/note.txt")
    (tmp_path / "b/0_real").mkdir(parents=True)
    _, unread = read(tmp_path, lambda folder: "_" in folder)
    assert unread == ["not read: 2 .txt", "nothing to read in a/1_fake, b/0_real"]


def test_folder_that_cannot_be_read(tmp_path, monkeypatch):
    put(tmp_path, "a/0.png")

    def refuse(folder):
        if str(folder).endswith("a"):
            raise PermissionError(13, "Permission denied", str(folder))
        return true(folder)

    true = os.scandir
    monkeypatch.setattr(trees.os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"/a: cannot be read \(Permission denied\); make it"):
        read(tmp_path)
