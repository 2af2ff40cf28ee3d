"""The table `[tcp]` of the configuration: the targets that a node connects to for others, and limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from zmesh.tunnel.addresses import Endpoint, RemoteEndpoint, check_service, checked

LOOPBACK = "loopback"
"""As the host of a target: the addresses 127.0.0.0/8 and ::1, by whichever name."""
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Service:
    """A service: a port that other nodes reach by a name."""

    name: str
    port: int
    host: str = "localhost"

    def __post_init__(self) -> None:
        check_service(self.name)
        checked(self.host, self.port)


@dataclass(frozen=True, slots=True)
class ForwardedPort:
    """A port of this machine that leads to another node: `listen` is `[HOST:]PORT`, `to` is `NODE:[HOST:]PORT` or
    `NODE:NAME`.
    """

    listen: str | int
    to: str

    def __post_init__(self) -> None:
        Endpoint.of(self.listen, zero=True)
        RemoteEndpoint.of(self.to)


@dataclass(frozen=True, slots=True)
class TcpSettings:
    """The table `[tcp]`. Raises ValueError for a value out of its limits."""

    targets: tuple[str, ...] = (f"{LOOPBACK}:*",)
    """The targets of connections: patterns `HOST:PORTS`. HOST is `loopback`, an address, a network such as 10.0.0.0/8,
    a name in which `*` is any text, or `*`; PORTS is a port, a range such as 8000-8010, or `*`."""
    connect_timeout: float = 10.0
    """Seconds to wait for each address of a host to answer."""
    max_connections: int = 4096
    """Connections for others at a time."""
    max_connections_per_node: int = 2048
    """The same, for one other node."""
    max_services: int = 256
    """Services that others may have this node expose (`tcp:expose`) at a time."""
    max_services_per_node: int = 192
    """The same, for one other node."""
    expose: tuple[Service, ...] = ()
    """Services; in a file also `[[expose]]`."""
    forward: tuple[ForwardedPort, ...] = ()
    """Ports that lead to other nodes; in a file also `[[forward]]`."""
    _patterns: tuple[_Pattern, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_patterns", tuple(map(_pattern_of, self.targets)))
        if not self.connect_timeout > 0:
            raise ValueError("connect_timeout must be a number above 0")
        for name in ("max_connections", "max_connections_per_node", "max_services", "max_services_per_node"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        names = [each.name for each in self.expose]
        if len(set(names)) < len(names):
            raise ValueError("two services of expose have the same name")

    def allows_name(self, endpoint: Endpoint) -> bool:
        """Whether the host as it is named may be connected to, whatever its addresses are."""
        return any(pattern.names(endpoint) for pattern in self._patterns)

    def allows_address(self, address: str, port: int) -> bool:
        """Whether this address, which a host has, may be connected to."""
        return any(pattern.contains(address, port) for pattern in self._patterns)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A pattern of targets. `networks` is empty for one of names."""

    host: str
    networks: tuple[_Network, ...]
    ports: range

    def names(self, endpoint: Endpoint) -> bool:
        if self.networks or endpoint.port not in self.ports:
            return False
        return fnmatchcase(endpoint.host.lower().rstrip("."), self.host)

    def contains(self, address: str, port: int) -> bool:
        if not self.networks or port not in self.ports:
            return False
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self.networks)


def _pattern_of(text: str) -> _Pattern:
    host, colon, ports = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host) or any(character.isspace() for character in text):
        raise ValueError(f'{text!r} in targets is no pattern: give HOST:PORTS, such as "loopback:*"')
    if bare == LOOPBACK:
        return _Pattern(bare, _networks("127.0.0.0/8", "::1"), _ports_of(ports, text))
    try:
        return _Pattern(bare, _networks(bare), _ports_of(ports, text))
    except ValueError:
        if "/" in bare or ":" in bare:
            raise ValueError(f"{text!r} in targets: {bare!r} is no network") from None
    return _Pattern(bare.lower(), (), _ports_of(ports, text))


def _networks(*texts: str) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def _ports_of(text: str, pattern: str) -> range:
    if text == "*":
        return range(1, 65536)
    first, dash, last = text.partition("-")
    if first.isdigit() and (last.isdigit() or not dash):
        low, high = int(first), int(last if dash else first)
        if 1 <= low <= high <= 65535:
            return range(low, high + 1)
    raise ValueError(f"{pattern!r} in targets: {text!r} is no port, range of ports such as 8000-8010, or *")
