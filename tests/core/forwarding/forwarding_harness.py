"""A forwarding plane under test, with the routes that it looks at, and its frames as a test can compare them."""

from typing import NamedTuple

from zmesh.core import wire
from zmesh.core.effects import Transmit
from zmesh.core.forwarding import Forwarding
from zmesh.core.routing import Routing
from zmesh.core.timers import Alarm
from zmesh.core.wire import MAX_TTL, Kind


class NoLinks:
    """The adjacencies of a node whose record lists no neighbours."""

    def neighbour(self, id):
        return None

    def neighbours(self):
        return ()

    def routing_cost(self, id):
        return None


class Node:
    """The forwarding plane of one node, and its routes."""

    def __init__(self, node="a", *, leaf=False):
        self.routing = Routing(node, 1, 1, NoLinks(), lambda report: None, Alarm(), now=0.0, leaf=leaf)
        self.forwarding = Forwarding(node, 1, self.routing, leaf=leaf)

    def join(self, id, node, *, leaf=False, cost=100):
        """A link to a neighbour is up."""
        self.forwarding.open(id, 0.0)
        self.forwarding.identify(id, node, leaf=leaf)
        if leaf:
            self.forwarding.bind_leaf(node, id)
        else:
            self.routing.link_up(id, node, cost, 0.0)

    def queue(self, link):
        """The queue of a link."""
        return self.forwarding._ports[link].queue

    def reach(self, link, *nodes, incarnation=7, now=5.0):
        """These nodes are reached over a link."""
        self.update(link, *((node, incarnation, 1, 1, 0, 0) for node in nodes), now=now)

    def update(self, link, *rows, now):
        """The neighbour on that link advertises this."""
        self.routing.on_update(link, wire.Update(0, 1, list(rows)), now)
        self.select(now)

    def select(self, now):
        """Select all routes that have changed; one call selects so many."""
        changes = self.routing.select(now)
        while self.routing.has_work and (more := self.routing.select(now)):
            changes += more
        for change in changes:
            self.forwarding.set_route(change.destination, change.after.link if change.after is not None else None)

    def lose(self, link, now):
        """The link is down."""
        self.routing.link_down(link, now)
        self.select(now)


class Passed(NamedTuple):
    """A frame as it left on a link."""

    link: int
    kind: Kind
    ttl: int
    destination: str
    source: str
    head: bytes
    body: bytes


def taken(node):
    """The effects that are handed out, with the routes of frames read."""
    effects = []
    for effect in node.forwarding.take():
        if isinstance(effect, Transmit):
            packet = wire.read_packet(effect.frames)
            effect = Passed(effect.link, *packet[:4], packet.head, packet.body)
        effects.append(effect)
    return effects


def frames(kind=Kind.CHUNK, to="c", of="x", ttl=MAX_TTL, head=b"head", body=b"body"):
    return wire.encode_packet(kind, to, of, head, body, ttl)


def forward(node, link, frames, now=10.0):
    node.forwarding.forward(link, wire.decode_packet(frames), frames, now)
    return taken(node)
