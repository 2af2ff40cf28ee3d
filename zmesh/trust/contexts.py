"""The state in use: that of the current context, unless ZMESH_STATE or systemd's STATE_DIRECTORY names a folder."""

from __future__ import annotations

from zmesh.identity import Contexts, default_folder, named_folder

__all__ = ["Contexts", "default_folder", "named_folder"]
