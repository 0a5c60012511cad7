"""The list of commands, ``python -m amtml_pl``, and how it runs one."""

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from amtml_pl import __main__ as listed

ROOT = Path(__file__).parent.parent


@pytest.fixture
def amtml(monkeypatch, capfd):
    """Return a function that runs ``python -m amtml_pl`` in this process, and returns what it prints."""

    def typed(*words, status=0):
        monkeypatch.setattr(sys, "argv", ["amtml", *words])
        if status:
            with pytest.raises(SystemExit) as stop:
                listed.main()
            assert stop.value.code == status
        else:
            listed.main()
        out, err = capfd.readouterr()
        return err if status else out

    return typed


def test_every_command_is_listed_with_a_line_of_its_module(amtml):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    names = {name.removeprefix("amtml-") for name in scripts if name.startswith("amtml-")}
    assert {*listed.COMMANDS} == names
    page = amtml()
    assert page == amtml("--help") == amtml("help")
    assert "\n  report     Compare all completed runs below a folder\n" in page
    assert all(f"\n  {name} " in page for name in names)
    assert str(ROOT / "docs" / "index.md") in page
    assert [line for line in page.splitlines() if len(line) > 100 and str(ROOT) not in line] == []


def test_the_list_imports_neither_torch_nor_hydra():
    code = (
        "import sys; from amtml_pl.__main__ import main; main(); print({'torch', 'hydra'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_the_commands_of_a_first_session_compose(configure):
    for command in listed.FIRST_SESSION[:2]:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "amtml_pl.train"]
        assert configure(*words[3:]).dataset.name == "digits"


def test_a_command_gets_the_words_behind_it(amtml, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"error: The path {tmp_path}/nowhere is not" in amtml("report", "runs=nowhere", status=2)
    assert "trainr: unknown key; did you mean 'trainer'?" in amtml("train", "trainr.max_epochs=1", status=2)


def test_the_most_similar_command_is_suggested(amtml):
    message = amtml("trian", "seed=1", status=2)
    assert "error: The command 'trian' is unknown; did you mean 'train'?" in message
    assert "Fix: python -m amtml_pl train seed=1" in message
    assert "expected one of ['benchmark'," in amtml("xyz", status=2)
