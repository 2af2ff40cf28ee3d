"""The TCP connections that a listener has accepted, and limits on those that have not proven themselves.

A connection is unproven until its link is up. How many there may be is limited in all and for each address, how long
one may be without a first message and how many bytes may come before it is proven as well.

A connection that ends without a handshake is a stranger's, a port scan's for one, or one of a node's: before it dials
with ZeroMQ, a dialler may try an address with a plain connection (`dialler`, `happy_eyeballs`). So such a connection is
held for a while, and is reported unless a later one from the same network greets: each that greets accounts for one.

libzmq bounds neither how many connections a ROUTER has nor how long one may be silent after its handshake, and it can't
close a single one. But its monitor names the descriptor of each connection, and `shutdown(2)` on a duplicate of that
descriptor ends the connection as its peer could have done, which libzmq copes with at any time.

A descriptor may be closed by libzmq's thread, and its number given to something else, before we get to it. Three things
rule out that anything else is shut:

- It is duplicated first (dup3, onto a number that is kept for that, so that it works with no descriptor left), and what
  follows is about the duplicate, which stays what it is.
- libzmq's thread says DISCONNECTED before it closes a descriptor. So if, after it was duplicated, the monitor has no
  such event for the connection in question, then the duplicate is that connection. The same holds for a connection
  whose routing id the ROUTER still knows, since it drops the id before the descriptor is closed.
- What was duplicated must be a connection to the address of this listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import itertools
import os
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable

MAX_UNPROVEN = 1024
"""Unproven connections of one listener; the oldest of the address that has most is ended for one more."""
MAX_UNPROVEN_OF_ADDRESS = 512
"""Of them those from one address (IPv6: one network of 64 bits); the oldest is ended for one more."""
MAX_UNPROVEN_BYTES = 4 * 1024 * 1024
"""Bytes that may come over an unproven connection."""
GREET_WITHIN = 100
"""Sweeps that a connection may be without a first message."""
HUNG_UP_WITHIN = 10
"""Sweeps after which a connection that was hung up is shut down, if its other end has not closed it."""
HELD_FOR = 100
"""Sweeps after which a connection that has ended without a handshake is reported; a dialler greets within them."""
MAX_HELD = 1024
"""Such connections that are held; the oldest is reported for one more."""
SWEEP = 0.1
"""Seconds between two sweeps."""
SHED = 2
"""Connections that are ended for each that comes while few descriptors are left: more than come."""

SPARE_DESCRIPTORS = 64

_RECEIVED = struct.Struct("=128xQ")
"""`tcpi_bytes_received` in Linux's `struct tcp_info` (4.1 and later)."""


class AcceptedConnection:
    """One accepted connection.

    `address` is "" if it was closed too soon; `greeted`: a message has come that it has a link for; `left` counts the
    sweeps that it may be without one. `was_linked` stays when its link is gone. `is_probe`: a dialler that has greeted
    since has most likely tried the address with it.
    """

    __slots__ = ("address", "greeted", "is_probe", "left", "routing_id", "was_linked")

    def __init__(self, address: str) -> None:
        self.address = address
        self.greeted = self.was_linked = self.is_probe = False
        self.left = GREET_WITHIN
        self.routing_id: bytes | None = None


