"""One engine under test, whose neighbours the test plays, and what comes out of it as a test can compare it."""

import re
from typing import NamedTuple

from zmesh.core import wire
from zmesh.core.effects import Report, Transmit
from zmesh.core.engine import Engine
from zmesh.core.message import Eof, ReplyHeader, RequestHeader, Stream
from zmesh.core.wire import FLAG_EOF, FLAG_FIRST, FLAG_LAST, Entry, Kind

HEADER = RequestHeader("echo:echo", 1.0, None)
ANSWER = ReplyHeader(2.0, 1)
NOW = 1_800_000_000
"""Seconds since the epoch, where certificates are checked."""
ID = bytes(15) + b"\x01"
REQUEST, REPLIES = Stream(ID, True), Stream(ID, False)
EVENTS = set(re.findall(r"`(\w+)`", (Report.__doc__ or "").partition("With")[0])) - {"event"}


class Said(NamedTuple):
    """A frame that stays on its link, with its head read."""

    link: int
    kind: Kind
    value: object


class Routed(NamedTuple):
    """A frame that travels, with its head read."""

    link: int
    kind: Kind
    to: str
    of: str
    value: object
    body: bytes


def sealed(kind, to, of, head, body=b"", ttl=wire.MAX_TTL):
    """A frame as it comes in after some hops."""
    return wire.encode_packet(kind, to, of, head, body, ttl)


class Subject:
    """An engine under test, checked after every stimulus; the test plays its neighbours.

    It is node `b` in its incarnation 2; its own neighbours have 1.
    """

    def __init__(self, node="b", readers=None, **options):
        self.engine = Engine(node, 2, now=0.0, epoch=1000.0, serial=100, **options)
        self.readers = readers
        self.now = 0.0
        self.done([])

    def done(self, effects):
        """The effects as they can be compared."""
        self.engine.check()
        tables = (self.engine.neighbours, self.engine.routing, self.engine.delivery)
        soonest = min((when for table in tables if (when := table.next_deadline()) is not None), default=None)
        assert soonest is None or self.engine.next_deadline() <= soonest
        return [self.read(effect) for effect in effects]

    def read(self, effect):
        if isinstance(effect, Report):
            assert effect.event in EVENTS
        if not isinstance(effect, Transmit):
            return effect
        if len(effect.frames) > 2:
            return Said(effect.link, Kind.HELLO, "of version 1")
        packet = wire.read_packet(effect.frames)
        value = self.readers[packet.kind](packet.head)
        if packet.kind >= wire.FIRST_ROUTED:
            return Routed(effect.link, Kind(packet.kind), packet.destination, packet.source, value, packet.body)
        assert packet.body == b""
        return Said(effect.link, Kind(packet.kind), value)

    # -- stimuli --

    def link_up(self, link=1, *, dialled=False, cost=100, where="", channel=b""):
        up = self.engine.link_up(link, self.now, dialled=dialled, cost=cost, where=where, channel=channel)
        return self.done(up)

    def link_down(self, link=1, reason="closed"):
        return self.done(self.engine.link_down(link, self.now, reason))

    def receive(self, link, *frames):
        return self.done(self.engine.receive(link, frames, self.now))

    def hear(self, link, kind, value=()):
        """A neighbour says something on its link."""
        return self.receive(link, *wire.encode_link(kind, value))

    def arrive(self, link, kind, value, body=b"", *, to="b", of="a", ttl=255):
        """A frame that travels comes in."""
        return self.receive(link, *sealed(kind, to, of, wire.encode(value), body, ttl))

    def send(self, to="a", body=b"", id=ID, **options):
        return self.done(self.engine.send(id, to, HEADER, body, self.now, **options))

    def reply(self, body=b"", header=ANSWER, id=ID, **options):
        return self.done(self.engine.reply(id, header, body, self.now, **options))

    def tick(self):
        effects = self.done(self.engine.tick(self.now))
        while self.engine.routing.has_work:  # one tick selects so many routes
            effects += self.done(self.engine.tick(self.now))
        deadline = self.engine.next_deadline()
        assert deadline is None or deadline > self.now
        return effects

    def run(self, seconds):
        """Tick whenever it is due; all effects."""
        until = self.now + seconds
        effects = []
        while (due := self.engine.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            effects += self.tick()
        self.now = until
        return effects

    # -- what neighbours do --

    def greet(self, link=1, node="a", incarnation=1, *, leaf=False, session=9, answers=None, started=0.0):
        """The other end says HELLO."""
        if answers is None:
            known = self.engine.neighbours.get(link)
            answers = link if known is not None and known.dialled else 0
        return self.hear(link, Kind.HELLO, wire.Hello(node, incarnation, started, leaf, session, answers))

    def join(self, link=1, node="a", incarnation=1, *, dialled=False, leaf=False, cost=100, route=True, started=0.0):
        """A neighbour's link comes up, and it advertises the route to itself and answers the first probe."""
        effects = self.link_up(link, dialled=dialled, cost=cost)
        effects += self.greet(link, node, incarnation, leaf=leaf, started=started)
        if not (leaf or self.engine.leaf):
            if route:
                effects += self.advertise(link, Entry(node, incarnation, 1, 0, 0))
            if not dialled:
                effects += self.hear(link, Kind.ECHO, wire.Echo(self.now))
        return effects

    def advertise(self, link, *entries, full=0):
        """A neighbour sends an UPDATE."""
        return self.receive(link, *wire.encode_update(wire.Update(full, 1, [*entries])))

    def keep_alive(self, *links):
        for link in links:
            self.hear(link, Kind.ECHO, wire.Echo(self.now + 1))


def only(effects, *kinds):
    """The frames of these kinds, or the effects of these classes."""
    return [effect for effect in effects if getattr(effect, "kind", type(effect)) in kinds]


def events(effects):
    return [effect.event for effect in only(effects, Report)]


def chunk(sequence=0, flags=FLAG_FIRST | FLAG_LAST, *, request=True, incarnation=1, target=2, number=0, eof=None):
    header = (HEADER if request else ANSWER) if flags & FLAG_FIRST else None
    eof = eof or (Eof() if flags & FLAG_EOF else None)
    return wire.Chunk(message_id=ID, request=request, sequence=sequence, flags=flags, request_number=number,
                      lowest_outstanding=0, incarnation=incarnation, target=target, header=header, eof=eof)  # fmt: skip


def record(node="c", serial=5, incarnation=9):
    return wire.Record(node, incarnation, serial, ("x:y",), (), b"")
