"""Downloads from a web server of our own that behaves badly in every way we could think of."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest

from tff.data.download import extract
from tff.data.download import fetch as asking
from tff.data.download import fetch as fetching
from tff.data.download.__main__ import main
from tff.data.download.extract import MARK
from tff.data.download.fetch import RECORD, TRIES, locked, transfer
from tff.data.download.sources import names, source

BYTES = bytes(range(256)) * 400
SHA = hashlib.sha256(BYTES).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; each request takes the first of `plan`: what shall go wrong."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.plan, self.asked, self.tags, self.tag = {}, [], [], [], '"1"'

    def url(self, name="a.bin"):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, wrong = self.server, {}
        server.asked.append(self.headers.get("Range"))
        server.tags.append(self.headers.get("If-Range"))
        if server.plan:
            wrong = server.plan.pop(0)
        content = server.files.get(self.path.strip("/").removeprefix("cdn/"))
        if content is None:
            return self.send_error(404)
        if "status" in wrong:
            return self.send_error(wrong["status"])
        if "redirect" in wrong:
            self.send_response(302)
            self.send_header("Location", wrong["redirect"])
            for key, value in wrong.get("headers", {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        content = wrong.get("content", content)
        tag = wrong.get("tag", server.tag)
        first = self._first(content, tag, wrong)
        if first is None:
            return self.send_error(416)
        body = content[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if tag:
            self.send_header("ETag", tag)
        if wrong.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
        elif not wrong.get("endless"):
            self.send_header("Content-Length", str(len(body) + wrong.get("lie", 0)))
        self.end_headers()
        body = body[: wrong.get("cut", len(body))]
        try:
            if wrong.get("chunked"):
                for at in range(0, len(body), 5000):
                    block = body[at : at + 5000]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
                if "cut" not in wrong:
                    self.wfile.write(b"0\r\n\r\n")
            else:
                pause = wrong.get("pause", 0)
                step = 4096 if pause else len(body) or 1
                for at in range(0, len(body), step):
                    self.wfile.write(body[at : at + step])
                    time.sleep(pause)
        except ConnectionError:
            pass
        self.close_connection = True

    def _first(self, content, tag, wrong):
        wish = self.headers.get("Range")
        if wish is None or wrong.get("no_range"):
            return 0
        if self.headers.get("If-Range", tag) != tag and not wrong.get("careless"):
            return 0
        first = int(wish.removeprefix("bytes=").removesuffix("-"))
        return first if first < len(content) else None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as it:
        it.files["a.bin"] = BYTES
        threading.Thread(target=it.serve_forever, args=(0.02,), daemon=True).start()
        yield it
        it.shutdown()


@pytest.fixture
def get(server, tmp_path):
    """Download a.bin; the waits that were made are told."""

    def get(*args, **options):
        get.waits = []
        return transfer(server.url(), tmp_path / "a.bin", *args, wait=get.waits.append, **options)

    return get


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file(server, get, tmp_path):
    checked = get()
    assert checked == (len(BYTES), SHA, "nothing")
    assert (tmp_path / "a.bin").read_bytes() == BYTES
    assert server.asked == [None]
    assert get(len(BYTES), SHA).against == "published"


def test_broken_connections_are_resumed(server, get, tmp_path):
    server.plan = [{"cut": 10_000}, {"status": 503}, {"cut": 20_000}, {"cut": 0}, {}]
    assert get(len(BYTES), SHA).sha256 == SHA
    wishes = [None, "bytes=10000-", "bytes=10000-", "bytes=30000-", "bytes=30000-"]
    assert server.asked == wishes
    assert server.tags == [None, *['"1"'] * 4]
    assert (tmp_path / "a.bin").read_bytes() == BYTES


def test_gives_up_keeps_what_came_and_goes_on(server, get, tmp_path):
    server.plan = [{"cut": 10_000}, *[{"cut": 0}] * TRIES]
    with pytest.raises(ValueError, match=r"broke off.*10\.0 kB are kept: run the same command"):
        get()
    assert (tmp_path / "a.bin.part").read_bytes() == BYTES[:10_000]
    assert get.waits == [1, 1, 2, 4, 8, 16]
    get()
    assert server.asked[-1] == "bytes=10000-"
    assert left(tmp_path) == ["a.bin", "a.bin.part.json"]
    assert (tmp_path / "a.bin").read_bytes() == BYTES


def test_no_server(get, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match=r"no connection.*given up after 6 tries"):
        get()


@pytest.mark.parametrize(
    "wrong", [{"no_range": True}, {"tag": '"2"'}, {"tag": '"2"', "careless": 1}]
)
def test_server_that_ignores_the_range_or_has_another_file(server, get, tmp_path, wrong):
    other = bytes(reversed(BYTES)) if "tag" in wrong else BYTES
    server.plan = [{"cut": 10_000}, {**wrong, "content": other}, {**wrong, "content": other}]
    assert get().bytes == len(BYTES)
    assert (tmp_path / "a.bin").read_bytes() == other


def test_file_that_became_shorter(server, get, tmp_path):
    server.files["a.bin"], whole = BYTES[:20_000], BYTES
    server.plan = [{"content": whole, "cut": 50_000}, {"careless": 1}, {}]
    get()
    assert (tmp_path / "a.bin").read_bytes() == BYTES[:20_000]
    assert server.asked == [None, "bytes=50000-", None]


def test_no_tag_no_resumption(server, get, tmp_path):
    server.plan = [{"cut": 10_000, "tag": ""}]
    get()
    assert server.asked == [None, None]
    assert (tmp_path / "a.bin").read_bytes() == BYTES


def test_announces_more_than_it_has(server, get, tmp_path):
    server.plan = [{"lie": 500}] * 50
    with pytest.raises(ValueError, match=r"given up after 6 tries"):
        get()
    assert not (tmp_path / "a.bin").exists()


def test_sends_more_than_it_announces(server, get, tmp_path):
    server.plan = [{"lie": -500}]
    with pytest.raises(ValueError, match=r"sends more than the 101900 bytes that it announces"):
        get()
    assert left(tmp_path) == []


def test_another_length_than_published(server, get, tmp_path):
    with pytest.raises(ValueError, match=r"offers 102400 bytes, 5 are published"):
        get(5)
    assert left(tmp_path) == []


def test_wrong_bytes(server, get, tmp_path):
    server.plan = [{"content": BYTES[:-1] + b"x"}]
    with pytest.raises(ValueError, match=rf"SHA-256 is \w+, published is {SHA}"):
        get(len(BYTES), SHA)
    assert left(tmp_path) == []
    assert get(len(BYTES), SHA).sha256 == SHA


@pytest.mark.parametrize("content", [BYTES, BYTES[:-1] + b"x"])
def test_checksum_that_the_host_names(server, get, tmp_path, content):
    """As Hugging Face does: in the headers of a redirect, to machines whose tags differ."""
    told = {"X-Linked-ETag": f'"{SHA}"', "X-Linked-Size": str(len(BYTES))}
    redirect = {"redirect": "/cdn/a.bin", "headers": told}
    server.plan = [redirect, {"cut": 10_000}, redirect, {"tag": '"2"', "content": content}]
    if content is BYTES:
        assert get() == (len(BYTES), SHA, "host")
        assert server.asked[2:] == ["bytes=10000-"] * 2
    else:
        with pytest.raises(ValueError, match=rf"the server names {SHA}"):
            get()
        assert left(tmp_path) == []


def test_host_names_another_checksum_or_size_than_published(server, get):
    for told in ({"X-Linked-ETag": f'"{"0" * 64}"'}, {"X-Linked-Size": "7"}):
        server.plan = [{"redirect": "/cdn/a.bin", "headers": told}]
        with pytest.raises(ValueError, match=r"has been replaced|7 were announced"):
            get(len(BYTES), SHA)


def test_redirects_to_unsafe_places(server, get):
    server.plan = [{"redirect": "file:///etc/passwd"}]
    with pytest.raises(ValueError, match="'file:///etc/passwd' is not allowed"):
        get()
    request, headers = Request("https://host/a.bin"), Message()
    with pytest.raises(ValueError, match=r"leads to http://host/b.bin, which is not secured"):
        asking._Redirects().redirect_request(request, None, 302, "", headers, "http://host/b.bin")


def test_chunks(server, get, tmp_path):
    server.plan = [{"chunked": 1, "cut": 10_000}, {"chunked": 1}]
    assert get().bytes == len(BYTES)
    assert (tmp_path / "a.bin").read_bytes() == BYTES


def test_end_that_cannot_be_told_from_a_break(server, get, tmp_path):
    server.plan = [{"endless": 1, "cut": 10_000}]
    with pytest.raises(ValueError, match="does not say how long the file is"):
        get()
    server.plan = [{"endless": 1, "cut": 10_000}, {"endless": 1}]
    assert get(len(BYTES)).sha256 == SHA


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
def test_refusals_are_final(server, get, status):
    server.plan = [{"status": status}]
    with pytest.raises(ValueError, match=f"the server says {status}"):
        get()
    assert len(server.asked) == 1


def test_silent_server(server, get, monkeypatch):
    monkeypatch.setattr(asking, "TIMEOUT", 0.2)
    server.plan = [{"pause": 0.5}, {}]
    assert get().sha256 == SHA
    assert server.asked == [None, "bytes=4096-"]


@pytest.mark.parametrize("note", ["", "{}", "[]", '{"url": "other", "size": 9, "tag": "x"}', None])
def test_part_of_unknown_origin_is_not_continued(server, get, tmp_path, note):
    (tmp_path / "a.bin.part").write_bytes(b"nonsense")
    if note is not None:
        (tmp_path / "a.bin.part.json").write_text(note)
    assert get().sha256 == SHA
    assert server.asked == [None]


def test_part_from_another_address_is_not_continued(server, get, tmp_path):
    server.files["b.bin"] = bytes(reversed(BYTES))
    server.plan = [{"cut": 10_000}, *[{"cut": 0}] * TRIES]
    with pytest.raises(ValueError, match="given up"):
        get()
    transfer(server.url("b.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == server.files["b.bin"]
    assert server.asked[-1] is None


def test_full_disk(server, get, monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda _: usage(50_000_000))
    server.plan = [{"lie": 10**9}]
    with pytest.raises(ValueError, match=r"a\.bin needs 1\.00 GB, and 0\.05 GB are free"):
        get()


# The command


def archive(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


IMAGES = {
    f"progan_val/{name}/{label}/{n}.png": os.urandom(3000)
    for name in ("airplane", "cat") for label in ("0_real", "1_fake") for n in range(8)
}  # fmt: skip


@pytest.fixture
def val(server, tmp_path):
    """The arguments that bring ForenSynths' validation set from our server."""
    server.files["progan_val.zip"] = archive(**IMAGES)
    return ["forensynths", "split=val", f"to={tmp_path / 'it'}", f"mirror={server.url('')}"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The announced sizes of the real set would not fit on every machine that runs the tests."""
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda _: usage(10**12))


def complete(folder):
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}
    return found == {name.removeprefix("progan_"): content for name, content in IMAGES.items()}


def error_of(arguments, capsys, **options):
    with pytest.raises(SystemExit) as end:
        main(arguments, **options)
    assert end.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def test_command(val, server, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    assert main(val) == 0
    folder = tmp_path / "it"
    assert complete(folder)
    assert capsys.readouterr().out == f"{folder / 'val'}\n"
    digest = hashlib.sha256(server.files["progan_val.zip"]).hexdigest()
    assert f"no checksum is published; the SHA-256 of what came is {digest}" in caplog.text
    assert json.loads((folder / RECORD).read_text())["progan_val.zip"]["sha256"] == digest
    assert left(folder) == [RECORD, ".tff-download.lock", "val"]
    assert main(val) == 0
    assert len(server.asked) == 1


def test_archives_are_kept_if_wished(val, server, tmp_path):
    assert main([*val, "keep_archives=true"]) == 0
    assert (tmp_path / "it/progan_val.zip").read_bytes() == server.files["progan_val.zip"]
    shutil.rmtree(tmp_path / "it/val")
    assert main([*val, "keep_archives=true"]) == 0
    assert complete(tmp_path / "it") and len(server.asked) == 1
    assert main(val) == 0
    assert not (tmp_path / "it/progan_val.zip").exists()


def test_what_was_verified_is_not_read_again(val, server, tmp_path, monkeypatch):
    assert main([*val, "keep_archives=true"]) == 0
    shutil.rmtree(tmp_path / "it/val")
    monkeypatch.setattr(fetching, "verify", None)
    assert main([*val, "keep_archives=true"]) == 0
    assert complete(tmp_path / "it")


def test_archive_that_was_put_there_by_hand(val, server, tmp_path):
    (tmp_path / "it").mkdir()
    (tmp_path / "it/progan_val.zip").write_bytes(server.files["progan_val.zip"])
    assert main(val) == 0
    assert complete(tmp_path / "it") and server.asked == []
    assert main(val) == 0
    assert (tmp_path / "it/progan_val.zip").exists()  # it is not ours to remove


@pytest.fixture
def train(server, tmp_path):
    """The arguments that bring a training set: seven volumes of a 7z archive that holds a zip."""
    py7zr = pytest.importorskip("py7zr")
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w", filters=[{"id": py7zr.FILTER_COPY}]) as file:
        file.writestr(archive(**IMAGES), "progan_train.zip")
    size = -(-len(stream.getvalue()) // 7)
    for number in range(7):
        volume = stream.getvalue()[number * size : (number + 1) * size]
        server.files[f"progan_train.7z.{number + 1:03d}"] = volume
    return ["forensynths", "split=train", f"to={tmp_path / 'it'}", f"mirror={server.url('')}"]


def start(arguments, before="pass"):
    """The command in a process of its own, with room on the disk."""
    code = (
        "import sys, collections; from tff.data.download import extract;"
        "extract.shutil.disk_usage = lambda _: collections.namedtuple('u', 'free')(10**12);"
        f"from tff.data.download.__main__ import main; {before}; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, process):
    end = time.monotonic() + 30
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)


def test_killed_while_it_downloads(val, server, tmp_path):
    server.plan = [{"pause": 0.02}, {"pause": 0.02}, {}]
    part = tmp_path / "it/progan_val.zip.part"
    for size in (20_000, 50_000):
        process = start(val)
        wait_for(lambda s=size: part.exists() and part.stat().st_size > s, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert server.files["progan_val.zip"].startswith(part.read_bytes())
        assert not (tmp_path / "it/val").exists()
    assert main(val) == 0
    assert complete(tmp_path / "it")
    first, second, third = server.asked
    assert first is None
    assert int(second[6:-1]) > 20_000 and int(third[6:-1]) > 50_000


STEPS = {
    "before it has its name": ("tff.data.download.fetch", "verify"),
    "before it is recorded": ("tff.data.download.fetch", "record"),
    "before it is unpacked": ("tff.data.download.extract", "_write"),
    "before the folder has its name": ("tff.data.download.extract", "_top"),
    "before the archive is removed": ("tff.data.download.fetch", "_remove"),
}


def killed(step):
    module, name = STEPS[step]
    return f"import os, {module} as m; m.{name} = lambda *a, **k: os.kill(os.getpid(), 9)"


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step(val, server, tmp_path, step):
    process = start(val, killed(step))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "it/val").exists() == (step == "before the archive is removed")
    assert main(val) == 0
    assert complete(tmp_path / "it") and len(server.asked) == 1
    assert left(tmp_path / "it") == [RECORD, ".tff-download.lock", "val"]


def test_volumes_of_7z_with_a_zip_inside(train, server, tmp_path):
    server.plan = [{}, {}, {"cut": 100}]
    assert main(train) == 0
    (tmp_path / "it/train").rename(tmp_path / "it/val")
    assert complete(tmp_path / "it") and len(server.asked) == 8
    assert left(tmp_path / "it") == [RECORD, ".tff-download.lock", "val"]


@pytest.mark.parametrize("step", ["before it is unpacked", "before the archive is removed"])
def test_killed_between_7z_and_zip(train, server, tmp_path, step):
    process = start(train, killed(step))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert main(train) == 0
    (tmp_path / "it/train").rename(tmp_path / "it/val")
    assert complete(tmp_path / "it") and len(server.asked) == 7
    assert left(tmp_path / "it") == [RECORD, ".tff-download.lock", "val"]


def test_interrupt_from_the_keyboard(val, server, tmp_path):
    server.plan = [{"pause": 0.02}]
    process = start(val)
    part = tmp_path / "it/progan_val.zip.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 10_000, process)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130
    assert "Interrupted; run the same command again to go on." in error
    assert "Traceback" not in error
    assert main(val) == 0 and complete(tmp_path / "it")
    assert server.asked[1] is not None


def test_two_at_once(val, tmp_path, capsys):
    with locked(tmp_path / "it"):
        assert "another process downloads into this folder" in error_of(val, capsys)
    assert main(val) == 0


def test_no_room_for_the_archive_and_the_images(val, server, capsys, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda _: usage(10**9))
    error = error_of(val, capsys)
    assert "val with its archives needs 1.66 GB, and 1.00 GB are free" in error
    assert server.asked == []


def test_damaged_archive(val, server, tmp_path, capsys):
    server.files["progan_val.zip"] = server.files["progan_val.zip"][:-50]
    error = error_of(val, capsys)
    assert "progan_val.zip: damaged, or no zip archive" in error
    assert "Remove it" in error or "remove it" in error
    assert not (tmp_path / "it/val").exists()


def test_folder_of_unknown_origin_is_left_alone(val, tmp_path, capsys):
    (tmp_path / "it/val").mkdir(parents=True)
    (tmp_path / "it/val/mine.txt").write_text("mine")
    assert "this command did not make it" in error_of(val, capsys)
    assert left(tmp_path / "it/val") == ["mine.txt"]


def test_target_that_cannot_be_written(val, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = [*val[:2], f"to={tmp_path / 'file/below'}", val[3]]
    assert "cannot be written (Not a directory); choose another folder" in error_of(
        arguments, capsys
    )


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["nix", "split=val"], "no set 'nix'; there are aigcdetect"),
        (["forensynths"], "forensynths has train, val, test"),
        (["forensynths", "split=vla", "to=x"], "split=vla: forensynths has train, val, test"),
        (["forensynths", "split=val"], "to=DIR is needed"),
        (["forensynths", "split=val", "into=x"], "into=x: unknown; there are split="),
        (["forensynths", "split=val", "to=x", "keep_archives=2"], "keep_archives=2: true or false"),
    ],
)
def test_mistakes(arguments, error, capsys):
    assert error in error_of(arguments, capsys)


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "forensynths" in capsys.readouterr().out


@pytest.mark.parametrize("name", names())
def test_every_source(name, capsys):
    told = source(name)
    assert set(told.splits) or told.by_hand
    if not told.splits:
        assert main([name, "split=val", "to=x"]) == 1
        out = capsys.readouterr().out
        assert f"data={name} data.root=ROOT" in out
    conf = Path(__file__).parents[2] / "conf"
    assert (conf / "data" / f"{name}.yaml").is_file()
    for split in told.splits.values():
        assert all(file.url.startswith("https://") for file in split.files)


ONE = "files: [{url: 'https://h/x', gigabytes: 1}]"


@pytest.mark.parametrize(
    "text, error",
    [
        (f"splits: {{a: {{into: ../b, {ONE}}}}}", "name of a folder"),
        (f"splits: {{a: {{into: b, {ONE.replace('https', 'file')}}}}}", "begin with https"),
        (f"splits: {{a: {{into: b, {ONE.replace('/x', '/')}}}}}", "name of a file"),
        (f"splits: {{a: {{into: b, {ONE.replace('/x', '/%2e%2e')}}}}}", "name of a file"),
        (f"splits: {{a: {{into: b, unpack: [rar], {ONE}}}}}", "rar"),
        ("splits: {a: {into: b, files: []}}", "there are none"),
        (f"splits: {{a: {{into: b, {ONE.replace('gigabytes', 'size')}}}}}", "size"),
        ("splitz: {}", "splitz"),
        ("a: [", "bad.yaml"),
    ],
)
def test_bad_declarations(text, error, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text(text)
    told = error_of(["bad", "split=a", "to=x"], capsys, sources=tmp_path)
    assert error in told and "bad.yaml" in told


def test_plain_files(server, tmp_path, capsys):
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "own.yaml").write_text(
        "page: p\nlicence: l\nsplits: {test: {into: test, files: "
        f"[{{url: '{server.url()}', gigabytes: 0.001, bytes: {len(BYTES)}, sha256: {SHA}}}]}}}}"
    )
    assert main(["own", "split=test", f"to={tmp_path / 'it'}"], conf) == 0
    assert left(tmp_path / "it/test") == [RECORD, MARK, "a.bin"]
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "it/test"
