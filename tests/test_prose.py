"""The README, docs, docstrings and messages keep the style of CONTRIBUTING.md."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")
] + [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]  # fmt: skip
GENERATED = "reference.md"
SPEECH_AND_COURT = re.compile(
    r"\b(said|told|heard|held against|goes on|gone on with|in words|whoever|whatever|whom|nobody|is no"
    r"|mistake of the user's)\b(?! longer)",
    re.IGNORECASE,
)
METHODS = sorted(
    page.stem for page in (ROOT / "docs/methods").glob("*.md") if page.stem not in ("index", "notation")
)


def documented(source):
    """Return the first lines of a module's docstrings."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, nodes)]
    return [text.splitlines()[0] for text in found if text]


def messages(source):
    """Return the texts that a module raises or prints as an error: calls of exceptions, with their fixes."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and re.search(r"Error$|^(warn|echo|report)$", name_of(node.func))
    ]
    return [
        " ".join(
            part.value
            for part in ast.walk(call)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        )
        for call in calls
    ]


def name_of(called):
    return getattr(called, "id", getattr(called, "attr", ""))


def prose(page):
    """Return a page's paragraphs and list entries, without code, tables, formulas and headings."""
    text = re.sub(r"^```.*?^```|\$\$.*?\$\$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:-|\d+\.) )", text)
    return [" ".join(block.split()) for block in blocks if not re.match(r"\s*(\||#|:?```|!\[|\[!)", block)]


def sentences(page):
    for block in prose(page):
        shown = re.sub(r"\]\([^)]*\)|`[^`]*`|\$[^$]*\$", "X", block)
        yield from (sentence for sentence in re.split(r"(?<=[.!?]) +", shown) if len(sentence.split()) > 2)


def test_a_sentence_with_an_idiom_of_speech_is_found():
    assert SPEECH_AND_COURT.search("The run is told to stop.")
    assert SPEECH_AND_COURT.search("There is no teacher.")
    assert not SPEECH_AND_COURT.search("The teacher is no longer available.")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_docstrings_and_messages_have_no_idioms(source):
    text = source.read_text()
    wrong = [line for line in documented(text) + messages(text) if SPEECH_AND_COURT.search(line)]
    assert wrong == []


def test_first_lines_of_docstrings_are_short_and_no_clauses():
    lines = [line for source in SOURCES for line in documented(source.read_text())]
    assert [line for line in lines if len(line.split()) > 15] == []
    assert [line for line in lines if re.match(r"(What|Whether) ", line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_have_plain_headings_and_short_sentences(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    assert [heading for heading in headings if SPEECH_AND_COURT.search(heading)] == []
    if page.name == GENERATED:
        return
    lengths = [len(sentence.split()) for sentence in sentences(page)]
    assert sum(lengths) <= 20 * len(lengths)
    lines = re.sub(
        r"^```.*?^```|\$[^$\n]*\$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE
    ).splitlines()
    tables_and_code = re.compile(r"\s*(\||\[?!\[|`)")
    assert [line for line in lines if len(line) > 130 and not tables_and_code.match(line)] == []


def test_the_readme_fits_a_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("method", METHODS)
def test_the_page_of_a_method_has_one_form_and_the_rows_of_the_study(method):
    page, study = (ROOT / f"docs/methods/{method}.md").read_text(), (ROOT / "docs/results.md").read_text()
    study = study[study.index("## CIFAR-10 as JPEG, small") :]
    sections = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert sections == ["What it does", "Formula", "Source", "Command", "Measured", "The published code"]
    if "\nNot measured yet.\n" in page:
        return
    rows = re.findall(r"^\| \w+ \| \d+ \| .*$", page, re.MULTILINE)
    assert {method, "avg", "ce"} <= {row.split()[1] for row in rows}
    assert [row for row in rows if row.rstrip("|") not in study] == []


def test_every_method_has_a_page_or_a_line_in_one():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs/methods").glob("*.md"))
    for file in (ROOT / "conf/method").glob("*.yaml"):
        assert f"`{file.stem}`" in pages, file.stem


def test_the_citation_has_the_package_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
