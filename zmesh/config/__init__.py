"""The settings of a node: `Config` is one checked, frozen value of them.

It is loaded from a file, the environment and options, and completed with the settings of the node's identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.config.config import ISOLATION, LIMITS, SECTIONS, SETTINGS, TABLES, Config, DefaultId, Settings
    from zmesh.config.loading import VARIABLES, unknown_variables, variable_of
    from zmesh.config.origins import DEFAULT, FILE, IDENTITY, Origin, lines_of, placed
    from zmesh.config.resolution import config_of, identity_of, resolved
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "config": ("ISOLATION", "LIMITS", "SECTIONS", "SETTINGS", "TABLES", "Config", "DefaultId", "Settings"),
            "loading": ("VARIABLES", "unknown_variables", "variable_of"),
            "origins": ("DEFAULT", "FILE", "IDENTITY", "Origin", "lines_of", "placed"),
            "resolution": ("config_of", "identity_of", "resolved"),
        },
    )

__all__ = [
    "DEFAULT",
    "FILE",
    "IDENTITY",
    "ISOLATION",
    "LIMITS",
    "SECTIONS",
    "SETTINGS",
    "TABLES",
    "VARIABLES",
    "Config",
    "DefaultId",
    "Origin",
    "Settings",
    "config_of",
    "identity_of",
    "lines_of",
    "placed",
    "resolved",
    "unknown_variables",
    "variable_of",
]
