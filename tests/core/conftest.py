"""Fixtures that the tests of the core share: a fake forwarding that records its frames, tables and engines."""

from typing import NamedTuple

import pytest

from tests.core.delivery.delivery_harness import Side
from tests.core.engine_harness import NOW, Subject
from zmesh.core import wire
from zmesh.core.forwarding.forwarding import NextHop
from zmesh.core.routing.records import Records
from zmesh.core.routing.routes import Routes
from zmesh.core.timers import Alarm
from zmesh.core.wire import FIRST_ROUTED, Kind
from zmesh.testing.authority import DAY, TestAuthority
from zmesh.testing.simulator import Simulator

READERS = {
    Kind.CHUNK: wire.decode_chunk,
    Kind.ACK: wire.decode_ack,
    Kind.CANCEL: wire.decode_cancel,
    Kind.UNREACHABLE: wire.decode_unreachable,
    Kind.EXPIRED: wire.decode_expired,
    Kind.KEY_EXCHANGE: wire.decode_key_exchange,
    Kind.HELLO: wire.decode_hello,
    Kind.REFUSE: wire.decode_refuse,
    Kind.GOODBYE: wire.decode_goodbye,
    Kind.PROBE: wire.decode_probe,
    Kind.ECHO: wire.decode_echo,
    Kind.UPDATE: wire.decode_update,
    Kind.RECORD: lambda head: [record for record, _ in wire.decode_records(head)[0]],
    Kind.SEQNO_REQUEST: wire.decode_seqno_requests,
    Kind.RESEND: wire.decode_resend,
    Kind.ASK: lambda head: None,
}


class Sent(NamedTuple):
    """A frame that left for another node, with its head read."""

    destination: str
    kind: Kind
    value: object
    body: bytes


class FakeForwarding:
    """The Carrier of a node: routes to the nodes in `next_hops`, and all effects and frames in the order they came."""

    def __init__(self, node="a", incarnation=1, next_hops=()):
        self.node = self.address = node
        self.incarnation = incarnation
        self.next_hops = {name: NextHop(1, incarnation, False) for name, incarnation in dict(next_hops).items()}
        self.hops = {}
        self.left = set()
        self.blocked = ""
        self.effects = []

    def next_hop(self, destination):
        return self.next_hops.get(destination)

    def neighbour(self, link):
        return self.hops.get(link)

    def originate(self, destination, kind, head, body, link=None):
        assert link in (None, self.next_hops[destination].link)
        self.effects.append(Sent(destination, kind, READERS[kind](head), body))

    def describe_block(self, destination):
        return self.blocked

    def emit(self, effect):
        self.effects.append(effect)

    def has_left(self, destination):
        return destination in self.left

    def hint(self, destination, now):
        return f"; a hint about {destination}"

    def open(self, node, incarnation=0, *, link=1, lagging=False):
        """Add a route to the node."""
        self.next_hops[node] = NextHop(link, incarnation, lagging)

    def shut(self, node):
        """Remove the route to the node."""
        del self.next_hops[node]

    def take(self):
        """What came since the last time."""
        effects, self.effects = self.effects, []
        return effects

    def frames(self, *kinds):
        """The frames that were sent since the last time, without other effects."""
        return [sent for sent in self.take() if isinstance(sent, Sent) and (not kinds or sent.kind in kinds)]


@pytest.fixture(scope="session")
def readers():
    """What reads the head of a frame of each kind."""
    return READERS


@pytest.fixture(scope="session")
def new_forwarding():
    """Make the Carrier of a node."""
    return FakeForwarding


@pytest.fixture
def forwarding():
    """The Carrier of node `a`, which has a route to `b` in its incarnation 2."""
    return FakeForwarding(next_hops={"b": 2})


@pytest.fixture
def alarm():
    """The alarm of a node whose tables are under test."""
    return Alarm()


@pytest.fixture
def routes(alarm):
    """The routes of node `a`, with links 1, 2 and 3 of cost 100 on which all routes are advertised."""
    routes = Routes("a", 1, 100, alarm)
    for link in (1, 2, 3):
        routes.link_up(link, 100, 0.0)
    routes.flush(0.0)
    return routes


@pytest.fixture
def records(alarm):
    """The records of node `a` in its incarnation 1, whose own begin at serial 100."""
    return Records("a", 1, 100, alarm)


@pytest.fixture
def side(forwarding):
    """The exchanges of node `a`, which has a route to `b`."""
    return Side(forwarding)


@pytest.fixture(scope="session")
def subject_of(readers):
    """Make an engine under test."""
    return lambda node="b", **options: Subject(node, readers, **options)


@pytest.fixture
def subject(subject_of):
    """Node `b`, without any link."""
    return subject_of()


@pytest.fixture
def linked(subject):
    """Node `b` with its neighbour `a` on link 1; all routes are advertised."""
    subject.join()
    subject.run(0.1)
    subject.keep_alive(1)
    return subject


@pytest.fixture
def authority():
    """An authority, and credentials of nodes that it signs."""
    return TestAuthority(1, begins=NOW - DAY)


@pytest.fixture
def sim(request, authority):
    """A settled chain with credentials of the nodes that the module calls CHAIN."""
    sim = Simulator(3)
    sim.chain(*request.module.CHAIN, epoch=float(NOW), credentials=authority.installed)
    assert sim.settle()
    return sim


@pytest.fixture
def seen(sim):
    """All routed packets that the nodes of `sim` put on links."""
    seen = []

    def tap(frames):
        if wire.decode_packet(frames).kind >= FIRST_ROUTED:
            seen.append(frames)

    sim.tap = tap
    return seen
