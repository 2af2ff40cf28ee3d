"""How Sphinx builds these pages; every warning is an error (tox.ini)."""

import configparser
from pathlib import Path

_setup = configparser.ConfigParser()
_setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")

project = "zmesh"
author = _setup["metadata"]["author"]
project_copyright = f"2026 {author}"
version = release = _setup["metadata"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

# Types in signatures whose pages are elsewhere, or that programs meet only as what a call takes or gives.
nitpick_ignore_regex = [
    ("py:class", r"(asyncio|collections|os)\..*"),
    ("py:class", r"(zmesh\.(controller|core|directives|legacy|node|testing\.simulator)\.)?[A-Za-z_.]+"),
    ("py:class", r"tuple\[str"),
]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"zmesh {version}"
