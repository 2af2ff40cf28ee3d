"""The settings of a node and the versions of what it runs on, as `zmesh:settings` answers them: without secrets."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from zmesh.operate.json_form import JsonForm
from zmesh.transport import libzmq_version
from zmesh.version import __version__

_LIBRARIES = ("pyzmq", "msgpack", "xxhash", "cryptography", "cloudpickle", "typer", "aiohttp")


@dataclass(frozen=True, slots=True)
class ShownSetting(JsonForm):
    """A setting by its name, such as `peers` or `allow.exec:*`, its value, and where it comes from.

    `origin` is `default`, `file`, `environment`, `command line`, `identity` or `program`, `where` the line of the file,
    the variable or the folder.
    """

    name: str
    value: object
    origin: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class NodeSettings(JsonForm):
    """The settings of a node, without secrets, and the versions of Python, zmesh, its libraries and the system."""

    node: str
    settings: tuple[ShownSetting, ...]
    versions: Mapping[str, str]


@functools.cache
def versions() -> Mapping[str, str]:
    """The versions of this process: zmesh, Python, the libraries that are installed, and the system."""
    found = {"zmesh": __version__, "python": platform.python_version(), "system": platform.platform()}
    found["libzmq"] = libzmq_version()
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # it comes with an extra
            continue
    return found
