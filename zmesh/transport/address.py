"""Addresses of links: what a URL means, and which endpoint ZeroMQ is given for it."""

from __future__ import annotations

import contextlib
import socket
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from zmesh.core.links import DEFAULT_COST
from zmesh.errors import AddressError


class Target(NamedTuple):
    """A URL as ZeroMQ wants it, the cost of links through it, and as it was given."""

    endpoint: str
    cost: int
    url: str


def parse_url(url: str) -> Target:
    """Read `tcp://host:port`, `ipc://path`, `inproc://name` or `rnp://host:port`, with `?cost=N` or without.

    Raises AddressError with what is wrong and how it should look.
    """
    parts = urlsplit(url)
    scheme = "tcp" if parts.scheme == "rnp" else parts.scheme
    if parts.scheme == "rnps":
        raise AddressError(
            f"{url!r} asks for encryption, and this node has no key; use tcp:// inside a trusted network"
        )
    if scheme not in ("tcp", "ipc", "inproc"):
        raise AddressError(f"{url!r} is no address: it must begin with tcp://, ipc://, inproc:// or rnp://")
    cost = DEFAULT_COST
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key != "cost" or not value.isdigit() or not 1 <= int(value) <= 100_000:
            raise AddressError(f"{url!r}: after the ? only cost=N with N from 1 to 100000 is known, not {key}={value}")
        cost = int(value)
    rest = parts.netloc + parts.path
    if not rest:
        raise AddressError(f"{url!r} has nothing after {parts.scheme}://")
    if scheme == "tcp":
        host, colon, port = rest.rpartition(":")
        if not colon or not host or not (port == "*" or (port.isdigit() and int(port) <= 65535)):
            raise AddressError(
                f"{url!r} is no TCP address: it must look like tcp://host:port, the port from 0 to 65535"
            )
        if port == "0":
            rest = f"{host}:*"
    elif scheme == "ipc" and len(rest.encode()) > 106:
        raise AddressError(f"{url!r}: a socket's path may have 106 bytes, and this one has {len(rest.encode())}")
    return Target(f"{scheme}://{rest}", cost, url)


def bindable(target: Target) -> str:
    """The endpoint with its host as a number, which is what zmq_bind takes."""
    scheme, _, rest = target.endpoint.partition("://")
    if scheme != "tcp":
        return target.endpoint
    host, _, port = rest.rpartition(":")
    if host == "*" or host.startswith("[") or host.replace(".", "").isdigit():
        return target.endpoint
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        number = str(sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0][4][0])
        return f"tcp://[{number}]:{port}" if ":" in number else f"tcp://{number}:{port}"
    return target.endpoint
