"""The table `[metrics]`."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import NamedTuple

from zmesh.arguments import shown
from zmesh.errors import ConfigError, did_you_mean

KEYS = ("address", "textfile", "interval", "insecure")
INTERVAL = (1.0, 3600.0)


class MetricsSettings(NamedTuple):
    """The table `[metrics]`: the address (host and port) to serve at or the file to write, the interval of writing in
    seconds, and whether plaintext to other machines is allowed.
    """

    address: tuple[str, int] | None
    textfile: str | None
    interval: float
    insecure: bool


def read_settings(table: Mapping[str, object], *, insecure: bool) -> MetricsSettings:
    """The settings of the table; `insecure`: the node allows plaintext to other machines. Raises ConfigError."""
    for key in table:
        if not isinstance(key, str) or key not in KEYS:
            hint = did_you_mean(key, KEYS) if isinstance(key, str) else ""
            raise ConfigError(f"[metrics] has no key {shown(key)}{hint}")
    allowed = table.get("insecure", insecure)
    if not isinstance(allowed, bool):
        raise ConfigError(f"[metrics] insecure must be true or false, not {shown(allowed)}")
    textfile, interval = table.get("textfile"), table.get("interval", 15.0)
    if textfile is not None and not (isinstance(textfile, str) and textfile.endswith(".prom") and "\0" not in textfile):
        raise ConfigError(f"[metrics] textfile must be the path of a file NAME.prom, not {shown(textfile)}")
    if (
        isinstance(interval, bool)
        or not isinstance(interval, (int, float))
        or not INTERVAL[0] <= interval <= INTERVAL[1]
    ):
        raise ConfigError(f"[metrics] interval = {shown(interval)} is not a number of seconds from 1 to 3600")
    address = _address(table["address"], insecure=allowed) if "address" in table else None
    if address is None and textfile is None:
        raise ConfigError('[metrics] needs address = "127.0.0.1:9464" or textfile = "/.../zmesh.prom"')
    path = os.path.expanduser(textfile) if textfile is not None else None
    return MetricsSettings(address, path, float(interval), allowed)


def _address(given: object, *, insecure: bool) -> tuple[str, int]:
    host, _, port = given.rpartition(":") if isinstance(given, str) else ("", "", "")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    number = 0 if port == "*" else int(port) if port.isascii() and port.isdigit() else -1
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        ip = None
    if ip is None or not 0 <= number < 65536:
        raise ConfigError(
            f"[metrics] address must be IP:PORT, such as 127.0.0.1:9464 or [::1]:9464, not {shown(given)}"
        )
    if not ip.is_loopback and not insecure:
        raise ConfigError(
            f"metrics at {given} would be plaintext to other machines: use 127.0.0.1 and reach it by `zmesh forward`, "
            "or a textfile; insecure = true in [metrics], or --insecure, is for a network that you trust"
        )
    return host, number
