"""The open exchanges by the node that they are with, for what happens to all of them at once: a route that changes."""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.delivery.exchange import Exchange
from zmesh.core.message import Address, NodeId


class HostIndex:
    """The exchanges with each node and the leaves that are attached to it."""

    __slots__ = ("_by_host",)

    def __init__(self) -> None:
        self._by_host: dict[NodeId, dict[Exchange, None]] = {}

    def add(self, exchange: Exchange) -> None:
        """An exchange has begun."""
        listed = self._by_host.get(exchange.host)
        if listed is None:
            listed = self._by_host[exchange.host] = {}
        listed[exchange] = None

    def remove(self, exchange: Exchange) -> None:
        """An exchange is over."""
        listed = self._by_host[exchange.host]
        del listed[exchange]
        if not listed:
            del self._by_host[exchange.host]

    def move(self, exchange: Exchange, address: Address) -> None:
        """The peer is a leaf that has another address from now on."""
        self.remove(exchange)
        exchange.address, exchange.host = address, wire.host_of(address)
        self.add(exchange)

    def with_host(self, host: NodeId) -> list[Exchange]:
        """The exchanges with a node, and with the leaves attached to it."""
        return list(self._by_host.get(host, ()))

    def with_address(self, address: Address | None) -> list[Exchange]:
        """The exchanges with that address; with None, all."""
        if address is None:
            return [exchange for listed in self._by_host.values() for exchange in listed]
        return [exchange for exchange in self.with_host(wire.host_of(address)) if exchange.address == address]
