"""The version of this software, which stands nowhere else; `setup.cfg` reads it here."""

from __future__ import annotations

__version__ = "0.1.0"
