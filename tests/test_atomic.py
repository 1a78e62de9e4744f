"""Nothing looks complete that is not, and what killed writers leave is removed."""

import errno
import json
import os
import time

import pytest

from tff.atomic import remove_abandoned, temporary_path, write_atomically, write_json


@pytest.mark.parametrize("lasting", [False, True])
def test_a_file_takes_the_place_of_the_former_one_when_all_is_there(tmp_path, lasting):
    path = tmp_path / "new folder" / "a.json"
    with write_atomically(path, lasting=lasting) as part:
        part.write_text("1")
        assert not path.exists()
    with write_atomically(path, lasting=lasting) as part:
        part.write_text("2")
        assert path.read_text() == "1"
    assert path.read_text() == "2"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), KeyError()])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1]})
    with pytest.raises(type(error)) as caught, write_atomically(path) as part:
        part.write_text("{")
        raise error
    assert json.loads(path.read_text()) == {"a": [1]}
    assert list(tmp_path.iterdir()) == [path]
    assert getattr(caught.value, "filename", str(path)) == str(path)


def test_what_json_cannot_hold_leaves_nothing(tmp_path):
    endless = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        write_json(tmp_path / "a.json", endless)
    assert not list(tmp_path.iterdir())


def test_only_old_parts_of_killed_writers_are_removed(tmp_path):
    old, young, folder = (
        temporary_path(tmp_path / name) for name in ("a.parquet", "b.ckpt", "report")
    )
    others = [tmp_path / name for name in (".hidden", "a.parquet", ".x.part", f".x-{'a' * 32}")]
    (folder / "tables").mkdir(parents=True)
    link = temporary_path(tmp_path / "link")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    link.symlink_to(elsewhere)
    for path in (old, young, *others):
        path.touch()
    for path in (old, folder, *others):
        os.utime(path, (time.time() - 4000,) * 2)
    remove_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == {young, link, elsewhere, *others}
    remove_abandoned(tmp_path, 0)
    assert set(tmp_path.iterdir()) == {elsewhere, *others}
    assert (elsewhere / "kept").exists()
    remove_abandoned(tmp_path / "nowhere")
