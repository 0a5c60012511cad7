"""Every test here runs in an empty folder, and may change nothing outside of ``out``."""

import pickle

import pytest
from canary import Payload


@pytest.fixture(autouse=True)
def only_out_is_touched(tmp_path, monkeypatch):
    """Watch the working folder and those beside it; a test itself writes to ``hostile``."""
    for name in ("out", "hostile", "here"):
        (tmp_path / name).mkdir()
    secret = tmp_path / "here" / "secret.txt"
    secret.write_text("unchanged")
    monkeypatch.chdir(tmp_path / "here")
    yield
    left = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*"))
    beside = [str(file) for file in left if file.parts[0] not in ("out", "hostile")]
    assert beside == ["here", "here/secret.txt"]
    assert secret.read_text() == "unchanged"


@pytest.fixture
def hostile(tmp_path):
    return tmp_path / "hostile"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def canary(tmp_path):
    """Return a file that a payload would write; it must not exist in the end."""
    file = tmp_path / "out" / "canary"
    yield file
    assert not file.exists(), "code from a file was run"


@pytest.fixture
def payload(canary):
    """Return a payload, after an ordinary unpickling has run it."""
    harm = Payload(canary)
    pickle.loads(pickle.dumps(harm))  # noqa: S301 (only here)
    canary.unlink()
    return harm
