"""What an engine makes of what it can not read, and of whatever else its neighbours may say."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.engine_harness import ANSWER, EVENTS, HEADER, ID, chunk, events, only, sealed
from zmesh.core import wire
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.effects import Abort, Deliver, HangUp, Report, Transmit
from zmesh.core.engine import Engine
from zmesh.core.message import Eof
from zmesh.core.neighbours.handshake import REDIAL_REFUSED
from zmesh.core.neighbours.links import MAX_STRIKES
from zmesh.core.wire import FLAG_EOF, FLAG_FIRST, INFINITY, MAX_BODY, MAX_HEAD, Entry, Kind

# --- garbage ------------------------------------------------------------------------------------------------------

HEAD = wire.encode(wire.Probe(0.0, 0, 0, 0.0))
(PROBE,) = wire.encode_link(Kind.PROBE, wire.Probe(0.0, 0, 0, 0.0))


def test_three_bad_frames_in_a_row_hang_up_the_link(linked):
    first = linked.receive(1, b"x", b"y", b"z")
    assert [(effect.event, effect.node, effect.link) for effect in first] == [("frame_dropped", "a", 1)]
    assert first[0].detail.startswith("garbage: ")
    linked.receive(1, b"x", b"y", b"z")
    effects = linked.receive(1, b"x", b"y", b"z")
    assert effects[1] == HangUp(1, "3 bad frames in a row", REDIAL_REFUSED)
    assert events(effects) == ["frame_dropped", "link_lost", "node_left"]


def test_a_good_frame_in_between_lets_bygones_be_bygones(linked):
    for _ in range(3):
        for _ in range(MAX_STRIKES - 1):
            linked.receive(1, b"x", b"y", b"z")
        linked.receive(1, PROBE)
    assert linked.engine.neighbours.get(1) is not None


def test_a_stranger_that_sends_garbage_is_hung_up_on_too(subject):
    subject.link_up(1)
    effects = [effect for _ in range(MAX_STRIKES) for effect in subject.receive(1, b"GET / HTTP/1.1")]
    assert [effect.event for effect in effects[:3]] == ["frame_dropped"] * 3
    assert (effects[0].node, effects[3:]) == (None, [HangUp(1, "3 bad frames in a row", REDIAL_REFUSED)])


@pytest.mark.parametrize(
    ("frames", "good"),
    [
        ((PROBE,), True),
        ((PROBE, b""), False),
        ((PROBE, b"", b""), False),
        ((), False),
        (wire.encode_packet(Kind.PROBE, "", "", HEAD, bytes(MAX_BODY)), True),
        (wire.encode_packet(Kind.PROBE, "", "", HEAD, bytes(MAX_BODY + 1)), False),
        (wire.encode_packet(Kind.CHUNK, "a", "c", bytes(MAX_HEAD), b""), True),
        (wire.encode_packet(Kind.CHUNK, "a", "c", bytes(MAX_HEAD + 1), b""), False),
    ],
    ids=["good", "two parts", "three parts", "no part", "MAX_BODY", "MAX_BODY + 1", "MAX_HEAD", "MAX_HEAD + 1"],
)
def test_a_frame_has_as_many_parts_as_it_says_and_none_too_long(linked, frames, good):
    effects = only(linked.engine.receive(1, frames, linked.now), Report)
    assert any("garbage" in report.detail for report in effects) is not good


def test_a_neighbour_is_not_hung_up_on_for_what_it_only_passed_on(linked):
    for _ in range(2 * MAX_STRIKES):
        linked.receive(1, *wire.encode_packet(Kind.CHUNK, "b", "far", b"garbage", b""))
    assert linked.engine.neighbours.get(1) is not None


def test_a_corrupted_frame_is_counted_and_dropped_and_not_charged_to_the_neighbour(linked):
    (sound,) = sealed(Kind.CHUNK, "b", "a", wire.encode(chunk()), b"payload")
    for at in (-1, -10, 14):
        spoilt = bytearray(sound)
        spoilt[at] ^= 1
        for _ in range(MAX_STRIKES):
            effects = linked.receive(1, bytes(spoilt))
            assert effects == [Report("frame_dropped", "a", None, "checksum: its checksum does not fit")]
    assert only(linked.receive(1, sound), Deliver)


def test_a_frame_for_another_node_that_was_turned_to_this_one_is_not_taken(linked):
    (frame,) = sealed(Kind.CHUNK, "c", "a", wire.encode(chunk()), b"payload")
    turned = frame[:16] + b"b" + frame[17:]
    assert only(linked.receive(1, turned), Deliver) == []
    assert only(linked.receive(1, frame), Deliver) == []


def test_what_a_neighbour_says_counts_as_bad_if_it_was_spoilt(linked):
    (frame,) = wire.encode_update(wire.Update(0, 1, [Entry("far", 1, 1, 100, 1)]))
    spoilt = bytearray(frame)
    spoilt[-1] ^= 1
    effects = linked.receive(1, bytes(spoilt))
    assert effects == [Report("frame_dropped", "a", 1, "checksum: its checksum does not fit")]
    assert linked.engine.neighbours.get(1).strikes == 1
    assert "far" not in linked.engine.routing.routes()


# --- whatever comes -----------------------------------------------------------------------------------------------

NAMES = ["a", "a", "b", "b", "c", "d", "cli@b", "b@a"]
PLAIN = ["a", "b", "c", "cli"]
FEW = [0, 1, 2, 2, 3, 100, (1 << 63) - 1]
TIMES = [-1e17, -1.0, 0.0, 0.5, 5.0, 1e17]
REASONS = ["", "no_route", "gone", "restarted", "own_id", "version"]
IDS = [ID, bytes(16), b"\xff" * 16]


class Noise:
    """Frames of every kind with fields that may mean something to a node `b`, from a seed."""

    def __init__(self, rng):
        self.rng = rng
        self.any = rng.choice

    def flag(self):
        return self.rng.random() < 0.5

    def some(self, make, most=3):
        return tuple(make() for _ in range(self.rng.randint(0, most)))

    def chunk(self):
        request = self.flag()
        header = self.any([None, HEADER if request else ANSWER])
        eof = self.any([None, Eof(), Eof(1, "remote", "oh")])
        bits = self.any([0, 2, 8, 10]) | (FLAG_FIRST if header else 0) | (FLAG_EOF if eof else 0)
        return wire.Chunk(
            message_id=self.any(IDS),
            request=request,
            sequence=self.any([0, 0, 1, 2]),
            flags=bits,
            request_number=self.any(FEW),
            lowest_outstanding=self.any(FEW),
            incarnation=self.any(FEW),
            target=self.any([0, 2, 2, 3]),
            header=header,
            eof=eof,
        )

    def entry(self):
        metric = self.any([0, 1, 50, 900, INFINITY - 1, INFINITY])
        return Entry(self.any(PLAIN), self.any(FEW), self.any(FEW), metric, self.rng.randint(0, 3))

    def record(self):
        return wire.encode(wire.Record(self.any(PLAIN), self.any(FEW), self.any(FEW), (), (), b""))

    def item(self):
        following = self.any([0, 1, 2, 100, wire.CLOSED])
        return wire.AckItem(self.any(IDS), self.flag(), following, self.any([0, WINDOW, 10 * WINDOW]))

    def cancel(self):
        return wire.Cancel(
            self.any(IDS), self.flag(), self.any(FEW), self.any(FEW), self.any(FEW), self.any([0, 2, 2, 3])
        )

    def head(self, kind):
        match kind:
            case Kind.HELLO:
                return wire.Hello(self.any(PLAIN), self.any(FEW), 0.0, self.flag(), self.any(FEW), self.any(FEW))
            case Kind.REFUSE:
                return wire.Refuse(self.any(REASONS), "text")
            case Kind.GOODBYE:
                return wire.Goodbye("leaving")
            case Kind.PROBE:
                return wire.Probe(self.any(TIMES), self.any(FEW), self.any(FEW), self.any(TIMES), self.any(FEW))
            case Kind.ECHO:
                return wire.Echo(self.any(TIMES))
            case Kind.UPDATE:
                columns = list(zip(*self.some(self.entry), strict=True)) or [()] * len(wire.Entry._fields)
                return (self.rng.randint(0, 3), self.any(FEW), *columns)
            case Kind.RECORD:
                return self.some(self.record)
            case Kind.SEQNO_REQUEST:
                hops_left = self.any([0, 1, 2, 255])
                return [wire.SeqnoRequest(self.any(PLAIN), self.any(FEW), self.any(FEW), hops_left)]
            case Kind.RESEND:
                return wire.Resend(self.flag(), self.flag(), self.flag())
            case Kind.CHUNK:
                return self.chunk()
            case Kind.ACK:
                return wire.Ack(self.any(FEW), self.any([0, 2, 2, 3]), self.some(self.item))
            case Kind.CANCEL:
                return self.cancel()
            case Kind.UNREACHABLE:
                kind = self.any([Kind.CHUNK, Kind.CANCEL, Kind.ACK, 0])
                return wire.Unreachable(kind, self.any(REASONS), self.any(PLAIN), self.any(NAMES), (), 1.0)
            case Kind.EXPIRED:
                return wire.Expired(Kind.CHUNK, self.any(PLAIN), self.any(NAMES))
        return ()

    def frames(self, kind=None):
        kind = kind or self.any(list(Kind))
        head = wire.encode(self.head(kind))
        if self.rng.random() < 0.2:
            head = self.spoilt(head)
        if kind < wire.FIRST_ROUTED:
            return wire.encode_packet(kind, "", "", head, b"")
        body = self.any([b"", wire.encode(self.any([self.chunk, self.cancel])()), b"garbage"])
        return sealed(kind, self.any(NAMES), self.any(NAMES), head, body, self.any([0, 1, 2, 255]))

    def spoilt(self, frame):
        frame = bytearray(frame)
        frame[self.rng.randrange(len(frame))] = self.rng.randrange(256)
        return bytes(frame)

    def mutated(self):
        first, *body = self.frames()
        return (self.spoilt(first), *body)

    def garbage(self):
        return self.some(lambda: self.rng.randbytes(self.rng.randrange(40)), 5)


class Anything:
    """One engine that obeys as its shell would, and neighbours that say anything at all."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.noise = Noise(self.rng)
        self.engine = Engine("b", 2, now=0.0, leaf=self.rng.random() < 0.2)
        self.now = 0.0
        self.links = 0

    def obey(self, effects):
        for effect in effects:
            match effect:
                case HangUp(link):
                    assert self.engine.neighbours.get(link) is None
                case Transmit(link, frames):
                    if frames != wire.hello_for_version1(wire.VERSION):
                        wire.decode_packet(frames)
                    if self.rng.random() < 0.02:
                        self.obey(self.engine.link_full(link, frames, self.now))
                case Abort(message_id, reason):
                    eof = Eof(1, reason, "stopped")
                    self.obey(self.engine.reply(message_id, None, b"", self.now, last=False, eof=eof))
                case Deliver(stream, credit=credit):
                    self.obey(self.engine.release_credit(stream, credit, self.now))
                case Report(event):
                    assert event in EVENTS

    def link(self):
        """One of the links, most often one that is up; there is always one."""
        up = [link.id for link in self.engine.links()]
        if not up:
            self.links += 1
            self.obey(self.engine.link_up(self.links, self.now, dialled=self.rng.random() < 0.5))
            hello = wire.Hello(self.rng.choice("aac"), 1, 0.0, False, 5, self.links)
            self.obey(self.engine.receive(self.links, wire.encode_link(Kind.HELLO, hello), self.now))
        return self.rng.choice([*up, *up, *up, *[link.id for link in self.engine.neighbours]])

    def step(self):
        rng, engine = self.rng, self.engine
        link, id = self.link(), rng.choice(IDS)
        match rng.randrange(16):
            case 0:
                self.links += 1
                effects = engine.link_up(self.links, self.now, dialled=rng.random() < 0.3)
            case 1:
                effects = engine.receive(link, list(self.noise.garbage()), self.now)
            case 2:
                effects = engine.receive(link, self.noise.mutated(), self.now)
            case 3:
                effects = engine.receive(link, self.noise.frames(Kind.HELLO), self.now)
            case 4 if rng.random() < 0.3:
                effects = engine.link_down(link, self.now, "closed")
            case 5:
                effects = engine.link_ready(link, self.now)
            case 6:
                effects = engine.probe(link, self.now)
            case 7 if engine.delivery.client.get(id) is None:
                body, timeout = bytes(rng.choice([0, 10, 70_000])), rng.choice([None, 1.0])
                effects = engine.send(id, rng.choice(NAMES), HEADER, body, self.now, timeout=timeout)
            case 8:
                effects = engine.reply(id, ANSWER, b"x", self.now, eof=rng.choice([None, Eof()]))
            case 9 if rng.random() < 0.3:
                effects = engine.cancel(id, self.now)
            case 10:
                effects = self.wait(rng.choice([0.0, 0.01, 0.5, 3.0, 40.0]))
            case _:
                effects = engine.receive(link, self.noise.frames(), self.now)
        self.obey(effects)

    def wait(self, seconds):
        until = self.now + seconds
        while (due := self.engine.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.obey(self.engine.tick(self.now))
            assert (self.engine.next_deadline() or until + 1) > self.now
        self.now = until
        return []

    def assert_sound(self):
        self.engine.check()
        tables = (self.engine.neighbours, self.engine.routing, self.engine.delivery)
        soonest = min((when for table in tables if (when := table.next_deadline()) is not None), default=None)
        assert soonest is None or self.engine.next_deadline() <= soonest


@given(st.integers(0, 1 << 32))
def test_an_engine_stays_sound_whatever_its_neighbours_say(seed):
    anything = Anything(seed)
    for _ in range(100):
        anything.step()
        anything.assert_sound()
