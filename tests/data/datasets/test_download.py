import re
import socket
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from amtml_pl.data.datasets import download as module
from amtml_pl.data.datasets.cifar import Cifar10
from amtml_pl.data.datasets.download import download
from amtml_pl.errors import UserError
from archives import checksums, md5, write_cifar10

CONTENT = bytes(range(256)) * 4000
OFFICIAL = {"md5": md5(CONTENT), "size": len(CONTENT)}


class Handler(BaseHTTPRequestHandler):
    """Serve ``server.content`` under every name, with ``server.ranges`` and up to ``server.cut``."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        if "absent" in self.path:
            self.send_error(404)
            return
        first = int(re.match(r"bytes=(\d+)-$", self.headers["Range"])[1])
        partial = self.server.ranges
        body = self.server.content[first if partial else 0 :]
        self.send_response(206 if partial else 200)
        if partial:
            total = len(self.server.content)
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut] if self.server.cut else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.ranges, server.cut, server.requests = CONTENT, True, None, []
    server.url = f"http://127.0.0.1:{server.server_port}/folder"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def dead_mirror():
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_a_file_is_loaded_verified_and_not_loaded_again(server, tmp_path):
    target = tmp_path / "new folder" / "a.bin"
    for _ in range(2):
        download("a.bin", [server.url], target, **OFFICIAL)
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/folder/a.bin", "bytes=0-")]
    assert not target.with_name("a.bin.part").exists()


def test_a_broken_transfer_is_resumed(server, tmp_path):
    server.cut = 1000
    with pytest.raises(UserError, match=rf"ended after 1000 of {len(CONTENT)} bytes"):
        download("a.bin", [server.url], tmp_path / "a.bin", **OFFICIAL)
    assert not (tmp_path / "a.bin").exists()
    server.cut = None
    download("a.bin", [server.url], tmp_path / "a.bin", **OFFICIAL)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1000-"


@pytest.mark.parametrize(("part", "requests"), [(CONTENT[:1000], 1), (CONTENT, 0)])
def test_a_server_without_ranges_sends_the_file_anew_and_a_whole_part_is_verified(
    server, tmp_path, part, requests
):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(part)
    download("a.bin", [server.url], tmp_path / "a.bin", **OFFICIAL)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.requests) == requests


@pytest.mark.parametrize("longer", [b"", b"one that sends more than the official size"])
def test_another_file_is_removed_and_its_checksum_is_reported(server, tmp_path, longer):
    server.content = b"x" + CONTENT[1:] + longer
    got = md5(server.content[: len(CONTENT)])
    with pytest.raises(UserError, match=rf"a wrong file \(got md5 {got}, expected {OFFICIAL['md5']}\)"):
        download("a.bin", [server.url], tmp_path / "a.bin", **OFFICIAL)
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".lock"] == []


def test_mirrors_that_fail_are_skipped_and_each_reason_is_reported(server, tmp_path, dead_mirror):
    broken = [dead_mirror, f"{server.url}/absent"]
    with pytest.raises(UserError) as error:
        download("a.bin", broken, tmp_path / "a.bin", **OFFICIAL)
    assert re.search(rf"{dead_mirror}/a.bin: .*refused", str(error.value))
    assert f"{server.url}/absent/a.bin: HTTP Error 404" in str(error.value)
    download("a.bin", [*broken, server.url], tmp_path / "a.bin", **OFFICIAL)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_silent_mirrors_share_one_deadline(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "OPENING_SECONDS", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        mirrors = [f"http://127.0.0.1:{silent.getsockname()[1]}/{i}" for i in range(3)]
        start = time.monotonic()
        with pytest.raises(UserError, match=r"no answer within 0.1 seconds"):
            download("a.bin", mirrors, tmp_path / "a.bin", **OFFICIAL)
        assert time.monotonic() - start < 2


def test_a_mirror_that_is_not_a_web_address_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'file:///etc' of passwd is not an http"):
        download("passwd", ["file:///etc"], tmp_path / "a", **OFFICIAL)


def test_a_file_larger_than_the_free_disk_is_not_requested(server, tmp_path):
    with pytest.raises(UserError, match=r"MB free, but the download needs"):
        download("a.bin", [server.url], tmp_path / "a.bin", md5=OFFICIAL["md5"], size=1 << 60)
    assert server.requests == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a.bin cannot be written"):
        download("a.bin", [], tmp_path / "file" / "a.bin", **OFFICIAL)


def test_a_source_fetches_and_verifies_its_archive(server, tmp_path):
    upstream = write_cifar10(tmp_path / "upstream")
    server.content = upstream.read_bytes()
    source = Cifar10(tmp_path / "cifar10", [server.url], **checksums(upstream))
    source.size = len(server.content)
    assert source.missing()
    source.fetch()
    assert source.missing() is None
    assert source.download_bytes() == 0
    assert len(source.read("train")) == 40


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_not_reported_as_a_mirror_that_fails(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_size", lambda part: 0)
    (tmp_path / "data.bin.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot be written: .*No space left"):
        download("data.bin", [server.url, f"{server.url}/other"], tmp_path / "data.bin", **OFFICIAL)
    assert len(server.requests) == 1
