"""Every test here runs in a folder of its own, and may change nothing but what lies in ``out``."""

import pytest


@pytest.fixture(autouse=True)
def only_out_is_touched(tmp_path, monkeypatch):
    """The working folder is watched with all beside it; ``hostile`` is for what a test itself lays there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "hostile").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "secret.txt").write_text("nobody asked for this")
    monkeypatch.chdir(tmp_path / "here")
    yield
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*"))
    beside = [name for name in left if name.split("/")[0] not in ("out", "hostile")]
    assert beside == ["here", "here/secret.txt"]
    assert (tmp_path / "here" / "secret.txt").read_text() == "nobody asked for this"


@pytest.fixture
def hostile(tmp_path):
    return tmp_path / "hostile"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def canary(tmp_path):
    """A file that a payload would write; it must not be there in the end."""
    file = tmp_path / "out" / "canary"
    yield file
    assert not file.exists(), "code from a file was run"
