"""How Sphinx builds these pages; every warning is an error (tox.ini)."""

import configparser
from pathlib import Path

_setup = configparser.ConfigParser()
_setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")

project = "zmesh"
author = _setup["metadata"]["author"]
project_copyright = f"2026 {author}"
version = release = _setup["metadata"]["version"]

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"zmesh {version}"
