"""A sender under test, and exchanges for it."""

import pytest

from zmesh.core.delivery.exchange import Exchange
from zmesh.core.delivery.peers import Peers
from zmesh.core.delivery.sender import Sender


@pytest.fixture
def peers(forwarding, alarm):
    return Peers(forwarding, alarm, lambda peer, before, now: None)


@pytest.fixture
def sender(forwarding, peers, alarm):
    return Sender(forwarding, peers, alarm)


@pytest.fixture
def new(peers):
    """Make an exchange with node `b`, or another."""
    count = 0

    def new(node="b", *, request=True):
        nonlocal count
        count += 1
        peer = peers.open_exchange(node)
        exchange = Exchange(count.to_bytes(16, "big"), peer, 0, request=request)
        if request:
            exchange.request_number = peers.next_request_number(peer)
        return exchange

    return new
