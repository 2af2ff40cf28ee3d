"""Resolver to addresses, in threads of our own: `getaddrinfo` blocks for as long as a name server keeps silent.

There is one daemon thread for each name that is being looked up, however many wait for it, so a dead name server holds
up neither the loop, nor its executor, nor the end of the program, and one that stays dead piles up no threads. An
answer that comes after all have given up is kept for the next lookup.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import NamedTuple

from zmesh.transport.address import tcp_endpoint
from zmesh.transport.dial_status import DialError, DialFailure

RESOLVE_WITHIN = 5.0
"""Seconds that a lookup is waited for."""
LATE_KEPT = 60.0
"""Seconds for which an answer that came too late is kept."""
MAX_LOOKUPS = 64
"""Names that are looked up at a time; one more fails with DialFailure.RESOURCES."""


class Address(NamedTuple):
    """A numeric address: its family, host (an IPv6 one with its %zone, if any) and scope id."""

    family: int
    host: str
    scope: int = 0

    def socket_address(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """The address as `socket.connect` takes it."""
        if self.family == socket.AF_INET:
            return self.host, port
        return self.host.partition("%")[0], port, 0, self.scope

    def endpoint(self, port: int) -> str:
        """The address as an endpoint of ZeroMQ."""
        return tcp_endpoint(self.host, port)


Resolve = Callable[[str], Sequence[Address]]


def system_resolve(host: str) -> Sequence[Address]:
    """All addresses that this system knows for a name, the best first (RFC 6724). Blocks; raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [
        Address(family, str(there[0]), int(there[3]) if len(there) == 4 else 0)
        for family, _, _, _, there in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    return list(dict.fromkeys(addresses))


def numeric(host: str) -> Address | None:
    """The address that `host` is already, or None if it is a name. Raises OSError for a %zone that is not there."""
    bare, _, zone = host.partition("%")
    for family, text in ((socket.AF_INET, host), (socket.AF_INET6, bare)):
        with suppress(OSError, ValueError):
            socket.inet_pton(family, text)
            break
    else:
        return None
    return Address(family, host, (int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)) if zone else 0)


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """In the order given, but with the families taking turns (RFC 8305, section 4)."""
    if not addresses:
        return []
    first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    return [address for pair in zip_longest(first, others) for address in pair if address is not None]


class _Lookup:
    """One name that is being looked up, or whose answer was not taken."""

    def __init__(self) -> None:
        self.waiters: list[Callable[[], object]] = []
        self.addresses: Sequence[Address] = ()
        self.error: Exception | None = None
        self.ended: float | None = None


class Resolver:
    """Looks names up by `resolve`, one thread for each name at a time. Safe to use from several threads and loops."""

    def __init__(self, resolve: Resolve = system_resolve) -> None:
        self._resolve = resolve
        self._lock = threading.Lock()
        self._lookups: dict[str, _Lookup] = {}

    async def addresses(self, host: str) -> list[Address]:
        """The addresses of `host`, families interleaved. Raises DialError, after RESOLVE_WITHIN seconds at most."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed: there is no waiter
                loop.call_soon_threadsafe(_settle, answered)

        lookup = self._ask(host, wake)
        if isinstance(lookup, list):
            return lookup
        try:
            await asyncio.wait((answered,), timeout=RESOLVE_WITHIN)
        finally:
            self._leave(lookup, wake)
        return self._answer(host, lookup)

    def addresses_now(self, host: str) -> list[Address]:
        """As `addresses`, but blocks the calling thread. Raises DialError."""
        answered = threading.Event()
        lookup = self._ask(host, answered.set)
        if isinstance(lookup, list):
            return lookup
        answered.wait(RESOLVE_WITHIN)
        self._leave(lookup, answered.set)
        return self._answer(host, lookup)

    def under_way(self) -> int:
        """How many names are being looked up."""
        with self._lock:
            return sum(lookup.ended is None for lookup in self._lookups.values())

    def forget(self) -> None:
        """Forget all lookups: in a forked child their threads do not exist."""
        self._lock = threading.Lock()
        self._lookups = {}

    def _ask(self, host: str, wake: Callable[[], object]) -> list[Address] | _Lookup:
        """Have `host` looked up and `wake` called then, or return what is known without that."""
        try:
            address = numeric(host)
        except OSError as error:
            raise DialError(DialFailure.UNRESOLVED, f"this machine has no interface for {host} ({error})") from None
        if address is not None:
            return [address]
        with self._lock:
            lookup = self._lookups.get(host)
            if lookup is None or (lookup.ended is not None and time.monotonic() > lookup.ended + LATE_KEPT):
                lookup = self._start(host)
            if lookup.ended is None:
                lookup.waiters.append(wake)
            else:
                wake()
            return lookup

    def _start(self, host: str) -> _Lookup:
        if len(self._lookups) >= MAX_LOOKUPS:
            for name in [name for name, lookup in self._lookups.items() if lookup.ended is not None]:
                del self._lookups[name]
            if len(self._lookups) >= MAX_LOOKUPS:
                raise DialError(DialFailure.RESOURCES, f"{MAX_LOOKUPS} other names are being looked up")
        lookup = self._lookups[host] = _Lookup()
        thread = threading.Thread(target=self._look_up, args=(host, lookup), name=f"zmesh name {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            del self._lookups[host]
            raise DialError(DialFailure.RESOURCES, f"no thread could be started to look the name up: {error}") from None
        return lookup

    def _look_up(self, host: str, lookup: _Lookup) -> None:
        try:
            addresses, error = self._resolve(host), None
        except Exception as raised:  # noqa: BLE001  # OSError, and ValueError for a malformed name; none may be lost
            addresses, error = (), raised
        with self._lock:
            lookup.addresses, lookup.error, lookup.ended = addresses, error, time.monotonic()
            waiters, lookup.waiters = lookup.waiters, []
        for wake in waiters:
            wake()

    def _leave(self, lookup: _Lookup, wake: Callable[[], object]) -> None:
        with self._lock, suppress(ValueError):
            lookup.waiters.remove(wake)

    def _answer(self, host: str, lookup: _Lookup) -> list[Address]:
        with self._lock:
            if lookup.ended is None:
                text = f"no name server answered for {host!r} in {RESOLVE_WITHIN:g} s"
                raise DialError(DialFailure.RESOLVE_TIMED_OUT, text)
            if self._lookups.get(host) is lookup:
                del self._lookups[host]
        if lookup.error is not None or not lookup.addresses:
            why = getattr(lookup.error, "strerror", None) or lookup.error or "it has no address"
            raise DialError(DialFailure.UNRESOLVED, f"the name {host!r} does not resolve ({why})")
        return interleaved(lookup.addresses)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


shared = Resolver()
os.register_at_fork(after_in_child=shared.forget)


async def resolve(host: str) -> list[Address]:
    """The addresses of `host`, families interleaved. Raises DialError, after RESOLVE_WITHIN seconds at most."""
    return await shared.addresses(host)
