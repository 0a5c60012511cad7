"""What ``--help`` prints, in the order of what people look for."""

import os
import re
import subprocess
import sys
from functools import lru_cache

import pytest

from amtml_pl.config.command_keys import COMMANDS
from amtml_pl.config.help_page import OF_A_RUN, SECTIONS, WIDTH
from amtml_pl.config.key import leaves
from amtml_pl.config.paths import config_directory
from amtml_pl.config.schema import COMPOSES, KEYS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a function that gives the page of a command above its defaults, printed once."""
    folder = tmp_path_factory.mktemp("pages")

    @lru_cache
    def printed(command, *words):
        typed = [sys.executable, "-m", f"amtml_pl.{command}", "--help", *words]
        done = subprocess.run(typed, cwd=folder, capture_output=True, text=True, check=True)
        own, _, defaults = done.stdout.partition("\nDefaults:\n")
        assert "Powered by Hydra" in defaults
        return own

    return printed


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_of_a_command_has_its_purpose_its_usage_and_its_keys(page, command):
    lines = page(command).splitlines()
    assert lines[0].endswith(".") or lines[1].endswith(".")
    assert any(line.startswith(f"  python -m amtml_pl.{command} ") for line in lines[:4])
    assert [line for line in lines if len(line) > WIDTH] == []
    listed = {re.sub("NAME|TERM", "*", line.split()[0]) for line in lines if re.match(r"  \w", line)}
    assert {path for path, _ in leaves(COMMANDS[command])} <= listed
    assert ("Every key of a run: python -m amtml_pl.train --help" in lines) == (command in OF_A_RUN)
    [details] = [line.removeprefix("Details: docs/") for line in lines if line.startswith("Details: ")]
    assert (config_directory().parent / "docs" / details).is_file()


def test_every_root_key_of_a_run_has_one_section():
    paths = [path for section in SECTIONS.values() for path in section]
    assert len(paths) == len(set(paths))
    assert {*KEYS, *COMPOSES} - {*paths} == {"hydra", "benchmark"}


def test_sections_come_before_choices_and_other_keys(page):
    text = page("train")
    titles = [line for line in text.splitlines() if re.match(r"[A-Z].*[^.]$", line)]
    assert titles[: len(SECTIONS)] == [*SECTIONS]
    assert text.index("  data.batch_size") < text.index("Choices (") < text.index("  data.classes")
    assert len(text[: text.index("Choices (")].splitlines()) <= 80


def test_the_page_lists_the_choices_also_of_the_users_folder(page, tmp_path):
    (tmp_path / "my" / "student").mkdir(parents=True)
    (tmp_path / "my" / "student" / "mine.yaml").write_text("# Mine.\nnetwork: {}\n")
    own = page("train", "--config-dir", str(tmp_path / "my"))
    assert re.search(r"^  student +densenet121, mine, mobilenet_v2", own, re.M)
    assert re.search(r"^  teacher +every student, timm/MODEL, activated_wrn_28_4", own, re.M)


def test_a_reader_that_ends_early_is_no_mistake(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    typed = [sys.executable, "-m", "amtml_pl.train", "--help"]
    done = subprocess.run(typed, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141
