"""How Sphinx builds these pages; every warning is an error (tox.ini)."""

import configparser
import re
from pathlib import Path
from typing import Any

_setup = configparser.ConfigParser()
_setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")

project = "zmesh"
author = _setup["metadata"]["author"]
project_copyright = f"2026 {author}"
version = release = _setup["metadata"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
copybutton_prompt_text = "$ "  # of a console block, only the commands are copied
copybutton_line_continuation_character = "\\"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

nitpicky = True
# Types in signatures: those of the standard library, and ours that programs meet only as what a call takes or gives.
nitpick_ignore_regex = [("py:class", r"[A-Za-z_.]+(\[str)?")]

default_role = "code"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"zmesh {version}"


def _make_lists(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings list settings as a column of names and one of what they mean; make that a list."""
    lines[:] = [re.sub(r"^(`\w+`(?:, `\w+`)*) {2,}", r"- \1: ", line) for line in lines]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _make_lists)