class AcceptedConnections:
    """The connections of one listener by their descriptors, exact in the order of the monitor's events.

    `refresh` reads what the monitor has to say, `is_known` whether the ROUTER still has a connection of that routing
    id, `on_shut` is called with the reason when a connection is shut down, and `on_silent` with the address of one that
    has ended without a handshake and was no dialler's.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        port: int,
        refresh: Callable[[], None],
        is_known: Callable[[bytes], bool],
        on_shut: Callable[[str], None],
        on_silent: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._port = port
        self._refresh = refresh
        self._is_known = is_known
        self._on_shut = on_shut
        self._on_silent = on_silent
        self._connections: dict[int, AcceptedConnection] = {}
        self._unproven: dict[int, AcceptedConnection] = {}
        self._held: dict[AcceptedConnection, None] = {}
        self._by_network: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._shutting = False
        self._excess = 0
        self._blank = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._duplicate = os.dup(self._blank)
        except OSError:
            os.close(self._blank)
            raise

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def unproven(self) -> int:
        """How many have no link that is up."""
        return len(self._unproven)

    def on_accepted(self, descriptor: int) -> None:
        """Handle EVENT_ACCEPTED; past the limits, shut down an unproven connection."""
        connection = AcceptedConnection(self._address(descriptor))
        self._connections[descriptor] = connection
        self._await(descriptor, connection)
        self._excess += SHED * self._is_short()
        if not self._shutting:
            network = network_of(connection.address)
            while self._by_network[network] > MAX_UNPROVEN_OF_ADDRESS:
                self._shut_oldest("too many connections without a link from one address", network)
            while len(self._unproven) > MAX_UNPROVEN:
                most = self._by_network.most_common(1)[0][0]
                self._shut_oldest("too many connections without a link", most)
            self._shed()

    def on_disconnected(self, descriptor: int) -> AcceptedConnection | None:
        """Handle EVENT_DISCONNECTED; the connection that has ended."""
        connection = self._connections.pop(descriptor, None)
        self._settle(descriptor)
        return connection

    def greet(self, descriptor: int) -> AcceptedConnection | None:
        """A message has come over a connection that there is no link of yet."""
        connection = self._connections.get(descriptor)
        if connection is not None:
            connection.greeted = connection.was_linked = True
            self._account_for_probe(connection)
        return connection

    def hold(self, connection: AcceptedConnection) -> None:
        """A connection has ended without a handshake: report it in a while, unless it was a dialler's."""
        if connection.is_probe or self._blank < 0:
            return
        connection.left = HELD_FOR
        self._held[connection] = None
        if len(self._held) > MAX_HELD:
            self._report(next(iter(self._held)))
        self._sweep_later()

    def prove(self, descriptor: int, connection: AcceptedConnection) -> None:
        """The link over a connection is up."""
        if self._unproven.get(descriptor) is connection:
            self._settle(descriptor)

    def hang_up(self, descriptor: int, connection: AcceptedConnection, routing_id: bytes) -> None:
        """Shut a connection down after HUNG_UP_WITHIN sweeps: an honest other end has closed it before that."""
        if self._connections.get(descriptor) is connection:
            connection.routing_id = routing_id
            connection.left = HUNG_UP_WITHIN
            self._await(descriptor, connection)

    def forget(self, descriptor: int, connection: AcceptedConnection) -> None:
        """The link over a connection is gone. If that is still there, it was another one's (see `Listener._read`)."""
        if self._connections.get(descriptor) is connection:
            connection.greeted = False
            connection.left = GREET_WITHIN
            self._await(descriptor, connection)

    def close(self) -> None:
        """Close the own descriptors; libzmq closes the connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._blank >= 0:
            os.close(self._duplicate)
            os.close(self._blank)
            self._blank = self._duplicate = -1

    def _await(self, descriptor: int, connection: AcceptedConnection) -> None:
        if self._blank < 0:
            return
        self._settle(descriptor)
        self._unproven[descriptor] = connection
        self._by_network[network_of(connection.address)] += 1
        self._sweep_later()

    def _account_for_probe(self, greeted: AcceptedConnection) -> None:
        """Find the plain connection that the dialler of a connection made before it, ended or about to be."""
        networks = (network_of(greeted.address), "")  # the address of one that was closed too soon is not known
        for each in itertools.chain(self._held, self._unproven.values()):
            if each is greeted:
                return
            if not (each.greeted or each.is_probe) and network_of(each.address) in networks:
                each.is_probe = True
                self._held.pop(each, None)
                return

    def _report(self, held: AcceptedConnection) -> None:
        del self._held[held]
        self._on_silent(held.address)

    def _settle(self, descriptor: int) -> AcceptedConnection | None:
        """Count the connection no more as one that is unproven; None if it was not."""
        connection = self._unproven.pop(descriptor, None)
        if connection is not None:
            network = network_of(connection.address)
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]
        return connection

    def _sweep(self) -> None:
        """Count down; what counts is sweeps, not time, so that a blocked loop ends no connection."""
        self._timer = None
        if self._blank < 0:
            return
        for descriptor, connection in list(self._unproven.items()):
            if self._unproven.get(descriptor) is not connection:
                continue
            if not connection.greeted or connection.routing_id is not None:  # else the engine sees to it
                connection.left -= 1
            if connection.left <= 0:
                self._shut(descriptor, "no greeting came" if connection.routing_id is None else "it was hung up on")
            elif connection.routing_id is None and self._received(descriptor) > MAX_UNPROVEN_BYTES:
                self._shut(descriptor, "too many bytes before a link")
        for held in list(self._held):
            held.left -= 1
            if held.left <= 0:
                self._report(held)
        self._excess = SPARE_DESCRIPTORS * self._is_short()
        self._shed()
        self._sweep_later()

    def _sweep_later(self) -> None:
        if (self._unproven or self._held) and self._timer is None and self._blank >= 0:
            self._timer = self._loop.call_later(SWEEP, self._sweep)

    def _is_short(self) -> bool:
        """Whether few descriptors are left. They are given out from the lowest, so the next one's number shows it."""
        try:
            lowest = os.dup(self._blank)
        except OSError:
            return True
        os.close(lowest)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return limit != resource.RLIM_INFINITY and lowest >= limit - min(SPARE_DESCRIPTORS, limit // 8)

    def _shed(self) -> None:
        while self._excess > 0:
            self._excess -= 1
            self._shut_oldest("too few descriptors left")

    def _shut_oldest(self, reason: str, network: str | None = None) -> None:
        """Shut down the oldest unproven connection; of a network, if one is given."""
        for descriptor, connection in self._unproven.items():
            if network is None or network_of(connection.address) == network:
                self._shut(descriptor, reason)
                return

    def _shut(self, descriptor: int, reason: str) -> None:
        """End a connection, and no other (see above). It is unproven no more, whatever comes."""
        connection = self._unproven[descriptor]
        self._shutting = True  # what `refresh` brings must not use the duplicate as well
        try:
            os.dup2(descriptor, self._duplicate, inheritable=False)
            self._refresh()
            if self._settle(descriptor) is not connection:
                return
            if connection.routing_id is not None and not self._is_known(connection.routing_id):
                return
            if self._end_duplicate():
                self._on_shut(reason)
        except OSError:  # it is closed already
            self._settle(descriptor)
        finally:
            self._shutting = False
            self._free_duplicate()

    def _free_duplicate(self) -> None:
        if self._blank >= 0:
            with contextlib.suppress(OSError):  # RLIMIT_NOFILE was set below its number: it is no duplicate then
                os.dup2(self._blank, self._duplicate, inheritable=False)

    def _end_duplicate(self) -> bool:
        sock = socket.socket(fileno=self._duplicate)
        try:
            ours = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] == self._port
            if ours:
                sock.shutdown(socket.SHUT_RDWR)
            return ours
        finally:
            sock.detach()

    def _address(self, descriptor: int) -> str:
        """Remote address of a connection; "" if it is closed. For counts and logs: it may be that of a later one."""
        try:
            duplicate = os.dup(descriptor)
        except OSError:
            return ""
        try:
            sock = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)
            return ""
        with sock:
            try:
                return str(sock.getpeername()[0]) if sock.family in (socket.AF_INET, socket.AF_INET6) else ""
            except OSError:
                return ""

    def _received(self, descriptor: int) -> int:
        """Bytes received over a descriptor (Linux, TCP_INFO; 0 elsewhere); `_shut` checks whose it is."""
        if sys.platform != "linux":
            return 0
        try:
            os.dup2(descriptor, self._duplicate, inheritable=False)
            sock = socket.socket(fileno=self._duplicate)
            try:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
            finally:
                sock.detach()
        except OSError:
            return 0
        finally:
            self._free_duplicate()
        received: int = _RECEIVED.unpack(info)[0] if len(info) == _RECEIVED.size else 0
        return received


@functools.lru_cache(4096)
def network_of(address: str) -> str:
    """The key that connections are counted by: an IPv4 address, also a mapped one, or the first 64 bits of IPv6."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped) if ip.ipv4_mapped is not None else ip.packed[:8].hex()
