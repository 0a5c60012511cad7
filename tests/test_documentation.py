"""What the documentation says is so: links lead somewhere, commands can be typed, the site can be made."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from amtml_pl import train
from amtml_pl.command_line import first_value
from amtml_pl.config import check_values, constructor_mistakes
from amtml_pl.config_files import config_directory
from tiny_runs import TINY

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
COMMAND = re.compile(r"(?:python|torchrun [\w -]+?) -m amtml_pl\.(\w+)((?: .*)?)$")
FLAGS = ("-m", "--multirun", "--help", "--cfg", "job", "…")


def anchor(heading):
    """What GitHub and MyST make of a heading, in links."""
    text = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for path, fragment in LINK.findall(page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {path}"
        if fragment and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert fragment in [anchor(heading) for heading in headings], f"{page.name}: {path}#{fragment}"


def commands():
    """What can be typed: lines of shell blocks, and the commands of the configuration's files, once each."""
    texts = [
        block.replace("\\\n", " ")
        for page in PAGES
        if page.name != "tutorial.md"  # which is followed as a whole
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    texts += [
        line.partition("Command:")[2].partition("   (")[0]
        for file in config_directory().glob("*/*.yaml")
        for line in file.read_text().splitlines()
        if line.startswith("# Command:")
    ]
    found = {}
    for line in "\n".join(texts).splitlines():
        if command := COMMAND.search(line.partition("   #")[0].strip()):
            words = shlex.split(command[2], comments=True)
            found[f"{command[1]} {shlex.join(words)}"] = command[1], words
    return found


COMMANDS = commands()
ON_DIGITS = [
    words
    for name, words in COMMANDS.values()
    if name == "train"
    and "=digits" in " ".join(words)
    and "trainer=ddp_cpu" not in words  # tests/ranks has that
]


def test_there_are_many_commands():
    assert len(COMMANDS) > 60
    assert len(ON_DIGITS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_and_is_sound(command):
    """Of a sweep its first job; what a folder of the reader's own would bring is left out."""
    name, words = COMMANDS[command]
    if "--config-dir" in words:
        pytest.skip("it needs a folder of the reader's own; the tutorial's test has one")
    if "FOLDER" in words or "--help" in words:
        words = []
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        told = OverridesParser.create().parse_overrides([word for word in words if word not in FLAGS])
        config = compose(name, [word for word in map(first_value, told) if word])
        if name == "train" and words:
            check_values(config)
            wrong = [mistake for mistake in constructor_mistakes(config) if "none is found" not in mistake]
            assert wrong == []


def first_job(words):
    """What a sweep's first job is told, without what says how a sweep runs: its own tests show that."""
    told = OverridesParser.create().parse_overrides([word for word in words if word not in FLAGS])
    left_out = ("launcher", "hydra/sweeper", "hydra.sweeper.n_trials", "seed")
    return tuple(word for o in told if o.key_or_group not in left_out and (word := first_value(o)))


@pytest.mark.slow
@pytest.mark.parametrize("own", {first_job(words): None for words in ON_DIGITS}, ids=" ".join)
def test_every_command_on_digits_runs(own, shared, tmp_path, command, monkeypatch):
    """Of a sweep its first job, and all of it on few images."""
    taught = not {"experiment=digits_ce", "experiment=digits_teacher", "method=ce"} & set(own)
    tiny = TINY if taught else [word for word in TINY if "teacher" not in word]
    roots = {"OUTPUTS": tmp_path, "DATA": shared / "data", "TEACHERS": shared / "teachers"}
    for name, folder in roots.items():
        monkeypatch.setenv(f"AMTML_{name}", str(folder))
    assert "Everything is in" in command(train.main, *tiny, *own)


def test_the_reference_is_what_the_yaml_files_and_docstrings_say():
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    said = (DOCS / "reference.md").read_text()
    assert said == made.reference(), "python docs/reference.py writes it anew"


@pytest.mark.slow
def test_the_site_is_made_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "coef.ce" in (tmp_path / "reference.html").read_text()
    assert "load_run" in (tmp_path / "api.html").read_text()
