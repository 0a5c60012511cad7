import hashlib
import re
import socket
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from amtml_pl.data.datasets import download as module
from amtml_pl.data.datasets.cifar import Cifar10
from amtml_pl.data.datasets.download import download
from amtml_pl.errors import UserError
from archives import checksums, write_cifar10

CONTENT = bytes(range(256)) * 4000
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content`` under every name, as ``server.ranges`` and ``server.cut`` say."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        if "absent" in self.path:
            self.send_error(404)
            return
        first = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        partial = self.server.ranges and "Range" in self.headers
        if partial and first >= len(self.server.content):
            self.send_error(416)
            return
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
        download("a.bin", [server.url], target, checksum=CHECKSUM, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/folder/a.bin", None)]
    assert not target.with_name("a.bin.part").exists()


def test_a_broken_transfer_goes_on_where_it_ended(server, tmp_path):
    server.cut = 1000
    with pytest.raises(UserError, match=rf"ended after 1000 of {len(CONTENT)} bytes"):
        download("a.bin", [server.url], tmp_path / "a.bin", checksum=CHECKSUM)
    assert not (tmp_path / "a.bin").exists()
    server.cut = None
    download("a.bin", [server.url], tmp_path / "a.bin", checksum=CHECKSUM)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1000-"


@pytest.mark.parametrize(("ranges", "part"), [(False, CONTENT[:1000]), (True, CONTENT)])
def test_a_server_without_ranges_sends_the_file_anew_and_a_whole_part_is_verified(
    server, tmp_path, ranges, part
):
    server.ranges = ranges
    (tmp_path / "a.bin.part").write_bytes(part)
    download("a.bin", [server.url], tmp_path / "a.bin", checksum=CHECKSUM)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_wrong_checksum_removes_the_file_and_says_got_and_expected(server, tmp_path, algorithm):
    got, expected = hashlib.new(algorithm, CONTENT).hexdigest(), "0" * 8
    with pytest.raises(UserError, match=rf"checksum {got}, expected {expected}"):
        download("a.bin", [server.url], tmp_path / "a.bin", checksum=f"{algorithm}:{expected}")
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix != ".lock") == []


def test_a_dead_first_mirror_and_one_without_the_file_are_passed_over(server, tmp_path, dead_mirror):
    mirrors = [dead_mirror, f"{server.url}/absent", server.url]
    download("a.bin", mirrors, tmp_path / "a.bin", checksum=CHECKSUM)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_when_every_mirror_fails_each_says_why(server, tmp_path, dead_mirror):
    with pytest.raises(UserError) as error:
        download("a.bin", [dead_mirror, f"{server.url}/absent"], tmp_path / "a.bin", checksum=CHECKSUM)
    assert re.search(rf"{dead_mirror}/a.bin: .*refused", str(error.value))
    assert f"{server.url}/absent/a.bin: the server answered 404" in str(error.value)


def test_silent_mirrors_share_one_deadline(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "OPENING_SECONDS", 0.6)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        mirrors = [f"http://127.0.0.1:{silent.getsockname()[1]}/{i}" for i in range(3)]
        start = time.monotonic()
        with pytest.raises(UserError, match=r"no answer within 0.2 seconds"):
            download("a.bin", mirrors, tmp_path / "a.bin", checksum=CHECKSUM)
        assert time.monotonic() - start < 2


def test_an_unresolvable_mirror_leaves_five_of_ten_seconds_to_the_imports(tmp_path):
    start = time.monotonic()
    with pytest.raises(UserError, match=r"is missing: looked for"):
        Cifar10(tmp_path, ["http://no-such-host.invalid"], md5="0" * 32).fetch()
    assert time.monotonic() - start < 5


def test_a_mirror_that_is_no_web_address_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'file:///etc' of passwd is not an http"):
        download("passwd", ["file:///etc"], tmp_path / "a", checksum=CHECKSUM)


def test_a_file_larger_than_the_free_disk_is_not_begun(server, tmp_path):
    with pytest.raises(UserError, match=r"MB free, the download needs"):
        download("a.bin", [server.url], tmp_path / "a.bin", checksum=CHECKSUM, size=1 << 60)
    assert server.requests == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a.bin cannot be written"):
        download("a.bin", [], tmp_path / "file" / "a.bin", checksum=CHECKSUM)


def test_a_source_fetches_its_archive_from_a_mirror_and_verifies_it(server, tmp_path):
    upstream = write_cifar10(tmp_path / "upstream")
    server.content = upstream.read_bytes()
    source = Cifar10(tmp_path / "cifar10", [server.url], **checksums(upstream))
    assert source.missing()
    source.fetch()
    assert source.missing() is None
    assert source.download_bytes() == 0
    assert len(source.read("train")) == 40


def test_a_downloaded_archive_that_is_not_the_official_one_is_refused(server, tmp_path):
    source = Cifar10(tmp_path / "cifar10", [server.url], md5="0" * 32)
    with pytest.raises(UserError, match=f"expected {source.md5}"):
        source.fetch()
    assert source.missing()
