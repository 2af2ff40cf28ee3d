"""Parses `[HOST:]PORT`, `NODE:[HOST:]PORT` and `NODE:NAME`. An IPv6 address stands in brackets: `[::1]:80`."""

from __future__ import annotations

import re
from typing import NamedTuple

from zmesh.arguments import check_node, shown
from zmesh.errors import ConfigError

LOCALHOST = "localhost"
MAX_HOST = 255
"""Characters of the name of a host (RFC 1035, section 2.3.4)."""
RESERVED = frozenset({"connect", "expose"})
"""Names that no service may have, as they are actions of the namespace `tcp`."""
_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_HOST = re.compile(r"[^\s:/@\[\]]+\Z")


class Endpoint(NamedTuple):
    """A host and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def of(cls, text: str | int, *, zero: bool = False) -> Endpoint:
        """The endpoint that `[HOST:]PORT` names, at localhost without a host.

        `zero`: whether port 0 is allowed, for any free port. Raises ConfigError and TypeError.
        """
        if isinstance(text, bool) or not isinstance(text, (str, int)):
            raise TypeError(f"an address is a text such as 'localhost:80', or a port, not {type(text).__name__}")
        host, colon, port = str(text).rpartition(":")
        if not colon:
            host = LOCALHOST
        elif host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ConfigError(f"{shown(text)} is no [HOST:]PORT; an IPv6 address stands in brackets, such as [::1]:80")
        return checked(host, int(port) if port.isascii() and port.isdigit() else port, zero=zero)


class RemoteEndpoint(NamedTuple):
    """The remote end of a connection: an endpoint as `node` sees it, or a service that it exposes by name."""

    node: str
    endpoint: Endpoint | None
    service: str = ""

    def __str__(self) -> str:
        return f"{self.node}:{self.service if self.endpoint is None else self.endpoint}"

    @classmethod
    def of(cls, text: str) -> RemoteEndpoint:
        """The remote end that `NODE:[HOST:]PORT` or `NODE:NAME` names. Raises ConfigError and TypeError."""
        if not isinstance(text, str):
            raise TypeError(f"the other end is a text such as 'edge-7:80', not {type(text).__name__}")
        node, colon, rest = text.partition(":")
        if not colon or not node or not rest:
            raise ConfigError(
                f"{shown(text)} is no other end: give NODE:PORT, NODE:HOST:PORT, or NODE:NAME of a service"
            )
        check_node(node)
        if is_service(rest):
            return cls(node, None, rest)
        if ":" not in rest and not rest.isdigit():
            raise ConfigError(f"{shown(rest)} in {shown(text)} is neither a port nor the name of a service")
        return cls(node, Endpoint.of(rest))


def is_service(name: object) -> bool:
    """Whether a service may be called so: up to 63 of a-z, 0-9 and -, with a letter among them."""
    return isinstance(name, str) and _NAME.match(name) is not None and name not in RESERVED


def check_service(name: object) -> str:
    """The name of a service. Raises ConfigError for a malformed one."""
    if not isinstance(name, str) or not is_service(name):
        raise ConfigError(
            f"{shown(name)} can't be the name of a service: it has 1 to 63 of a-z, 0-9 and '-', a letter among them, "
            f"and is none of {', '.join(sorted(RESERVED))}"
        )
    return name


def checked(host: object, port: object, *, zero: bool = False) -> Endpoint:
    """The endpoint of this host and port. Raises ConfigError."""
    if isinstance(port, bool) or not isinstance(port, int) or not (0 if zero else 1) <= port <= 65535:
        raise ConfigError(f"{shown(port)} is no TCP port: that is a number from {0 if zero else 1} to 65535")
    is_ipv6 = isinstance(host, str) and ":" in host and re.fullmatch(r"[0-9A-Fa-f:.]+(%[\w.-]+)?", host) is not None
    if not isinstance(host, str) or len(host) > MAX_HOST or not (is_ipv6 or _HOST.match(host)):
        raise ConfigError(f"{shown(host)} is no host: give a name or an IP address")
    return Endpoint(host, port)
