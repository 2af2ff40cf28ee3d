"""The systemd unit of a node, as text."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import sys
from typing import NamedTuple

from zmesh_cli.exit_codes import USAGE, Failure

NAME = re.compile(r"[A-Za-z0-9:_.-]{1,64}\Z")

_HEAD = """# Written by 'zmesh service install'; 'zmesh service uninstall' removes it.
[Unit]
Description=zmesh node{of}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload={reload}
Restart=always
RestartSec=1
WatchdogSec=60
TimeoutStopSec=20
KillMode=mixed
LimitNOFILE=65536
UMask=0077
"""
_SYSTEM = """RuntimeDirectory={name}
RuntimeDirectoryMode=0700
Environment=XDG_RUNTIME_DIR=%t/{name}
"""
_STATE = """StateDirectory={name}
StateDirectoryMode=0700
DynamicUser=yes
"""
_HARDENING = """NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
_OF_SYSTEM = """CapabilityBoundingSet=
AmbientCapabilities=
DevicePolicy=closed
KeyringMode=private
PrivateDevices=yes
PrivateTmp=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome={home}
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
"""


class Unit(NamedTuple):
    """The fields of a unit file. `state`: the folder of the identity; None: systemd makes one (StateDirectory)."""

    name: str
    system: bool
    config: str | None = None
    state: str | None = None
    unconfined: bool = False

    @property
    def file(self) -> str:
        """The path of the unit."""
        if self.system:
            return f"/etc/systemd/system/{self.name}.service"
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return os.path.join(home, "systemd/user", f"{self.name}.service")

    def text(self) -> str:
        """The unit."""
        zmesh = command()
        words = [*zmesh, "node", *(["--config", os.path.abspath(self.config)] if self.config else [])]
        of = "" if self.name == "zmesh" else f" {self.name.removeprefix('zmesh-')}"
        # 'zmesh reload' waits, and fails if the file is bad; of several nodes of a user it might not find the right one
        reload = _line([*zmesh, "reload"]) if self.system else "/bin/kill -HUP $MAINPID"
        parts = [_HEAD.format(command=_line(words), reload=reload, of=of)]
        if self.system:
            parts.append(_SYSTEM.format(name=self.name))
        if self.state is not None:
            parts.append(f"Environment=ZMESH_STATE={_quoted(os.path.abspath(self.state))}\n")
        if self.system:
            parts.append(_STATE.format(name=self.name) if self.state is None else self._owner())
        if not self.unconfined:
            parts.append(_HARDENING)
            if self.system:
                needs = (*words, self.state or "")
                in_home = any(word.startswith(("/home/", "/root/", "/run/user/")) for word in needs)
                parts.append(_OF_SYSTEM.format(home="read-only" if in_home else "yes"))
                if self.state is not None:
                    parts.append(f"ReadWritePaths={_quoted(os.path.abspath(self.state))}\n")
        parts.append(f"\n[Install]\nWantedBy={'multi-user' if self.system else 'default'}.target\n")
        return "".join(parts)

    def _owner(self) -> str:
        """The user whom the folder of the identity belongs to, who alone may read it."""
        assert self.state is not None
        try:
            return f"User={pwd.getpwuid(os.stat(self.state).st_uid).pw_name}\n"
        except OSError as error:
            raise Failure(f"{self.state} can't be read: {error.strerror}", USAGE) from None
        except KeyError:
            raise Failure(f"{self.state} belongs to a user that has no name here; chown it", USAGE) from None


def command() -> list[str]:
    """The words that run this very zmesh."""
    script = os.path.join(os.path.dirname(sys.executable), "zmesh")
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-P", "-m", "zmesh_cli"]


def _line(words: list[str]) -> str:
    return shlex.join(words).replace("%", "%%")


def _quoted(path: str) -> str:
    escaped = path.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if re.search(r"[\s\"\\]", path) else escaped
