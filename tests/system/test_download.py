import re
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from amtml_pl.data.datasets.cifar import Cifar10
from amtml_pl.errors import UserError
from amtml_pl.system import download as module
from amtml_pl.system.download import Download
from archives import checksums, md5, write_cifar10
from file_server import serving

CONTENT = bytes(range(256)) * 4000


SIZE = len(CONTENT)


def download(name, folders, target, *, size=SIZE, resumable=True):
    def wrong(file):
        got = md5(file.read_bytes())
        return None if got == md5(CONTENT) else f"got md5 {got}, expected {md5(CONTENT)}"

    urls = [f"{folder}/{name}" for folder in folders]
    key = "mirrors=[https://HOST/FOLDER]"
    Download(urls, target, wrong, size, key=key, root="paths.data", resumable=resumable).fetch()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def dead_mirror():
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_a_file_is_loaded_verified_and_not_loaded_again(server, tmp_path):
    target = tmp_path / "new folder" / "a.bin"
    for _ in range(2):
        download("a.bin", [server.url], target)
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/folder/a.bin", "bytes=0-")]
    assert not target.with_name("a.bin.part").exists()


def test_a_broken_transfer_is_resumed(server, tmp_path):
    server.cut = 1000
    with pytest.raises(UserError, match=rf"ended after 1000 of {len(CONTENT)} bytes"):
        download("a.bin", [server.url], tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()
    server.cut = None
    download("a.bin", [server.url], tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1000-"


@pytest.mark.parametrize(("part", "requests"), [(CONTENT[:1000], 1), (CONTENT, 0)])
def test_a_server_without_ranges_sends_the_file_anew_and_a_whole_part_is_verified(
    server, tmp_path, part, requests
):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(part)
    download("a.bin", [server.url], tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.requests) == requests


@pytest.mark.parametrize("longer", [b"", b"one that sends more than the official size"])
def test_another_file_is_removed_and_its_checksum_is_reported(server, tmp_path, longer):
    server.content = b"x" + CONTENT[1:] + longer
    got = md5(server.content[: len(CONTENT)])
    with pytest.raises(UserError, match=rf"a wrong file \(got md5 {got}, expected {md5(CONTENT)}\)"):
        download("a.bin", [server.url], tmp_path / "a.bin")
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".lock"] == []


def test_a_transfer_that_began_with_another_file_is_begun_again(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    download("a.bin", [server.url], tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [first for _, first in server.requests] == ["bytes=1000-", "bytes=0-"]


@pytest.mark.parametrize(("part", "requests"), [(CONTENT, ["bytes=1024000-"]), (b"x" * 2000000, 2)])
def test_without_a_known_size_the_server_states_it(server, tmp_path, part, requests):
    """A part may be whole, or longer than the file."""
    download("a.bin", [server.url], tmp_path / "a.bin", size=None)
    (tmp_path / "b.bin.part").write_bytes(part)
    server.requests.clear()
    download("b.bin", [server.url], tmp_path / "b.bin", size=None)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes() == CONTENT
    firsts = [first for _, first in server.requests]
    assert requests in (firsts, len(firsts))


def test_a_transfer_that_cannot_be_verified_is_not_resumed(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    download("a.bin", [server.url], tmp_path / "a.bin", size=None, resumable=False)
    assert [first for _, first in server.requests] == ["bytes=0-"]


def test_a_transfer_that_cannot_be_verified_takes_no_bytes_of_two_servers(server, tmp_path):
    server.cut = 1000
    with serving(CONTENT) as mirror:
        download("a.bin", [server.url, mirror.url], tmp_path / "a.bin", size=None, resumable=False)
        assert [first for _, first in mirror.requests] == ["bytes=0-"]


@pytest.mark.parametrize(
    ("fault", "printed"),
    [
        ({"kind": "text/html", "content": b"<html>sign in</html>"}, r"answered with a page \(text/html\)"),
        ({"sized": False, "ranges": False}, "does not state the size of the file"),
        ({"content": b"short"}, "a wrong file"),
    ],
)
def test_an_answer_that_is_not_the_file_leaves_nothing(server, tmp_path, fault, printed):
    vars(server).update(fault)
    with pytest.raises(UserError, match=printed):
        download("a.bin", [server.url], tmp_path / "a.bin", size=None)
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".lock"] == []


def test_a_page_in_place_of_the_rest_keeps_what_has_arrived(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="answered with a page"):
        download("a.bin", [server.url], tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1000]


def test_a_file_that_is_too_large_is_not_loaded(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"too large \(got 1,024,000 bytes, expected at most 1,000"):
        download("a.bin", [server.url], tmp_path / "a.bin", size=None)


def test_mirrors_that_fail_are_skipped_and_each_reason_is_reported(server, tmp_path, dead_mirror):
    broken = [dead_mirror, f"{server.url}/absent"]
    with pytest.raises(UserError) as error:
        download("a.bin", broken, tmp_path / "a.bin")
    assert re.search(rf"{dead_mirror}/a.bin: .*refused", str(error.value))
    assert f"{server.url}/absent/a.bin: HTTP Error 404" in str(error.value)
    download("a.bin", [*broken, server.url], tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_silent_mirrors_share_one_deadline(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "OPENING_SECONDS", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        mirrors = [f"http://127.0.0.1:{silent.getsockname()[1]}/{i}" for i in range(3)]
        start = time.monotonic()
        with pytest.raises(UserError, match=r"no answer within 0.1 seconds"):
            download("a.bin", mirrors, tmp_path / "a.bin")
        assert time.monotonic() - start < 2


def test_a_mirror_that_is_not_a_web_address_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'file:///etc/passwd' is not an http"):
        download("passwd", ["file:///etc"], tmp_path / "a")


def test_a_file_larger_than_the_free_disk_is_not_requested(server, tmp_path):
    with pytest.raises(UserError, match=r"MB free, but the download needs"):
        download("a.bin", [server.url], tmp_path / "a.bin", size=1 << 60)
    assert server.requests == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a.bin cannot be written"):
        download("a.bin", [], tmp_path / "file" / "a.bin")


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
        download("data.bin", [server.url, f"{server.url}/other"], tmp_path / "data.bin")
    assert len(server.requests) == 1
