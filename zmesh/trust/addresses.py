"""URLs of identities and tickets: their checks, and those at which others reach this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable, Iterator

from zmesh.arguments import check_url
from zmesh.errors import ConfigError
from zmesh.transport import parse_peer, parse_url

MAX_URLS = 8
_SIOCGIFADDR = 0x8915
"""ioctl(2) that gives the IPv4 address of an interface (netdevice(7))."""
_ELSEWHERE = ("198.51.100.1", 9)
"""An address of documentation (RFC 5737): the route to it is looked up, and nothing is sent."""


def check_urls(listen: Iterable[str] = (), dialled: Iterable[str] = ()) -> None:
    """Accept URLs that a node can listen on, and those that others can dial. Raises AddressError, and TypeError."""
    for url in listen:
        check_url(url)
        parse_url(url)
    for url in dialled:
        check_url(url)
        parse_peer(url)


def reachable_urls(listen: tuple[str, ...]) -> tuple[str, ...]:
    """The URLs to dial for these to listen on. Raises ConfigError if none can be determined."""
    found: dict[str, None] = {}
    for url in listen:
        scheme, _, rest = url.partition("://")
        address, _, _ = rest.partition("?")
        host, _, port = address.rpartition(":")
        if scheme not in ("tcp", "rnps"):
            continue
        if not port.isdigit() or port == "0":
            raise ConfigError(f"{url} listens on any free port, so that its URL is not known; give a port, or --url")
        hosts = list(_addresses(host)) if host in ("*", "0.0.0.0", "[::]", "[*]") else [host]
        found.update(dict.fromkeys(f"tcp://{each}:{port}" for each in hosts))
    return tuple(found)[:MAX_URLS]


def is_loopback(url: str) -> bool:
    """Whether a URL can be dialled from its own machine alone."""
    host = url.partition("://")[2].partition("?")[0].rpartition(":")[0].strip("[]")
    if not url.startswith(("tcp://", "rnps://")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _addresses(wildcard: str) -> Iterator[str]:
    """The addresses of this machine, that of its default route first; loopback if there are no others."""
    found = [*_outgoing(), *_of_interfaces()]
    yield from dict.fromkeys(found)
    name = socket.getfqdn()
    if "." in name and not name.startswith("localhost") and not name.endswith(".arpa"):
        with contextlib.suppress(OSError):
            if not ipaddress.ip_address(socket.gethostbyname(name)).is_loopback:
                yield name
    if not found:
        yield "[::1]" if wildcard == "[::]" else "127.0.0.1"


def _outgoing() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(_ELSEWHERE)
        address = probe.getsockname()[0]
        if not ipaddress.ip_address(address).is_loopback:
            yield address


def _of_interfaces() -> Iterator[str]:
    """The first IPv4 address of each interface but loopback."""
    if sys.platform != "linux":
        return
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                address = socket.inet_ntoa(answer[20:24])
                if not ipaddress.ip_address(address).is_loopback:
                    yield address
