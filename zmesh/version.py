"""The version of this software; `setup.cfg` has it too."""

from __future__ import annotations

__version__ = "0.1.0"
