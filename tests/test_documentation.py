"""The documentation's links, commands and reference are right, and its site builds."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from amtml_pl.config.checks import constructor_mistakes, refuse, value_mistakes
from amtml_pl.config.command import CommandJob
from amtml_pl.config.command_keys import COMMANDS
from amtml_pl.config.override_errors import first_value
from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError
from amtml_pl.info import with_key

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
COMMAND = re.compile(r"(?:python|torchrun [\w -]+?) -m amtml_pl\.(\w+)((?: .*)?)$")
FLAGS = ("-m", "--multirun", "--help", "--cfg", "job", "…")


def anchor(heading):
    """Return the anchor that GitHub and MyST give a heading."""
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


def commands_in_blocks():
    """Yield the commands of shell blocks, and of the configuration's files."""
    texts = [
        block.replace("\\\n", " ")
        for page in PAGES
        if page.name != "tutorial.md"  # which is followed as a whole
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    for file in config_directory().glob("*/*.yaml"):
        found = re.findall(r"^# Command:(.*?)(?:   \(.*)?$", file.read_text(), re.MULTILINE)
        texts += found
    for line in "\n".join(texts).splitlines():
        if command := COMMAND.search(line.partition("   #")[0].strip()):
            yield command[1], shlex.split(command[2], comments=True)


def commands_in_sentences():
    """Yield the commands of inline code: whole ones, and the overrides of one."""
    for page in PAGES:
        # followed as a whole; generated; wrong on purpose
        if page.name in ("tutorial.md", "reference.md", "mistakes.md"):
            continue
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
            typed = " ".join(code.split())
            if "…" in typed or "..." in typed:
                continue
            if command := COMMAND.search(typed):
                yield command[1], shlex.split(command[2])
            elif re.match(r"[+~'\w.]+=", typed) and " " in typed:
                words = shlex.split(typed)
                if all("=" in word for word in words):
                    yield "evaluate" if page.name == "evaluate.md" else "train", words


def first_job(words):
    """Return the words of a sweep's first job, or of the only one; none for ``--help``."""
    overrides = [] if "--help" in words else [word for word in words if word not in FLAGS]
    firsts = map(first_value, OverridesParser.create().parse_overrides(overrides))
    return tuple(word for word in firsts if word and not word.startswith("seed="))


IN_BLOCKS, IN_SENTENCES = [*commands_in_blocks()], [*commands_in_sentences()]
JOBS = {  # once each; --config-dir needs a folder of the reader, which other tests have
    (name, first_job(with_key(words) if name == "info" else words)): None
    for name, words in (*IN_BLOCKS, *IN_SENTENCES)
    if "--config-dir" not in words
}


def test_the_architecture_names_every_folder_and_command_and_files_that_exist():
    page, package = (ROOT / "docs/architecture.md").read_text(), ROOT / "src/amtml_pl"
    for path in package.rglob("*"):
        if path.is_dir() and path.name != "__pycache__" and any(path.glob("*.py")):
            assert f"`{path.name}/`" in page, path
    for command in package.glob("*.py"):
        assert command.name == "__init__.py" or f"`{command.name}`" in page, command
    for name in re.findall(r"(?<![\w/*])(?:[a-z_]+/)+[a-z_]+\.py", page):
        assert (package / name.removeprefix("../src/amtml_pl/").removeprefix("src/amtml_pl/")).is_file(), name


def test_each_row_of_what_to_change_names_files_that_exist_and_words_that_they_contain():
    page = (ROOT / "docs/architecture.md").read_text()
    rows = page.partition("## I want to change")[2].partition("\n## ")[0].strip().splitlines()[4:]
    for row in rows:
        names = re.findall(r"`([^`]+)`", row.split("|")[2])
        patterns = [re.sub(r"<\w+>", "*", name).rstrip("/") for name in names if "/" in name]
        found = [[*(ROOT / "src/amtml_pl").glob(each), *ROOT.glob(each)] for each in patterns]
        assert found, row
        assert all(found), row
        modules = [module for each in found for top in each for module in (top, *top.glob("*.py"))]
        content = "".join(module.read_text() for module in modules if module.is_file())
        assert [name for name in names if "/" not in name and name not in content] == [], row


def test_the_pages_hold_many_commands():
    assert len(IN_BLOCKS) > 80
    assert len(IN_SENTENCES) >= 8


# An experiment alone is checked with the configuration.
@pytest.mark.slow
@pytest.mark.parametrize("job", [job for job in JOBS if len(job[1]) > 1 or job[0] != "train"], ids=str)
def test_every_command_composes_and_is_sound(hold, job):
    hold(*job)


@pytest.fixture
def hold(configure):  # which keeps Hydra initialised
    """Compose a command's overrides, and check them as the command does."""

    def composed(name, words):
        config = compose(name, [*words])
        job = CommandJob(name, config)
        if "teacher" not in config:  # a command without a run's configuration
            for key in ("run", "model", "images"):
                if config.get(key, "") is None:
                    config[key] = "given"
            job.options(COMMANDS[name], without="dataset")
            return
        if name in ("cache", "benchmark", "info"):
            job.take(COMMANDS[name])
        refuse(value_mistakes(config))  # those of the recipes are checked with the experiments
        assert [mistake for mistake in constructor_mistakes(config) if "no usable GPU" not in mistake] == []

    return composed


@pytest.mark.parametrize(
    ("name", "word"),
    [("export", "format=onxx"), ("evaluate", "split=tets"), ("predict", "top=0"), ("cache", "action=biuld"),
     ("benchmark", "benchmark.steps=1"), ("doctor", "temperature=0")],
)  # fmt: skip
def test_a_mistake_in_a_documented_command_would_be_found(hold, name, word):
    with pytest.raises(UserError, match=word.split(".")[-1].split("=")[0]):
        hold(name, [word])


def test_the_teacher_of_your_own_composes_from_the_page(hold, tmp_path):
    page = (DOCS / "teachers.md").read_text()
    _, block, defaults = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    [command] = re.findall(r"^python -m amtml_pl.train --config-dir my (.*)$", page, re.MULTILINE)
    for group, text in (("student", block), ("teacher", defaults)):
        (tmp_path / group).mkdir()
        (tmp_path / group / "convnext.yaml").write_text(text)
    hold("train", [f"hydra.searchpath=[{tmp_path}]", *shlex.split(command)])


def test_the_reference_is_generated_from_the_yaml_files_and_docstrings():
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (DOCS / "reference.md").read_text() == made.reference(), "python docs/reference.py writes it anew"


def leaves(node, path):
    """Yield the dotted keys and values of a configuration's leaves, without constructors."""
    if isinstance(node, dict) and node:
        children = node.items()
    elif isinstance(node, list) and any(isinstance(child, dict) for child in node):
        children = enumerate(node)
    else:
        yield path, node
        return
    for key, child in children:
        if not str(key).startswith("_"):
            yield from leaves(child, f"{path}.{key}" if path else str(key))


def sections():
    """Return the sections of the reference, by the words before the colon of their headings."""
    page = (DOCS / "reference.md").read_text()
    return {section.splitlines()[0].partition(":")[0]: section for section in page.split("\n## ")[1:]}


def cells(line):
    return [cell.strip().removeprefix("`").removesuffix("`") for cell in line.strip("|").split(" | ")]


def value_of(text):
    """Return a typed value; YAML requires quotes around interpolations in a list."""
    return yaml.safe_load(re.sub(r"(?<=[\[ ])(\$\{[\w.]+\})(?=[,\]])", r"'\1'", text))


def test_the_reference_has_every_key_of_the_root_and_of_composed_choices():
    """Methods, experiments, sweeps and launchers set keys anywhere; each is in its line."""
    root = OmegaConf.to_container(OmegaConf.load(config_directory() / "train.yaml"), resolve=False)
    inside = ("defaults", "hydra", "teacher", "loss")
    own = {key: value for key, value in root.items() if key not in inside}
    rows = [cells(line) for line in sections()["Root keys"].splitlines() if line.startswith("| `")]
    listed = {row[0]: value_of(row[1]) for row in rows}
    assert {key: listed.get(key, "?") for key, _ in leaves(own, "")} == dict(leaves(own, ""))
    for group in ("method", "experiment", "sweep", "launcher"):
        for file in (config_directory() / group).glob("*.yaml"):
            [line] = [row for row in sections()[group].splitlines() if row.startswith(f"| `{file.stem}` |")]
            content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
            content.pop("defaults", None)
            missing = [key for key, _ in leaves(content, "") if key and f"`{key}=" not in line]
            assert missing == [], f"{group}={file.stem}"


@pytest.mark.slow
def test_the_site_is_made_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "coef.ce" in (tmp_path / "reference.html").read_text()
    assert "load_run" in (tmp_path / "api.html").read_text()
