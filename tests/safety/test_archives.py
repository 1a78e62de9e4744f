"""Malicious archives and descriptions of data sets: bombs, control characters, tar files.

Path traversal, links, devices and duplicate members are tested in `tests/data`.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from tff.data.download.extract import Member, plan, unpack
from tff.data.download.sources import load_source


def zipped(path: Path, names: list[str], content: bytes = b"1") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def refused(archive: Path, match: str, kind: str = "zip") -> None:
    with pytest.raises(ValueError, match=match) as caught:
        unpack([archive], kind, archive.with_name("out"))
    assert str(caught.value).startswith(f"{archive}: ")
    assert list(archive.parent.iterdir()) == [archive]


ODD = ["a\x1b[2J.png", "a\nb.png", "a\rb.png", "a\tb", "\x7f", "\x9b31m", "a/\u202egnp.exe", "\x01"]


@pytest.mark.parametrize("name", ODD)
def test_control_characters_in_member_names_are_refused(name, inside):
    refused(zipped(inside / "x", ["good.png", name]), "has a control character in its path")


def test_lone_surrogates_in_7z_names_are_refused():
    with pytest.raises(ValueError, match="a control character in its path"):
        plan(Path("x.7z"), [Member("a\ud800.png", 1, False, 0)])


def test_unicode_member_names_are_kept(inside):
    names = ["émile.png", "猫/犬.png", "ネコ.png", "تفاحة.png", "👩‍🔬.png"]
    unpack([zipped(inside / "x", names)], "zip", inside / "out")
    assert {p.relative_to(inside / "out").as_posix() for p in (inside / "out").rglob("*.png")} == {
        *names
    }


def declare_size(archive: Path, size: int, entry: int = 0) -> None:
    """Declare another size for all members in the directory of a zip."""
    raw = bytearray(archive.read_bytes())
    at = raw.index(b"PK\1\2")
    while at >= 0:
        struct.pack_into("<I", raw, at + 24, size)
        at = raw.find(b"PK\1\2", at + 1)
    archive.write_bytes(raw)


@pytest.mark.parametrize("members", [1, 3])
def test_zip_bombs_are_refused_by_their_declared_size(members, inside):
    archive = zipped(inside / "x", [f"{n}.png" for n in range(members)])
    declare_size(archive, 1_200_000_000)
    size, total = archive.stat().st_size, members * 1_200_000_000
    refused(archive, f"{size} bytes would unpack into {total:,}, which images never do")


def test_no_more_is_written_than_declared(inside):
    """The mismatch with the declared size is detected."""
    archive = zipped(inside / "x", ["a.png"], bytes(50_000_000))
    declare_size(archive, 1000)
    refused(archive, "damaged, or not a zip archive")


def test_overlapping_members_are_refused(inside):
    """Zip bomb of Fifield (2019): many directory entries point to the same data."""
    archive = zipped(inside / "x", ["a"], bytes(3_000_000))
    raw = archive.read_bytes()
    at, end = raw.index(b"PK\1\2"), raw.index(b"PK\5\6")
    entry = raw[at:end]
    names = [bytes([97 + n // 26, 97 + n % 26]) for n in range(400)]
    longer = [entry[:28] + struct.pack("<H", 2) + entry[30:46] + name for name in names]
    directory = b"".join(longer)
    tail = raw[end : end + 8] + struct.pack("<HHII", 400, 400, len(directory), at) + b"\0\0"
    archive.write_bytes(raw[:at] + directory + tail)
    refused(archive, r"would unpack into 1,200,000,000|damaged, or not a zip")


@pytest.mark.parametrize("kind", ["zip", "7z"])
def test_tar_archives_are_never_unpacked(kind, inside):
    archive = inside / "x"
    with tarfile.open(archive, "w") as file:
        for name, what, link in (
            ("../evil", tarfile.REGTYPE, ""), ("/tmp/evil", tarfile.REGTYPE, ""),
            ("a", tarfile.SYMTYPE, "/"), ("b", tarfile.LNKTYPE, "/etc/passwd"),
            ("c", tarfile.CHRTYPE, ""), ("d", tarfile.FIFOTYPE, ""),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = what, link
            file.addfile(member, io.BytesIO())
    refused(archive, f"damaged, or not a {kind} archive", kind)


SET = "page: https://x\nlicence: none\nsplits:\n  val:\n    into: val\n    files: [{}]\n"


@pytest.mark.parametrize(
    "text",
    [
        "page: !!python/object/apply:os.system ['touch {witness}']",
        "page: !!python/object/new:os.system ['touch {witness}']",
        "splits: !!python/name:os.system",
        "page: !!python/module:antigravity",
        SET.format("{url: 'https://x/${{oc.env:HOME}}', gigabytes: 1}"),
        SET.format("{url: 'https://x/..', gigabytes: 1}"),
        SET.format("{url: 'https://x/%2e%2e%2fx', gigabytes: 1}"),
        SET.format("{url: 'file:///etc/passwd', gigabytes: 1}"),
        SET.replace("into: val", "into: ../val").format("{url: 'https://x/a.zip', gigabytes: 1}"),
    ],
)
def test_malicious_descriptions_of_data_sets_are_refused(text, tmp_path, witness):
    text = text.replace("{witness}", str(witness)).replace("${{", "${").replace("}}", "}")
    (tmp_path / "evil.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"evil\.yaml: "):
        load_source("evil", tmp_path)


def test_urls_are_not_interpolated_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "password")
    (tmp_path / "evil.yaml").write_text("page: 'https://x/${oc.env:SECRET}'\n")
    assert load_source("evil", tmp_path).page == "https://x/${oc.env:SECRET}"
