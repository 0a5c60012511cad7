"""A published file of weights is downloaded once, verified, and used from its place."""

import hashlib
import io
import logging
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from amtml_pl.errors import UserError
from amtml_pl.teachers.published import PublishedFile
from file_server import serving

WEIGHTS = {"fc.weight": torch.arange(6.0).view(2, 3)}
MEMBER = "cifar_teachers/resnet8_vanilla/ckpt.pth"


def torch_file(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def archive(members):
    """A tar archive in the layout of mdistiller, with a link and a folder beside its files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        link = tarfile.TarInfo("cifar_teachers/link.pth")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


FILE = torch_file({"model": WEIGHTS})
SHA = hashlib.sha256(FILE).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(FILE) as server:
        yield server


@pytest.fixture
def published(server, tmp_path):
    """Return a function that describes a file of the server."""

    def made(sha256=SHA[:8], member=None, mirrors=(), name="weights.pt", url=None):
        address = url or f"{server.url}/{name}"
        return PublishedFile(address, sha256, mirrors, member, tmp_path / "published")

    return made


def files(folder):
    """Return the names of the files of a folder, without locks."""
    return sorted(
        f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.suffix not in ("", ".lock")
    )


@pytest.mark.parametrize("sha256", [SHA, SHA[:8], SHA[:12].upper()])
def test_a_file_is_downloaded_once_and_then_found(server, published, sha256):
    file = published(sha256)
    assert file.found() is None
    file.fetch()
    file.fetch()
    assert file.found() == file.folder / "weights.pt"
    assert file.found().read_bytes() == FILE
    assert len(server.requests) == 1


def test_processes_at_once_download_a_file_once(server, published):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: published().fetch(), range(4)))
    assert len(server.requests) == 1


def test_a_file_that_is_there_is_used_without_a_server(server, published):
    file = published(url="https://unreachable.invalid/folder/weights.pt")
    file.folder.mkdir()
    (file.folder / "weights.pt").write_bytes(FILE)
    file.fetch()
    assert file.found() is not None


def test_a_file_that_changes_under_its_name_is_refused(server, published):
    file = published()
    file.fetch()
    file.file.write_bytes(FILE[:-1] + b"x")
    with pytest.raises(UserError, match=rf"(?s)is not the published file .*expected {SHA[:8]}.*Fix: rm"):
        file.found()
    with pytest.raises(UserError, match="is not the published file"):
        file.fetch()


def test_a_wrong_file_is_one_error_and_nothing_is_kept(server, published):
    server.content = FILE + b"more"
    with pytest.raises(UserError, match=rf"a wrong file \(got sha256 [0-9a-f]{{64}}, expected {SHA[:8]}\)"):
        published().fetch()
    assert files(published().folder) == []


def test_an_interrupted_download_is_resumed(server, published):
    server.cut = 100
    with pytest.raises(UserError, match=rf"ended after 100 of {len(FILE)} bytes"):
        published().fetch()
    assert published().found() is None
    server.cut = None
    published().fetch()
    assert published().found().read_bytes() == FILE
    assert server.requests[-1][1] == "bytes=100-"


def test_a_server_that_answers_with_a_page_is_one_error(server, published):
    server.kind, server.content = "text/html", b"<html>sign in</html>"
    with pytest.raises(UserError, match="answered with a page") as error:
        published().fetch()
    assert "teacher.NAME.weights.mirrors=[https://HOST/FOLDER]" in str(error.value)
    assert files(published().folder) == []


def test_a_mirror_is_asked_if_the_address_does_not_answer(server, published):
    published(url=f"{server.url}/absent/weights.pt", mirrors=(f"{server.url}/",)).fetch()
    assert [path for path, _ in server.requests] == ["/folder/absent/weights.pt", "/folder/weights.pt"]
    assert published().found().read_bytes() == FILE


def test_without_a_checksum_the_file_must_be_complete_and_its_own_is_reported(server, published, caplog):
    file = published(sha256=None)
    server.cut = 100
    with pytest.raises(UserError, match="ended after 100"):
        file.fetch()
    server.cut = None
    with caplog.at_level(logging.WARNING):
        file.fetch()
    assert file.found().read_bytes() == FILE
    assert server.requests[-1][1] == "bytes=0-"  # a rest could be of another file
    assert SHA in caplog.text


@pytest.mark.parametrize("prefix", ["", "./"])
def test_one_member_of_an_archive_is_kept_and_the_archive_serves_the_others(server, published, prefix):
    other = "cifar_teachers/vgg8_vanilla/ckpt.pth"
    server.content = archive({prefix + other: b"other", prefix + MEMBER: FILE})
    file = published(member=MEMBER, name="cifar_teachers.tar")
    file.fetch()
    assert file.found() == file.folder / MEMBER
    assert file.found().read_bytes() == FILE
    published(sha256=None, member=other, name="cifar_teachers.tar").fetch()
    assert (file.folder / other).read_bytes() == b"other"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "member", "printed"),
    [
        (archive({MEMBER: b"other"}), MEMBER, "a wrong file .got sha256"),
        (archive({"another.pth": FILE}), MEMBER, f"cannot give {re.escape(MEMBER)}"),
        (archive({}), "cifar_teachers/link.pth", "cannot give cifar_teachers/link.pth"),
        (b"no archive", MEMBER, "cannot give .*"),
        (archive({MEMBER: FILE * 100})[:2000], MEMBER, "a wrong file|cannot give"),
    ],
)
def test_an_archive_without_the_member_is_one_error_and_nothing_is_kept(
    server, published, content, member, printed
):
    server.content = content
    file = published(member=member, name="cifar_teachers.tar")
    with pytest.raises(UserError, match=printed):
        file.fetch()
    assert files(file.folder) == []


def test_a_local_archive_that_is_another_one_is_named(server, published):
    file = published(member=MEMBER, name="cifar_teachers.tar")
    file.folder.mkdir()
    (file.folder / "cifar_teachers.tar").write_bytes(archive({MEMBER: b"other"}))
    with pytest.raises(UserError, match=r"(?s)cifar_teachers.tar is not the published archive.*Fix: rm"):
        file.fetch()
    assert server.requests == []
