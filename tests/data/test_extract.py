"""Archives that would write where they should not, and archives that are damaged."""

import io
import os
import stat
import struct
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from tff.data.download import extract
from tff.data.download.extract import MARKER, Member, Volumes, plan, unpack

FILES = {
    "top/a/0_real/1.png": b"1" * 5000,
    "top/a/1_fake/2.png": os.urandom(5000),
    "top/n.txt": b"",
}


def zipped(path, files=FILES, mode=0, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files.items() if isinstance(files, dict) else files:
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo tidies it
            info.external_attr = mode << 16
            info.compress_type = compression
            file.writestr(info, content)
    return path


def sevened(path, files=FILES):
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(content, name)
    return path


MAKERS = {"zip": zipped, "7z": sevened}


def found(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
    }


def refused(archive, kind, match, **options):
    """Nothing but the archive is left, inside the folder and above it."""
    inside = archive.parent
    before = sorted(inside.parent.rglob("*"))
    with pytest.raises(ValueError, match=match) as error:
        unpack([archive], kind, inside / "out", **options)
    assert str(archive) in str(error.value)
    assert sorted(inside.parent.rglob("*")) == before


@pytest.fixture
def inside(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", MAKERS)
def test_unpack(inside, kind):
    archive = MAKERS[kind](inside / "x")
    unpack([archive], kind, inside / "out", marker="it")
    assert found(inside / "out") == FILES
    assert (inside / "out" / MARKER).read_text() == "it"
    unpack([archive], kind, inside / "val", holds="a")
    assert found(inside / "val") == {n.removeprefix("top/"): c for n, c in FILES.items()}
    assert sorted(p.name for p in inside.iterdir()) == ["out", "val", "x"]


@pytest.mark.parametrize("kind", MAKERS)
def test_draft_of_a_killed_process_is_replaced(inside, kind):
    (inside / ".out.draft/top").mkdir(parents=True)
    (inside / ".out.draft/top/old.png").write_text("old")
    unpack([MAKERS[kind](inside / "x")], kind, inside / "out")
    assert found(inside / "out") == FILES


BAD = {
    "../x.png": r"`\.\.` in its path", "a/../../x.png": r"`\.\.` in its path",
    "/tmp/x.png": "absolute path", "C:/x.png": "absolute path", "c:x.png": "absolute path",
    "..\\x.png": r"`\.\.` in its path", "a\\..\\..\\x.png": r"`\.\.` in its path",
    "\\\\host\\x.png": "absolute path", "..": r"`\.\.` in its path", "": "the same path as another",
    ".": "the same path as another",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_zip_members_outside(inside, name):
    refused(zipped(inside / "x", {"good.png": b"1", name: b"2"}), "zip", BAD[name])


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/tmp/x.png"])
def test_7z_members_outside(inside, name):
    """py7zr writes no such archive, so that the name is exchanged in one that it wrote."""
    py7zr = pytest.importorskip("py7zr")
    plain = "q" * len(name)
    with py7zr.SevenZipFile(inside / "x", "w") as file:
        file.set_encoded_header_mode(False)
        file.writestr(b"2", "good.png")
        file.writestr(b"2", plain)
    forge_7z(inside / "x", plain, name)
    refused(inside / "x", "7z", BAD[name])


def forge_7z(path, old, new):
    """Exchange a name in a 7z file, and the checksums of its header with it."""
    from zlib import crc32

    raw = path.read_bytes().replace(old.encode("utf-16-le"), new.encode("utf-16-le"))
    offset, size = struct.unpack_from("<QQ", raw, 12)
    start = struct.pack("<QQI", offset, size, crc32(raw[32 + offset : 32 + offset + size]))
    path.write_bytes(raw[:8] + struct.pack("<I", crc32(start)) + start + raw[32:])


KINDS = {
    stat.S_IFLNK: "a symbolic link", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", 0o070000: "neither file nor folder",
}  # fmt: skip


@pytest.mark.parametrize("mode", KINDS)
def test_links_and_devices_in_a_zip(inside, mode):
    archive = zipped(inside / "x", {"a.png": b"/etc/passwd"}, mode | 0o777)
    refused(archive, "zip", f"'a.png' is {KINDS[mode]}")


def test_links_in_a_7z(inside):
    py7zr = pytest.importorskip("py7zr")
    (inside / "link").symlink_to("target")
    (inside / "target").write_text("x")
    with py7zr.SevenZipFile(inside / "x", "w") as file:
        file.write(inside / "target", "target")
        file.write(inside / "link", "link")
    refused(inside / "x", "7z", "'link' is a symbolic link")


def test_link_and_a_file_through_it(inside, tmp_path):
    """The classic: a link that leads outside, then a file below it."""
    with zipfile.ZipFile(inside / "x", "w") as file:
        link = zipfile.ZipInfo("a")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, str(tmp_path))
        file.writestr("a/x.png", b"1")
    refused(inside / "x", "zip", "'a' is a symbolic link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_at_one_path(inside):
    refused(zipped(inside / "x", [("a", b"1"), ("a", b"2")]), "zip", "the same path as another")
    refused(zipped(inside / "x", [("a", b"1"), ("./a", b"2")]), "zip", "the same path as another")
    refused(zipped(inside / "x", [("a", b"1"), ("a/b", b"2")]), "zip", "both a file and a folder")


def test_zero_byte_in_a_name():
    with pytest.raises(ValueError, match="a control character in its path"):
        plan(Path("x.zip"), [Member("a\0.png", 1, False, 0)])


def test_names_of_windows_and_macos(inside):
    archive = zipped(inside / "x", {"a\\b.png": b"1", "__MACOSX/a/._b.png": b"2"})
    unpack([archive], "zip", inside / "out")
    assert found(inside / "out") == {"a/b.png": b"1"}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98])
def test_truncated(inside, kind, share):
    archive = MAKERS[kind](inside / "x")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    refused(archive, kind, "damaged")


@pytest.mark.parametrize("kind", MAKERS)
def test_no_archive(inside, kind):
    (inside / "x").write_text("<html>Please sign in</html>")
    refused(inside / "x", kind, f"damaged, or not a {kind} archive")


@pytest.mark.parametrize("kind", MAKERS)
def test_every_changed_byte_is_noticed_or_does_no_harm(inside, kind):
    """Whatever byte is wrong: the right files, or none and a clear error."""
    archive = MAKERS[kind](inside / "x", {"a/1.png": os.urandom(40)})
    content = archive.read_bytes()
    good, noticed = {}, 0
    unpack([archive], kind, inside / "out")
    good = found(inside / "out")
    for at in range(len(content)):
        archive.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        target = inside / f"out{at}"
        try:
            unpack([archive], kind, target)
        except ValueError:
            noticed += 1
            assert not target.exists()
        else:
            assert list(found(target).values()) == list(good.values())
    assert noticed > len(content) * 0.5


def test_member_skipped_by_the_library(inside, monkeypatch):
    create = extract._Output.create

    def skip(self, name):
        return create(self, name if name == "top/n.txt" else "__MACOSX/x")

    monkeypatch.setattr(extract._Output, "create", skip)
    refused(zipped(inside / "x"), "zip", r"2 files are missing, such as top/a/0_real/1\.png")


def test_encrypted(inside):
    archive = zipped(inside / "x", {"a": b"1"})
    content = bytearray(archive.read_bytes())
    for at in (6, content.index(b"PK\1\2") + 8):
        content[at] |= 1
    archive.write_bytes(content)
    refused(archive, "zip", "encrypted")


@pytest.mark.parametrize("kind", MAKERS)
def test_full_disk(inside, kind, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda _: usage(5_000_000))
    archive = MAKERS[kind](inside / "x.a", {"a": bytes(10_000_000)})
    with pytest.raises(ValueError, match=r"x\.a needs 0\.01 GB, but only 0\.01 GB are free"):
        unpack([archive], kind, inside / "out")
    assert sorted(p.name for p in inside.iterdir()) == ["x.a"]


def test_unexpected_archive(inside):
    refused(zipped(inside / "x"), "zip", "no folder airplane in it", holds="airplane")


def test_7z_without_its_package(inside, monkeypatch):
    archive = sevened(inside / "x")
    monkeypatch.setitem(sys.modules, "py7zr", None)
    with pytest.raises(ValueError, match="pip install py7zr"):
        unpack([archive], "7z", inside / "out")


def test_7z_in_volumes(inside):
    content = sevened(inside / "x").read_bytes()
    size = -(-len(content) // 3)
    paths = [inside / f"x.7z.00{n + 1}" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(content[n * size : (n + 1) * size])
    unpack(paths, "7z", inside / "out")
    assert found(inside / "out") == FILES
    with pytest.raises(ValueError, match="damaged"):
        unpack(paths[:2], "7z", inside / "other")


def test_volumes_read_as_one():
    content = os.urandom(1000)
    parts = [io.BytesIO(content[a:b]) for a, b in ((0, 1), (1, 1), (1, 700), (700, 1000))]
    volumes = io.BufferedReader(Volumes(parts), 64)
    assert volumes.read() == content
    for at in (0, 1, 699, 700, 999, 1000, 5000):
        assert volumes.seek(at) == at
        assert volumes.read(20) == content[at : at + 20]
    assert volumes.seek(-5, io.SEEK_END) == 995
    assert volumes.read() == content[995:]
