"""The exchanges of one node, when the test plays everybody else, and the chunks that those may send it."""

from zmesh.core import wire
from zmesh.core.delivery import Delivery
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.effects import Deliver
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.message import Eof, ReplyHeader, RequestHeader, Stream
from zmesh.core.timers import Alarm
from zmesh.core.wire import FLAG_EOF, FLAG_FIRST, FLAG_LAST, Ack, AckItem, Cancel, Kind

ROUTE_TIMEOUT = 30.0
HEADER = RequestHeader("echo:echo", 1.0, None)
ANSWER = ReplyHeader(2.0, 1)
ID = bytes(15) + b"\x01"
OTHER = bytes(15) + b"\x02"
REQUEST, REPLIES = Stream(ID, True), Stream(ID, False)


class Side:
    """The exchanges of node `a` in its incarnation 1; the test plays everybody else."""

    def __init__(self, forwarding, limits=DEFAULT_LIMITS):
        self.forwarding = forwarding
        self.alarm = Alarm()
        self.delivery = Delivery(forwarding, ROUTE_TIMEOUT, self.alarm, limits=limits)

    def done(self):
        """What the stimulus led to."""
        self.delivery.check()
        deadline = self.delivery.next_deadline()
        assert deadline is None or self.alarm.soonest <= deadline
        return self.forwarding.take()

    def call(self, body=b"", *, id=ID, to="b", last=True, timeout=None, now=0.0, route_timeout=None):
        self.delivery.client.open(
            id, to, HEADER, body, last=last, timeout=timeout, now=now, route_timeout=route_timeout
        )
        return self.done()

    def reply(self, body=b"", *, id=ID, header=ANSWER, last=True, eof=None, now=0.0):
        self.delivery.server.reply(id, header, body, last=last, eof=eof, now=now)
        return self.done()

    def feed(self, body, *, stream=REQUEST, last=False, now=0.0):
        self.delivery.feed(stream, body, last=last, now=now)
        return self.done()

    def cancel(self, now=0.0, id=ID):
        self.delivery.client.cancel(id, now)
        return self.done()

    def on_chunk(self, chunk, body=b"", source="b", now=0.0, hops=1, via=None):
        refusal = self.delivery.on_chunk(source, chunk, body, hops, now, via)
        return self.done() if refusal is None else (refusal, self.done())

    def on_ack(self, following, limit=WINDOW, *, stream=REQUEST, source="b", target=1, now=0.0, incarnation=2):
        ack = Ack(incarnation, target, (AckItem(*stream, following, limit),))
        self.delivery.on_ack(source, ack, now)
        return self.done()

    def on_cancel(self, *, request=True, id=ID, number=0, source="b", target=1, now=0.0, incarnation=2):
        self.delivery.on_cancel(source, Cancel(id, request, number, 0, incarnation, target), now)
        return self.done()

    def on_unreachable(self, reason="no_route", *, stream=REQUEST, near=(), at="m", to="b", text="", now=0.0):
        note = wire.Unreachable(Kind.CHUNK, reason, at, to, near, 9.0, text)
        self.delivery.on_unreachable(stream, note, now)
        return self.done()

    def on_returned(self, sequence=0, *, now=0.0):
        """A chunk of the request comes back, with the note that the node `m` could not pass it on."""
        self.delivery.on_returned(REQUEST, sequence, wire.Unreachable(Kind.CHUNK, "no_route", "m", "b", (), 9.0), now)
        return self.done()

    def on_route_lost(self, node="b", now=0.0):
        """The route to a node is gone."""
        self.forwarding.shut(node)
        self.delivery.on_route(node, None, now)
        return self.done()

    def on_route(self, node="b", incarnation=2, now=0.0):
        """There is a route to a node (again)."""
        self.forwarding.open(node, incarnation)
        self.delivery.on_route(node, incarnation, now)
        return self.done()

    def tick(self, now):
        self.delivery.tick(now)
        deadline = self.delivery.next_deadline()
        assert deadline is None or deadline >= now
        return self.done()

    def run(self, since, until):
        """Tick whenever it is due; the effects with the time they came at."""
        effects = []
        now = since
        while (due := self.delivery.next_deadline()) is not None and due <= until:
            now = max(now, due)
            effects += [(now, effect) for effect in self.tick(now)]
        return effects

    @property
    def counts(self):
        return self.delivery.counts()


def request(sequence=0, flags=FLAG_FIRST | FLAG_LAST, *, id=ID, number=0, lowest=0, incarnation=2, target=1,
            detached=False):  # fmt: skip
    """A chunk of a request to this node."""
    header = HEADER._replace(detached=detached) if flags & FLAG_FIRST else None
    return wire.Chunk(message_id=id, request=True, sequence=sequence, flags=flags, request_number=number,
                      lowest_outstanding=lowest, incarnation=incarnation, target=target, header=header,
                      eof=None)  # fmt: skip


def answer(sequence=0, flags=FLAG_FIRST | FLAG_LAST | FLAG_EOF, *, id=ID, incarnation=2, target=1, eof=None):
    """A chunk of the replies to this node."""
    header = ANSWER if flags & FLAG_FIRST else None
    eof = eof or (Eof() if flags & FLAG_EOF else None)
    return wire.Chunk(message_id=id, request=False, sequence=sequence, flags=flags, request_number=0,
                      lowest_outstanding=0, incarnation=incarnation, target=target, header=header, eof=eof)  # fmt: skip


def sent(effects, *kinds):
    """The heads of the frames among effects."""
    return [effect.value for effect in effects if hasattr(effect, "kind") and effect.kind in (kinds or Kind)]


def deliveries(effects):
    return [effect for effect in effects if isinstance(effect, Deliver)]


def final(reason, error, to="b"):
    """The last reply that this node makes up itself."""
    return Deliver(REPLIES, to, None, b"", False, Eof(1, reason, error), 0, 0)


def acknowledged(following, limit=WINDOW, stream=REPLIES, target=2):
    return Ack(1, target, (AckItem(*stream, following, limit),))
