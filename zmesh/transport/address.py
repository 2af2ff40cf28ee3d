"""Addresses of links: what a URL means, and which endpoint ZeroMQ is given for it."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from zmesh.core.limits import DEFAULT_COST
from zmesh.errors import AddressError
from zmesh.transport.curve import key_from_text

PROXY_PORT = 1080
MAX_CREDENTIAL = 255


class Proxy(NamedTuple):
    """A SOCKS5 server; `user` is None where it asks for no password."""

    host: str
    port: int
    user: str | None = None
    password: str = ""


class Target(NamedTuple):
    """A URL, read.

    `endpoint` is what ZeroMQ understands, `cost` that of links through it, `url` the URL without a proxy's password,
    `host` and `port` (None for any) are those of TCP, the host without brackets. `scheme` is that of the URL, and `key`
    the public CURVE key of a peer.
    """

    endpoint: str
    cost: int
    url: str
    host: str = ""
    port: int | None = None
    proxy: Proxy | None = None
    scheme: str = "tcp"
    key: bytes | None = None

    @property
    def is_private(self) -> bool:
        """Whether only this user can dial it: within the process, or a Unix socket that is a file."""
        return self.scheme == "inproc" or (self.scheme == "ipc" and not self.endpoint.startswith("ipc://@"))

    @property
    def is_local(self) -> bool:
        """Whether nothing of a link through it leaves this machine."""
        return self.scheme in ("ipc", "inproc") or (self.proxy is None and is_loopback(self.host))


def parse_url(url: str) -> Target:
    """Read `tcp://host:port`, `ipc://path`, `inproc://name`, `rnp://host:port` or `rnps://host:port`.

    After `?` stand `cost=N` and, for TCP, `key=KEY` and `proxy=socks5://user:password@host:port`. Raises AddressError
    with what is wrong and how it should look.
    """
    try:
        return _parse(url)
    except AddressError:
        raise
    except ValueError as error:
        raise AddressError(f"{url!r} is no address: {error}") from None


def _parse(url: str) -> Target:
    parts = urlsplit(url)
    scheme = "tcp" if parts.scheme in ("rnp", "rnps") else parts.scheme
    if scheme not in ("tcp", "ipc", "inproc"):
        raise AddressError(f"{url!r} is no address: it must begin with tcp://, ipc://, inproc://, rnp:// or rnps://")
    cost, proxy, public = DEFAULT_COST, None, None
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "proxy":
            if scheme != "tcp":
                raise AddressError(f"{_shown(url)!r}: only TCP goes through a proxy")
            proxy = _parse_proxy(url, value)
        elif key == "key":
            if parts.scheme not in ("tcp", "rnps"):
                raise AddressError(f"{_shown(url)!r}: a key is for tcp:// and rnps://, which are encrypted")
            public = key_from_text(value)
        elif key == "cost" and value.isdecimal() and 1 <= int(value) <= 100_000:
            cost = int(value)
        else:
            raise AddressError(
                f"{_shown(url)!r}: after the ? only cost=N with N from 1 to 100000, key=KEY and"
                f" proxy=socks5://host:port are known, not {key}={value}"
            )
    rest = parts.netloc + parts.path
    if not rest:
        raise AddressError(f"{url!r} has nothing after {parts.scheme}://")
    if scheme == "tcp":
        host, colon, port = rest.rpartition(":")
        if not colon or not host or not (port == "*" or (port.isdecimal() and int(port) <= 65535)):
            raise AddressError(
                f"{_shown(url)!r} is no TCP address: it must look like tcp://host:port, the port from 0 to 65535"
            )
        host = host.removeprefix("[").removesuffix("]")
        number = None if port == "*" else int(port) or None
        return Target(tcp_endpoint(host, number), cost, _shown(url), host, number, proxy, parts.scheme, public)
    if scheme == "ipc" and len(rest.encode()) > 106:
        raise AddressError(f"{url!r}: a socket's path may have 106 bytes, and this one has {len(rest.encode())}")
    return Target(f"{scheme}://{rest}", cost, url, scheme=scheme)


def parse_peer(url: str) -> Target:
    """Read a URL to dial, as `parse_url` does. Raises AddressError, also for one that stands for any host or port."""
    target = parse_url(url)
    if target.endpoint.startswith("tcp:") and (target.host == "*" or target.port is None):
        raise AddressError(f"can't dial {target.url}: a peer has one host and one port; * and 0 are for listening")
    return target


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone: an address of 127.0.0.0/8, ::1, or `localhost` (RFC 6761 section 6.3)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower().removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def tcp_endpoint(host: str, port: int | None) -> str:
    """A host, which may be an IPv6 address, and a port (None for any free one) as ZeroMQ wants them."""
    return f"tcp://{f'[{host}]' if ':' in host else host}:{'*' if port is None else port}"


def _parse_proxy(url: str, proxy: str) -> Proxy:
    parts = urlsplit(proxy)
    try:
        port = parts.port or PROXY_PORT
    except ValueError:
        port = 0
    if parts.scheme != "socks5" or not parts.hostname or not port or parts.path not in ("", "/"):
        raise AddressError(f"{_shown(url)!r}: a proxy must look like proxy=socks5://host:port")
    user = None if parts.username is None else unquote(parts.username)
    password = unquote(parts.password or "")
    if (user == "" or len((user or "").encode()) > MAX_CREDENTIAL) or len(password.encode()) > MAX_CREDENTIAL:
        raise AddressError(f"{_shown(url)!r}: a proxy's user and password may have 1 to {MAX_CREDENTIAL} bytes each")
    return Proxy(parts.hostname, port, user, password)


def _shown(url: str) -> str:
    """The URL for logs and errors: without the password of a proxy."""
    head, mark, proxy = url.partition("proxy=")
    credentials, at, rest = proxy.rpartition("@")
    before, colon, _ = credentials.removeprefix("socks5://").partition(":")
    if not at or not colon:
        return url
    return f"{head}{mark}{'socks5://' if credentials.startswith('socks5://') else ''}{before}:***@{rest}"
