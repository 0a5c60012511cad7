"""Configure Sphinx: ``make docs``, then open docs/_build/html/index.html."""

import re

from sphinx.application import Sphinx

project = "amtml_pl"
copyright = "2026, the authors of amtml_pl"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = "amtml_pl"
html_static_path: list[str] = []
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # so that pages can point to each other's sections
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_include_init_with_doc = False


def setup(app: Sphinx) -> None:
    """Replace links to the sources by plain text on the site."""
    app.connect("source-read", unlink_sources)


def unlink_sources(app: Sphinx, page: str, source: list[str]) -> None:
    """Keep the text of the links that lead out of docs/."""
    outside = r"\]\((?:\.\./)" + ("{2}" if "/" in page else "{1}") + r"[^)]*\)"
    source[0] = re.sub(rf"\[([^\]]+){outside}", r"\1", source[0])
