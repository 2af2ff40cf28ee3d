import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zmesh.core import wire
from zmesh.core.calls import CANCEL_AGAIN, CANCEL_GRACE, MAX_CLOCK_ERROR_MS, POKE_SOON
from zmesh.core.effects import Abort, Deliver, Pull, Report
from zmesh.core.exchanges import Exchanges
from zmesh.core.message import Eof, ReplyHeader, RequestHeader, Stream
from zmesh.core.peers import ACK_DELAY, FORGET_PEER, POKE_LIMIT
from zmesh.core.sending import POKE
from zmesh.core.services import LEAF_GRACE
from zmesh.core.streams import ACK_EVERY, BACKLOG, CHUNK_OVERHEAD, FIRST_TIMEOUT, WINDOW
from zmesh.core.timers import Alarm
from zmesh.core.wire import CLOSED, FLAG_EOF, FLAG_FIRST, FLAG_LAST, FLAG_RESENT, MAX_BODY, Ack, AckItem, Cancel, Kind

ROUTE_TIMEOUT = 30.0
HEADER = RequestHeader("echo:echo", 1.0, None)
ANSWER = ReplyHeader(2.0, 1)
ID = bytes(15) + b"\x01"
OTHER = bytes(15) + b"\x02"
REQUEST, REPLIES = Stream(ID, True), Stream(ID, False)


class Side:
    """The exchanges of node `a` in its incarnation 1; the test plays everybody else."""

    def __init__(self, road, started=0.0):
        self.road = road
        self.alarm = Alarm()
        self.exchanges = Exchanges(road, ROUTE_TIMEOUT, started, self.alarm)

    def done(self):
        """What the stimulus led to."""
        self.exchanges.check()
        deadline = self.exchanges.next_deadline()
        assert deadline is None or self.alarm.soonest <= deadline
        return self.road.take()

    def call(self, body=b"", *, id=ID, to="b", last=True, timeout=None, now=0.0):
        self.exchanges.calls.open(id, to, HEADER, body, last=last, timeout=timeout, now=now)
        return self.done()

    def reply(self, body=b"", *, id=ID, header=ANSWER, last=True, eof=None, now=0.0):
        self.exchanges.services.reply(id, header, body, last=last, eof=eof, now=now)
        return self.done()

    def feed(self, body, *, stream=REQUEST, last=False, now=0.0):
        self.exchanges.feed(stream, body, last=last, now=now)
        return self.done()

    def cancel(self, now=0.0, id=ID):
        self.exchanges.calls.cancel(id, now)
        return self.done()

    def on_chunk(self, chunk, body=b"", source="b", now=0.0, hops=1):
        refusal = self.exchanges.on_chunk(source, chunk, body, hops, now)
        return self.done() if refusal is None else (refusal, self.done())

    def on_ack(self, following, limit=WINDOW, *, stream=REQUEST, source="b", target=1, now=0.0, incarnation=2):
        ack = Ack(incarnation, target, (AckItem(*stream, following, limit),))
        self.exchanges.on_ack(source, ack, now)
        return self.done()

    def on_cancel(self, *, request=True, id=ID, number=0, source="b", target=1, now=0.0, incarnation=2):
        self.exchanges.on_cancel(source, Cancel(id, request, number, 0, incarnation, target), now)
        return self.done()

    def on_unreachable(self, reason="no_route", *, stream=REQUEST, near=(), at="m", to="b", now=0.0):
        note = wire.Unreachable(Kind.CHUNK, reason, at, to, near, 9.0)
        self.exchanges.on_unreachable(stream, note, now)
        return self.done()

    def on_returned(self, sequence=0, *, now=0.0):
        """A chunk of the request comes back, with the note that the node `m` could not pass it on."""
        self.exchanges.on_returned(REQUEST, sequence, wire.Unreachable(Kind.CHUNK, "no_route", "m", "b", (), 9.0), now)
        return self.done()

    def lose(self, node="b", now=0.0):
        """The route to a node is gone."""
        self.road.shut(node)
        self.exchanges.on_route(node, None, now)
        return self.done()

    def regain(self, node="b", incarnation=2, now=0.0):
        """There is a route to a node (again)."""
        self.road.open(node, incarnation)
        self.exchanges.on_route(node, incarnation, now)
        return self.done()

    def tick(self, now):
        self.exchanges.tick(now)
        deadline = self.exchanges.next_deadline()
        assert deadline is None or deadline > now
        return self.done()

    def run(self, since, until):
        """Tick whenever it is due; the effects with the time they came at."""
        effects = []
        now = since
        while (due := self.exchanges.next_deadline()) is not None and due <= until:
            now = max(now, due)
            effects += [(now, effect) for effect in self.tick(now)]
        return effects

    @property
    def counts(self):
        return self.exchanges.counts()


@pytest.fixture
def side(road):
    return Side(road)


def request(sequence=0, flags=FLAG_FIRST | FLAG_LAST, *, id=ID, number=0, floor=0, incarnation=2, target=1, age=0,
            detached=False):  # fmt: skip
    """A chunk of a request to this node."""
    header = HEADER._replace(detached=detached) if flags & FLAG_FIRST else None
    return wire.Chunk(message_id=id, request=True, sequence=sequence, flags=flags, number=number, floor=floor,
                      incarnation=incarnation, target=target, age=age, header=header, eof=None)  # fmt: skip


def answer(sequence=0, flags=FLAG_FIRST | FLAG_LAST | FLAG_EOF, *, id=ID, incarnation=2, target=1, eof=None):
    """A chunk of the replies to this node."""
    header = ANSWER if flags & FLAG_FIRST else None
    eof = eof or (Eof() if flags & FLAG_EOF else None)
    return wire.Chunk(message_id=id, request=False, sequence=sequence, flags=flags, number=0, floor=0,
                      incarnation=incarnation, target=target, age=0, header=header, eof=eof)  # fmt: skip


def sent(effects, *kinds):
    """The heads of the frames among effects."""
    return [effect.value for effect in effects if hasattr(effect, "kind") and effect.kind in (kinds or Kind)]


def deliveries(effects):
    return [effect for effect in effects if isinstance(effect, Deliver)]


def final(reason, error, to="b"):
    """The final word that this node makes up itself."""
    return Deliver(REPLIES, to, None, b"", False, Eof(1, reason, error), 0, 0)


def acknowledged(following, limit=WINDOW, stream=REPLIES, target=2):
    return Ack(1, target, (AckItem(*stream, following, limit),))


# --- the road of one request --------------------------------------------------------------------------------------


def test_a_request_leaves_at_once(side):
    ((to, kind, chunk, body),) = side.call(b"hello")
    assert (to, kind, body) == ("b", Kind.CHUNK, b"hello")
    assert (chunk.message_id, chunk.request, chunk.header, chunk.target) == (ID, True, HEADER, 2)
    assert side.exchanges.handing_over
    assert side.counts == {"calls": 1, "services": 0, "acks": 0, "waiting_bytes": 0, "peers": 1}


def test_a_request_that_comes_is_delivered_and_acknowledged_after_a_while(side):
    assert side.on_chunk(request(), b"hello", hops=3) == [
        Deliver(REQUEST, "b", HEADER, b"hello", True, None, 5 + CHUNK_OVERHEAD, 3)
    ]
    assert side.counts == {"calls": 0, "services": 1, "acks": 1, "waiting_bytes": 0, "peers": 1}
    assert side.tick(ACK_DELAY - 0.001) == []
    assert sent(side.tick(ACK_DELAY)) == [acknowledged(1, stream=REQUEST)]


def test_a_reply_leaves_at_once_and_stands_for_the_acknowledgement(side):
    side.on_chunk(request())
    (frame,) = side.reply(b"world", eof=Eof())
    chunk = frame.value
    assert (frame.kind, frame.body, chunk.request, chunk.header, chunk.eof) == (
        Kind.CHUNK,
        b"world",
        False,
        ANSWER,
        Eof(),
    )
    assert (chunk.number, chunk.floor, chunk.target) == (0, 0, 2)
    assert side.tick(ACK_DELAY) == []


def test_a_reply_is_delivered_and_the_final_word_ends_the_call(side):
    side.call()
    assert side.on_chunk(answer(), b"world", hops=2) == [
        Deliver(REPLIES, "b", ANSWER, b"world", True, Eof(), 5 + CHUNK_OVERHEAD, 2)
    ]
    assert side.counts == {"calls": 0, "services": 0, "acks": 1, "waiting_bytes": 0, "peers": 1}
    assert not side.exchanges.handing_over
    assert sent(side.tick(ACK_DELAY)) == [acknowledged(1)]


def test_a_service_is_over_when_its_final_word_has_been_acknowledged(side):
    side.on_chunk(request())
    side.reply(b"one")
    side.reply(b"two", eof=Eof())
    assert side.on_ack(1, stream=REPLIES) == []
    assert side.counts["services"] == 1
    assert side.on_ack(2, stream=REPLIES) == []
    assert side.counts["services"] == 0
    side.run(0.0, FORGET_PEER + 1)
    assert side.counts == dict.fromkeys(side.counts, 0)
    assert side.exchanges.next_deadline() is None


def test_replies_come_one_by_one_and_the_final_word_may_come_alone(side):
    side.call()
    (first,) = side.on_chunk(answer(0, FLAG_FIRST | FLAG_LAST), b"one")
    (second,) = side.on_chunk(answer(1, FLAG_EOF, eof=Eof(1, "remote", "oh")))
    assert (first.body, first.last, first.eof) == (b"one", True, None)
    assert (second.header, second.body, second.last, second.eof) == (None, b"", False, Eof(1, "remote", "oh"))
    assert side.counts["calls"] == 0


def test_what_comes_after_the_final_word_is_not_delivered(side):
    side.call()
    side.on_chunk(answer(1, FLAG_FIRST | FLAG_EOF), b"two")
    effects = side.on_chunk(answer(0, FLAG_FIRST | FLAG_LAST), b"one")
    assert [piece.body for piece in deliveries(effects)] == [b"one", b"two"]
    effects = side.on_chunk(answer(2, FLAG_FIRST | FLAG_LAST), b"three")
    assert sent(effects) == [Ack(1, 2, (AckItem(*REPLIES, CLOSED, 0),))]


def test_chunks_held_behind_the_final_word_are_dropped_with_the_call(side):
    side.call()
    side.on_chunk(answer(2, FLAG_FIRST), b"never")
    side.on_chunk(answer(1, FLAG_EOF))
    effects = side.on_chunk(answer(0, FLAG_FIRST | FLAG_LAST), b"one")
    assert [(piece.body, piece.eof) for piece in deliveries(effects)] == [(b"one", None), (b"", Eof())]


def test_an_eof_means_nothing_on_a_request(side):
    chunk = request(flags=FLAG_FIRST | FLAG_LAST | FLAG_EOF)._replace(eof=Eof())
    (piece,) = side.on_chunk(chunk, b"x")
    assert piece.eof is None
    assert side.counts["services"] == 1


# --- copies, late and early ---------------------------------------------------------------------------------------


def test_a_copy_of_a_request_is_acknowledged_at_once_and_delivered_once(side):
    side.on_chunk(request(), b"x")
    effects = side.on_chunk(request(), b"x")
    assert sent(effects) == [acknowledged(1, stream=REQUEST)]
    assert deliveries(effects) == []


def test_a_late_copy_of_a_request_that_is_over_never_runs(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    side.on_ack(1, stream=REPLIES)
    effects = side.on_chunk(request())
    assert sent(effects) == [Ack(1, 2, (AckItem(*REQUEST, CLOSED, 0),))]
    assert deliveries(effects) == []
    assert side.counts["services"] == 0


def test_a_request_that_was_cancelled_before_it_came_never_runs(side):
    assert sent(side.on_cancel(number=4)) == [Cancel(ID, False, 0, 0, 1, 2)]
    effects = side.on_chunk(request(number=4))
    assert sent(effects) == [Ack(1, 2, (AckItem(*REQUEST, CLOSED, 0),))]


def test_chunks_that_come_early_wait_for_those_before(side):
    middle = side.on_chunk(request(1, FLAG_LAST), b"world")
    assert sent(middle) == [acknowledged(0, stream=REQUEST)]
    assert deliveries(middle) == []
    effects = side.on_chunk(request(0, FLAG_FIRST), b"hello ")
    assert [(piece.body, piece.header, piece.last) for piece in deliveries(effects)] == [
        (b"hello ", HEADER, False),
        (b"world", None, True),
    ]


def test_a_quarter_of_the_window_is_acknowledged_at_once(side):
    count = -(-ACK_EVERY // (MAX_BODY + CHUNK_OVERHEAD))
    for number in range(count - 1):
        assert sent(side.on_chunk(request(number, FLAG_FIRST if number == 0 else 0), bytes(MAX_BODY))) == []
    effects = side.on_chunk(request(count - 1, 0), bytes(MAX_BODY))
    assert sent(effects) == [acknowledged(count, stream=REQUEST)]


def test_room_is_given_back_as_the_reader_reads(side):
    side.on_chunk(request(flags=FLAG_FIRST), bytes(MAX_BODY))
    side.exchanges.consumed(REQUEST, ACK_EVERY - 1, 0.0)
    assert side.done() == []
    side.exchanges.consumed(REQUEST, 1, 0.0)
    assert sent(side.done()) == [acknowledged(1, WINDOW + ACK_EVERY, REQUEST)]
    side.exchanges.consumed(REPLIES, ACK_EVERY, 0.0)
    side.exchanges.consumed(Stream(bytes(16), True), ACK_EVERY, 0.0)
    assert side.done() == []


def test_a_caller_gives_room_for_replies_too(side):
    side.call()
    side.on_chunk(answer(0, FLAG_FIRST), bytes(MAX_BODY))
    side.exchanges.consumed(REPLIES, ACK_EVERY, 0.0)
    assert sent(side.done()) == [acknowledged(1, WINDOW + ACK_EVERY)]


def test_a_request_in_the_name_of_another_peer_does_not_mix_with_it(side, road):
    road.open("c", 3)
    side.on_chunk(request(flags=FLAG_FIRST), b"x")
    assert side.on_chunk(request(1, incarnation=3, flags=FLAG_LAST), b"y", source="c") == []
    assert side.on_chunk(request(1, flags=FLAG_LAST), b"z") != []


def test_a_reply_from_a_node_that_was_not_asked_is_not_delivered(side, road):
    road.open("c", 3)
    side.call()
    effects = side.on_chunk(answer(incarnation=3), b"x", source="c")
    assert sent(effects) == [Ack(1, 3, (AckItem(*REPLIES, CLOSED, 0),))]
    assert deliveries(effects) == []
    assert side.counts["calls"] == 1


def test_a_reply_from_another_life_of_the_recipient_is_not_delivered(side, road):
    side.call()
    road.shut("b")
    assert side.on_chunk(answer(incarnation=8), b"x") == []
    assert side.counts["calls"] == 1


# --- incarnations and restarts ------------------------------------------------------------------------------------


def test_a_chunk_for_an_earlier_life_of_this_node_is_refused(side):
    assert side.on_chunk(request(target=77)) == ("restarted", [])


@pytest.mark.parametrize(("late", "refused"), [(0, False), (1, True)])
def test_a_chunk_for_whoever_is_here_must_not_be_older_than_this_node(road, late, refused):
    side = Side(road, started=100.0)
    age = 5000 + MAX_CLOCK_ERROR_MS + late
    outcome = side.on_chunk(request(target=0, age=age), now=105.0)
    assert (outcome == ("restarted", [])) is refused


def test_a_chunk_of_an_earlier_life_of_the_caller_is_stale(side):
    side.on_chunk(request())
    assert side.on_chunk(request(incarnation=1)) == ("stale", [])


def test_a_call_fails_when_the_recipient_has_restarted(side):
    side.call()
    assert side.regain(incarnation=3, now=5.0) == [
        final("node_restarted", "node 'b' has restarted and lost the request; send it again if it may run twice")
    ]
    assert side.counts["calls"] == 0


def test_a_call_fails_when_the_recipient_says_that_it_has_restarted(side):
    side.call()
    assert side.on_unreachable("restarted") == [
        Report("unreachable", "b", None, "restarted", (), 9.0),
        final("node_restarted", "node 'b' has restarted and lost the request; send it again if it may run twice"),
    ]


def test_the_work_of_a_caller_that_has_restarted_is_stopped(side):
    side.on_chunk(request())
    assert side.regain(incarnation=3) == [Abort(ID, "cancelled")]
    assert side.counts["services"] == 0


def test_the_work_is_stopped_when_the_caller_says_that_it_has_restarted(side):
    side.on_chunk(request())
    side.reply(b"x")
    assert side.on_unreachable("restarted", stream=REPLIES) == [Abort(ID, "cancelled")]
    assert side.counts["services"] == 0


def test_a_leaf_may_have_any_incarnation_and_what_is_open_is_sent_again(side, road):
    road.open("cli@b")
    side.on_chunk(request(incarnation=5), source="cli@b")
    side.reply(b"x")
    (chunk,) = sent(side.regain(incarnation=9), Kind.CHUNK)
    assert chunk.flags & FLAG_RESENT


@pytest.mark.parametrize("stimulus", ["ack", "cancel"])
def test_what_is_meant_for_an_earlier_life_is_not_heard(side, stimulus):
    side.call()
    side.on_chunk(request(id=bytes(16)))
    if stimulus == "ack":
        side.on_ack(1, target=77)
        side.on_ack(1, incarnation=1)
        assert side.exchanges.handing_over
        side.on_ack(1, target=0)
        assert not side.exchanges.handing_over
    else:
        assert side.on_cancel(id=bytes(16), target=77) == []
        assert side.on_cancel(id=bytes(16), incarnation=1) == []
        assert side.on_cancel(id=bytes(16), target=0) == [Abort(bytes(16), "cancelled")]


# --- acknowledgements ---------------------------------------------------------------------------------------------


def test_a_request_that_is_acknowledged_is_handed_over_and_sent_no_more(side):
    side.call()
    assert side.on_ack(1) == []
    assert not side.exchanges.handing_over
    assert sent([effect for _, effect in side.run(0.0, POKE - 1)]) == []


def test_the_number_of_a_request_is_settled_when_its_first_chunk_has_arrived(side):
    side.call(bytes(2 * MAX_BODY))
    side.on_ack(0)
    assert [chunk.floor for chunk in sent(side.call(id=bytes(16)))] == [0]
    side.on_ack(1)
    assert [chunk.floor for chunk in sent(side.call(id=b"\xff" * 16))] == [1]


def test_an_acknowledgement_opens_the_window(side):
    side.call(bytes(2 * WINDOW))
    before = side.counts["waiting_bytes"]
    chunks = sent(side.on_ack(15, 2 * WINDOW), Kind.CHUNK)
    assert chunks
    assert side.counts["waiting_bytes"] < before


def test_replies_wait_for_the_window_too(side):
    side.on_chunk(request())
    side.reply(bytes(2 * WINDOW))
    assert sent(side.on_ack(15, 2 * WINDOW, stream=REPLIES), Kind.CHUNK)


def test_an_acknowledgement_from_somebody_else_means_nothing(side, road):
    road.open("c", 3)
    side.call()
    side.on_ack(1, source="c", incarnation=3)
    assert side.exchanges.handing_over


def test_who_acknowledges_what_is_unknown_hears_so_and_that_is_never_answered(side):
    assert side.on_ack(3, stream=REPLIES) == []
    assert sent(side.tick(ACK_DELAY)) == [Ack(1, 2, (AckItem(*REQUEST, CLOSED, 0),))]
    assert side.on_ack(CLOSED, 0, stream=REPLIES) == []
    assert sent(side.tick(1.0)) == []


def test_who_asks_how_far_a_call_has_come_is_told_at_once(side):
    side.call()
    assert sent(side.on_ack(1, POKE_LIMIT)) == [acknowledged(0)]


def test_who_asks_how_far_a_service_has_come_is_told_at_once(side):
    side.on_chunk(request())
    assert sent(side.on_ack(0, POKE_LIMIT, stream=REPLIES)) == [acknowledged(1, stream=REQUEST)]


def test_a_call_that_the_recipient_has_given_up_ends(side):
    side.call()
    (piece,) = deliveries(side.on_ack(CLOSED, 0, now=5.0))
    assert piece == final("unreachable", "node 'b' gave the request up while cut off; its work was stopped")
    assert side.counts["calls"] == 0


def test_a_call_that_has_not_left_can_not_have_been_given_up(side, road):
    road.open("b", 2, lagging=True)
    side.call()
    assert side.on_ack(CLOSED, 0) == []
    assert side.counts["calls"] == 1


def test_the_work_of_a_call_that_the_caller_knows_no_more_is_stopped(side):
    side.on_chunk(request())
    assert side.on_ack(CLOSED, 0, stream=REPLIES) == [Abort(ID, "cancelled")]
    assert side.counts["services"] == 0


CALLER_GONE = {
    "restarted": lambda side: side.regain(incarnation=3),
    "says that it has restarted": lambda side: side.on_unreachable("restarted", stream=REPLIES),
    "knows it no more": lambda side: side.on_ack(CLOSED, 0, stream=REPLIES),
    "out of reach": lambda side: side.lose(now=1.0) + [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)],
}


@pytest.mark.parametrize("gone", CALLER_GONE.values(), ids=CALLER_GONE)
def test_detached_work_goes_on_when_its_caller_is_gone(side, gone):
    side.on_chunk(request(detached=True))
    side.reply(b"x")
    assert [effect for effect in gone(side) if isinstance(effect, Abort)] == []
    assert side.counts["services"] == 0
    assert side.reply(b"y", now=100.0) == []


@pytest.mark.parametrize("gone", CALLER_GONE.values(), ids=CALLER_GONE)
def test_detached_work_whose_payload_has_not_come_whole_is_stopped(side, gone):
    side.on_chunk(request(flags=FLAG_FIRST, detached=True), b"half")
    side.reply(b"x")
    assert [type(effect) for effect in gone(side) if isinstance(effect, Abort)] == [Abort]


def test_detached_work_stops_when_it_is_cancelled(side):
    side.on_chunk(request(detached=True))
    assert side.on_cancel() == [Abort(ID, "cancelled")]


def test_a_service_that_has_said_its_final_word_is_dropped_without_a_word_then(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    assert side.on_ack(CLOSED, 0, stream=REPLIES) == []
    assert side.counts["services"] == 0


# --- more payload -------------------------------------------------------------------------------------------------


def test_a_payload_may_follow_piece_by_piece(side):
    (first,) = sent(side.call(b"one", last=False))
    (second,) = sent(side.feed(b"two"))
    (third,) = sent(side.feed(b"", last=True))
    assert [chunk.flags for chunk in (first, second, third)] == [FLAG_FIRST, 0, FLAG_LAST]
    assert side.feed(b"too much") == []


def test_a_reply_may_follow_piece_by_piece_and_others_after_it(side):
    side.on_chunk(request())
    chunks = sent(side.reply(b"one", last=False))
    chunks += sent(side.feed(b"two", stream=REPLIES))
    chunks += sent(side.feed(b"", stream=REPLIES, last=True))
    chunks += sent(side.reply(b"next"))
    chunks += sent(side.reply(header=None, last=False, eof=Eof()))
    assert [chunk.flags for chunk in chunks] == [FLAG_FIRST, 0, FLAG_LAST, FLAG_FIRST | FLAG_LAST, FLAG_EOF]
    assert side.reply(b"too late") == []
    assert side.feed(b"too late", stream=REPLIES) == []


def test_room_is_what_the_backlog_leaves_and_more_is_pulled_when_there_is_some_again(side):
    side.call(bytes(WINDOW + 1000), last=False)
    assert side.exchanges.room(REQUEST) == BACKLOG - side.counts["waiting_bytes"] > 0
    side.feed(bytes(BACKLOG))
    assert side.exchanges.room(REQUEST) == 0
    effects = []
    for number in range(1, 30):
        effects += side.on_ack(number, WINDOW + number * (MAX_BODY + CHUNK_OVERHEAD))
    assert effects.count(Pull(REQUEST)) == 1
    assert side.exchanges.room(REQUEST) > BACKLOG // 2 - MAX_BODY


def test_a_cancelled_request_has_no_room_for_more_while_it_waits_for_its_end(side):
    side.call(last=False)
    assert side.exchanges.room(REQUEST) == BACKLOG
    side.cancel()
    assert side.exchanges.is_open(REQUEST)
    assert side.exchanges.room(REQUEST) == 0


def test_a_stream_that_is_not_there_has_no_room_and_takes_nothing(side):
    assert side.exchanges.room(REQUEST) == side.exchanges.room(REPLIES) == 0
    assert not side.exchanges.is_open(REQUEST)
    assert side.feed(b"x") == []
    assert side.reply(b"x") == []
    side.call()
    assert side.exchanges.is_open(REQUEST)
    assert not side.exchanges.is_open(REPLIES)
    assert side.exchanges.waiting_bytes == 0


# --- silence ------------------------------------------------------------------------------------------------------


def test_a_request_that_is_not_acknowledged_is_sent_again_with_growing_pauses(side):
    side.call()
    again = [(now, effect.value) for now, effect in side.run(0.0, 20.0)]
    assert [now for now, _ in again] == [FIRST_TIMEOUT, 3.0, 7.0, 15.0]
    assert [chunk.age for _, chunk in again] == [1000 * (int(FIRST_TIMEOUT) + age) for age in (1, 3, 7, 15)]


def test_every_now_and_then_the_other_end_is_asked_whether_it_knows_the_exchange(side):
    side.call()
    side.on_ack(1)
    pokes = [(now, effect.value) for now, effect in side.run(0.0, 50.0)]
    assert [now for now, _ in pokes] == [POKE, 2 * POKE, 3 * POKE]
    assert {ack for _, ack in pokes} == {acknowledged(0, POKE_LIMIT)}


def test_a_service_whose_caller_is_silent_asks_as_well(side):
    side.on_chunk(request())
    effects = sent([effect for _, effect in side.run(0.0, POKE)])
    assert effects == [acknowledged(1, stream=REQUEST), acknowledged(1, POKE_LIMIT, REQUEST)]


# --- no route -----------------------------------------------------------------------------------------------------


def test_a_request_without_a_route_waits_for_one(side):
    assert side.call(to="x", now=1.0) == []
    assert side.counts["waiting_bytes"] == 0
    (chunk,) = sent(side.regain("x", 9, now=11.0))
    assert (chunk.target, chunk.flags & FLAG_RESENT) == (9, 0)
    side.on_ack(1, source="x", incarnation=9, now=12.0)
    assert sent([effect for _, effect in side.run(12.0, 12.0 + ROUTE_TIMEOUT)], Kind.CHUNK) == []
    assert side.counts["calls"] == 1


def test_a_request_without_a_route_for_too_long_ends_unreachable(side):
    side.call(to="x", now=1.0)
    assert side.tick(1.0 + ROUTE_TIMEOUT - 0.001) == []
    assert side.tick(1.0 + ROUTE_TIMEOUT) == [
        final("unreachable", "no route to 'x' after 30 s; the request has not left 'a'; a hint about x", "x")
    ]
    assert side.counts["calls"] == 0


def test_a_call_whose_route_is_lost_is_sent_again_when_there_is_one(side):
    side.call(now=0.0)
    assert side.lose(now=0.5) == []
    (chunk,) = sent(side.regain(now=0.7))
    assert (chunk.flags & FLAG_RESENT, chunk.age) == (FLAG_RESENT, 700 + int(1000 * FIRST_TIMEOUT))


def test_a_call_that_was_lost_and_has_nothing_under_way_asks_how_it_stands(side):
    side.call()
    side.on_ack(1)
    side.lose(now=1.0)
    assert sent(side.regain(now=2.0)) == [acknowledged(0, POKE_LIMIT)]
    assert sent(side.regain(now=3.0)) == []


def test_a_call_whose_route_stays_lost_ends_and_the_work_is_stopped_if_that_can_be_told(side, road):
    side.call()
    side.lose(now=1.0)
    road.open("b", 2)
    effects = side.tick(1.0 + ROUTE_TIMEOUT)
    assert (
        final(
            "unreachable",
            "no route to 'b' after 31 s; nothing was heard of the request since it left 'a'; a hint about b",
        )
        in effects
    )
    assert sent(effects, Kind.CANCEL) == [Cancel(ID, True, 0, 0, 1, 2)]


def test_a_route_that_is_lost_twice_counts_from_the_first_time(side):
    side.call()
    side.lose(now=1.0)
    side.exchanges.on_route("b", None, 20.0)
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    assert deliveries(effects) == [
        final(
            "unreachable",
            "no route to 'b' after 31 s; nothing was heard of the request since it left 'a'; a hint about b",
        )
    ]


def test_any_sign_of_the_recipient_ends_the_wait_for_a_route(side, road):
    side.call()
    side.lose(now=1.0)
    road.open("b", 2)
    side.on_ack(1, now=2.0)
    assert deliveries([effect for _, effect in side.run(2.0, 100.0)]) == []


def test_work_goes_on_for_a_while_when_the_route_to_the_caller_is_lost(side):
    side.on_chunk(request())
    side.tick(ACK_DELAY)
    side.lose(now=1.0)
    assert [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT - 0.001)] == []
    assert side.tick(1.0 + ROUTE_TIMEOUT) == [Abort(ID, "unreachable")]
    assert side.counts["services"] == 0


@given(st.floats(0, 1e6))
@example(3.3)
def test_work_is_dropped_after_a_while_at_whatever_time_the_route_was_lost(new_road, when):
    side = Side(new_road(ways={"b": 2}))
    side.on_chunk(request(), now=when)
    side.lose(now=when)
    side.run(when, when + 10 * ROUTE_TIMEOUT)
    assert side.counts["services"] == 0


def test_replies_to_a_caller_that_was_out_of_reach_go_on_when_it_is_back(side):
    side.on_chunk(request())
    side.lose(now=1.0)
    assert side.reply(b"x", now=2.0) == []
    (chunk,) = sent(side.regain(now=3.0), Kind.CHUNK)
    assert chunk.sequence == 0
    assert sent(side.lose(now=4.0)) == []
    side.on_chunk(request(), now=4.5)
    effects = [effect for _, effect in side.run(4.5, 34.0)]
    assert Abort(ID, "unreachable") not in effects


@pytest.mark.parametrize("answered", [False, True])
def test_work_for_a_caller_to_whom_there_never_was_a_route_is_dropped(side, answered):
    side.on_chunk(request(incarnation=9), source="x")
    if answered:
        side.reply(eof=Eof())
    side.run(0.0, 1000.0)
    assert side.counts["services"] == 0


def test_a_change_of_route_to_a_node_without_exchanges_means_nothing(side):
    assert side.regain("z", 5) == []


# --- a recipient whose life is not known, as a leaf's recipients are -----------------------------------------------


@pytest.fixture
def blind(road):
    """One that learns no incarnations from routes, with a request under way since 1.0."""
    road.open("b", 0)
    side = Side(road)
    side.call(bytes(2 * MAX_BODY), now=1.0)
    return side


def test_a_request_that_may_have_begun_in_an_unknown_life_is_not_sent_again_but_asked_after(blind):
    (due, question), *more = blind.run(1.0, 20.0)
    assert due == 1.0 + FIRST_TIMEOUT
    assert question.value == Ack(1, 0, (AckItem(*REPLIES, 0, POKE_LIMIT),))
    assert len(more) > 2
    assert all(effect.value == question.value for _, effect in more)


def test_a_new_way_has_it_asked_after_as_well(blind):
    blind.lose(now=1.5)
    (question,) = sent(blind.regain(incarnation=0, now=1.6))
    assert question == Ack(1, 0, (AckItem(*REPLIES, 0, POKE_LIMIT),))


def test_it_is_sent_again_to_one_who_was_there_before_it_left_and_does_not_know_it(blind):
    blind.run(1.0, 2.0)
    old_enough = 1000 + 250 + MAX_CLOCK_ERROR_MS
    again = sent(blind.on_ack(CLOSED, old_enough, now=2.25), Kind.CHUNK)
    assert [(chunk.sequence, chunk.target) for chunk in again] == [(0, 2), (1, 2)]
    assert blind.on_ack(CLOSED, old_enough, now=2.3)[-1] == final(
        "unreachable", "node 'b' gave the request up while cut off; its work was stopped"
    )


def test_it_has_restarted_if_the_one_who_does_not_know_it_may_be_younger_than_it(blind):
    blind.run(1.0, 2.0)
    (ending,) = deliveries(blind.on_ack(CLOSED, 1000 + 250 + MAX_CLOCK_ERROR_MS - 1, now=2.25))
    assert ending.eof.reason == "node_restarted"


def test_who_has_the_beginning_gets_the_rest_and_no_other_life(blind):
    blind.on_ack(1, now=1.1)
    again = [effect.value for _, effect in blind.run(1.1, 4.0)]
    assert {(chunk.sequence, chunk.target) for chunk in again if isinstance(chunk, wire.Chunk)} == {(1, 2)}


def test_what_came_back_can_not_have_begun_anywhere_and_is_sent_again(blind):
    for sequence in (0, 1):
        blind.exchanges.on_returned(REQUEST, sequence, wire.Unreachable(Kind.CHUNK, "full", "m", "b", (), 9.0), 1.1)
    again = sent([effect for _, effect in blind.run(1.1, 2.5)], Kind.CHUNK)
    assert [(chunk.sequence, chunk.target, chunk.age) for chunk in again] == [(0, 0, 0), (1, 0, 0)]


def test_only_its_first_chunk_begins_a_request_to_whatever_life_there_is(side):
    assert side.on_chunk(request(1, FLAG_LAST, target=0)) == ("beginning_missing", [])
    assert side.counts["services"] == 0
    assert side.on_chunk(request(1, FLAG_LAST, target=1)) != ("beginning_missing", [])
    assert side.on_chunk(request(0, FLAG_FIRST, id=OTHER, number=1, target=0))
    assert deliveries(side.on_chunk(request(1, FLAG_LAST, id=OTHER, number=1, target=0)))


def test_who_does_not_know_a_stream_says_how_old_he_is(road):
    side = Side(road, started=3.0)
    side.on_ack(1, now=4.5)
    (_, answer) = side.run(4.5, 5.0)[0]
    assert answer.value == Ack(1, 2, (AckItem(*REPLIES, CLOSED, 1500),))


# --- notes from the way -------------------------------------------------------------------------------------------


def test_a_call_that_a_forwarder_can_not_pass_on_waits_and_is_sent_again(side):
    side.call()
    assert side.on_unreachable(near=("b1",), now=0.1) == [Report("unreachable", "b", None, "no_route", ("b1",), 9.0)]
    assert sent([effect for _, effect in side.run(0.1, 5.0)], Kind.CHUNK)
    assert side.counts["calls"] == 1


@pytest.mark.parametrize(
    ("near", "text"), [((), ""), (("b1", "b2"), " (did you mean 'b1'?)")], ids=["no name", "two names"]
)
def test_an_error_names_the_last_node_on_the_way_and_what_it_knows(side, near, text):
    side.call()
    side.on_unreachable(near=near, now=1.0)
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    assert deliveries(effects) == [
        final("unreachable", f"no route to 'b' after 31 s; the last node on the way was 'm'{text}")
    ]


def test_an_error_without_a_note_names_the_neighbour_that_the_request_left_for(side):
    side.road.hops[1] = "m"
    side.call(timeout=2.0)
    assert deliveries(side.tick(2.0)) == [
        final("timed_out", "no final reply from 'b' within 2 s; the last node on the way was 'm'")
    ]
    side.call()
    side.lose(now=3.0)
    effects = [effect for _, effect in side.run(3.0, 3.0 + ROUTE_TIMEOUT)]
    assert (
        final("unreachable", "no route to 'b' after 33 s; the last node on the way was 'm'; a hint about b") in effects
    )


def test_the_neighbour_that_an_error_names_is_that_of_the_last_route(side):
    side.road.shut("b")
    side.call(timeout=9.0)
    for hop in ("m", "n"):
        side.road.hops[1] = hop
        side.regain(now=1.0)
    side.lose(now=2.0)
    assert deliveries(side.tick(9.0)) == [
        final("timed_out", "no route to 'b' after 9 s; the last node on the way was 'n'; a hint about b")
    ]


@pytest.mark.parametrize("sign", ["acknowledged", "answered"])
def test_an_error_says_that_the_recipient_had_the_request_if_that_is_known(side, sign):
    side.call(timeout=9.0)
    if sign == "answered":
        side.on_chunk(answer(flags=FLAG_FIRST | FLAG_LAST))
    else:
        side.on_ack(1)
    side.on_unreachable(now=1.0)
    side.lose(now=2.0)
    assert final("timed_out", "no route to 'b' after 9 s; the request had reached 'b'") in side.tick(9.0)


def test_a_note_of_this_node_itself_is_as_good_as_what_it_knows(side):
    side.call()
    side.on_unreachable(at="a", now=1.0)
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    assert deliveries(effects) == [
        final(
            "unreachable",
            "no route to 'b' after 31 s; nothing was heard of the request since it left 'a'; a hint about b",
        )
    ]


def test_a_chunk_that_a_full_queue_refused_is_sent_again_with_the_next_acknowledgement(side):
    side.call(bytes(4 * MAX_BODY))
    note = wire.Unreachable(Kind.CHUNK, "full", "m", "b", (), 0.0)
    side.exchanges.on_returned(REQUEST, 1, note, 0.1)
    assert side.done() == []
    assert [chunk.sequence for chunk in sent(side.on_ack(1, now=0.2))] == [1]
    assert side.exchanges.calls.get(ID).lost_since is None


def test_a_call_that_had_arrived_asks_soon_after_a_note(side):
    side.call()
    side.on_ack(1)
    side.on_unreachable(now=1.0)
    side.on_unreachable(now=1.2)
    assert [(now, effect.value) for now, effect in side.run(1.0, 5.0)] == [
        (1.0 + POKE_SOON, acknowledged(0, POKE_LIMIT))
    ]
    side.on_ack(1, now=5.0)
    assert deliveries([effect for _, effect in side.run(5.0, 100.0)]) == []


@pytest.mark.parametrize(("reason", "patience"), [("no_route", ROUTE_TIMEOUT), ("gone", LEAF_GRACE)])
def test_work_goes_on_for_a_while_after_a_note_that_the_caller_is_out_of_reach(side, road, reason, patience):
    source = "cli@b" if reason == "gone" else "b"
    road.open(source, 2)
    side.on_chunk(request(), source=source)
    side.tick(ACK_DELAY)
    side.on_unreachable(reason, stream=REPLIES, to=source, now=1.0)
    side.on_unreachable(reason, stream=REPLIES, to=source, now=2.0)
    effects = side.run(1.0, 1.0 + patience)
    assert (1.0 + patience, Abort(ID, "unreachable")) in effects


def test_a_note_about_what_is_over_means_nothing(side):
    assert side.on_unreachable() == []
    assert side.on_unreachable(stream=REPLIES) == []
    side.exchanges.on_returned(REQUEST, 0, wire.Unreachable(Kind.CHUNK, "no_route", "m", "b", (), 9.0), 0.0)
    assert side.done() == []


# --- leaves -------------------------------------------------------------------------------------------------------


def test_a_leaf_that_is_gone_has_a_short_while_to_come_back(side, road):
    road.open("cli@a")
    side.on_chunk(request(incarnation=5), source="cli@a")
    side.tick(ACK_DELAY)
    side.exchanges.on_detached("cli@a", 1.0)
    assert side.tick(1.0 + LEAF_GRACE - 0.001) == []
    assert side.tick(1.0 + LEAF_GRACE) == [Abort(ID, "unreachable")]


def test_a_leaf_that_comes_back_goes_on(side, road):
    road.open("cli@a")
    side.on_chunk(request(incarnation=5), source="cli@a")
    side.reply(b"x")
    side.exchanges.on_detached("cli@a", 1.0)
    side.done()
    side.exchanges.on_attached("cli@a", 2.0)
    (chunk,) = sent(side.done(), Kind.CHUNK)
    assert chunk.flags & FLAG_RESENT
    side.on_ack(1, stream=REPLIES, source="cli@a", incarnation=5, now=2.1)
    assert Abort(ID, "unreachable") not in [effect for _, effect in side.run(2.1, 100.0)]


def test_only_the_exchanges_of_that_leaf_are_touched(side, road):
    road.open("cli@a")
    road.open("top@a")
    for number, source in enumerate(["cli@a", "top@a", "b"]):
        id = bytes([number]) * 16
        side.on_chunk(request(id=id, incarnation=5 if "@" in source else 2), source=source)
    side.exchanges.on_detached("cli@a", 1.0)
    effects = [effect for _, effect in side.run(1.0, 20.0)]
    assert [effect for effect in effects if isinstance(effect, Abort)] == [Abort(bytes(16), "unreachable")]


def test_the_work_of_a_leaf_that_hangs_on_another_node_from_now_on_goes_on_there(side, road):
    for host in ("h", "i"):
        road.open(f"leaf@{host}", 0)
    side.on_chunk(request(), source="leaf@h")
    side.reply(b"lost on the way", now=1.0)
    again = side.on_ack(0, POKE_LIMIT, stream=REPLIES, source="leaf@i", now=2.0)
    assert [(frame.kind, frame.destination) for frame in again if hasattr(frame, "kind")] == [
        (Kind.CHUNK, "leaf@i"),
        (Kind.ACK, "leaf@i"),
    ]
    assert side.on_unreachable("gone", stream=REPLIES, to="leaf@h", now=2.5) == []
    side.exchanges.on_route("h", None, 2.6)
    assert side.done() == []
    assert side.on_cancel(source="leaf@i", now=3.0)[0] == Abort(ID, "cancelled")


def test_a_leaf_that_loses_its_home_goes_on_from_the_next_one(side):
    side.call()
    side.on_chunk(request(id=bytes(16)))
    side.exchanges.on_detached(None, 1.0)
    side.done()
    side.exchanges.on_attached(None, 2.0)
    frames = sent(side.done(), Kind.CHUNK, Kind.ACK)
    assert len(frames) == 2


def test_what_goes_on_where_there_is_no_way_yet_waits_for_one(side):
    side.call(last=False)
    side.on_chunk(request(id=bytes(16)))
    side.road.shut("b")
    side.feed(b"more", now=1.0)
    side.reply(b"answer", id=bytes(16), now=1.0)
    side.exchanges.on_attached(None, 2.0)
    assert sent(side.done()) == []
    effects = [effect for _, effect in side.run(2.0, 2.0 + ROUTE_TIMEOUT)]
    assert [piece.eof.reason for piece in deliveries(effects)] == ["unreachable"]
    assert Abort(bytes(16), "unreachable") in effects


def test_a_call_of_a_leaf_that_finds_no_other_home_ends(side):
    side.call()
    side.exchanges.on_detached(None, 3.0)
    effects = [effect for _, effect in side.run(3.0, 3.0 + ROUTE_TIMEOUT)]
    assert [piece.eof.reason for piece in deliveries(effects)] == ["unreachable"]


def test_the_work_of_a_leaf_that_finds_no_other_home_ends(side):
    side.on_chunk(request())
    side.exchanges.on_detached(None, 3.0)
    side.road.shut("b")
    effects = [effect for _, effect in side.run(3.0, 3.0 + 10 * ROUTE_TIMEOUT)]
    assert Abort(ID, "unreachable") in effects


# --- time is up ---------------------------------------------------------------------------------------------------


def test_a_call_ends_at_its_deadline_and_the_work_is_stopped(side):
    side.call(timeout=5.0, now=1.0)
    side.on_ack(1, now=1.1)
    side.tick(1.2)
    assert side.tick(5.999) == []
    effects = side.tick(6.0)
    assert sent(effects) == [Cancel(ID, True, 0, 0, 1, 2)]
    assert deliveries(effects) == [
        final("timed_out", "no final reply from 'b' within 5 s; the request had reached 'b'")
    ]
    assert side.counts["calls"] == 0


def test_a_call_without_a_route_says_so_when_its_time_is_up(side):
    side.call(to="x", timeout=5.0)
    assert side.tick(5.0) == [
        final("timed_out", "no route to 'x' after 5 s; the request has not left 'a'; a hint about x", "x")
    ]


def test_a_deadline_beyond_the_patience_for_a_route_does_not_count(side):
    side.call(to="x", timeout=ROUTE_TIMEOUT + 1)
    assert side.tick(ROUTE_TIMEOUT) == [
        final("unreachable", "no route to 'x' after 30 s; the request has not left 'a'; a hint about x", "x")
    ]


def test_a_call_that_was_out_of_reach_for_a_time_keeps_its_deadline(side):
    side.call(timeout=100.0)
    side.lose(now=1.0)
    side.regain(now=2.0)
    side.on_ack(1, now=2.1)
    assert deliveries([effect for _, effect in side.run(2.1, 99.9)]) == []
    assert [piece.eof.reason for piece in deliveries(side.tick(100.0))] == ["timed_out"]


# --- cancelling ---------------------------------------------------------------------------------------------------


def test_a_request_that_never_left_is_cancelled_at_once(side):
    side.call(to="x")
    assert side.cancel() == [final("cancelled", "cancelled; it had not reached 'x'", "x")]
    assert side.counts["calls"] == 0


def test_a_request_that_came_back_is_cancelled_at_once(side):
    side.call()
    side.on_returned(now=0.1)
    assert side.cancel(now=0.2) == [final("cancelled", "cancelled; it had not reached 'b'")]


def test_a_request_that_comes_back_after_it_was_cancelled_ends_then(side):
    side.call()
    assert sent(side.cancel(now=0.1)) == [Cancel(ID, True, 0, 0, 1, 2)]
    assert deliveries(side.on_returned(now=0.2)) == [final("cancelled", "cancelled; it had not reached 'b'")]


def test_a_request_of_which_one_copy_came_back_and_another_may_have_arrived_waits_for_the_word_of_the_recipient(side):
    side.call()
    side.lose(now=0.5)
    side.regain(now=0.6)
    side.on_returned(now=0.7)
    assert sent(side.cancel(now=0.8), Kind.CANCEL) == [Cancel(ID, True, 0, 0, 1, 2)]
    assert side.counts["calls"] == 1


def test_a_request_of_which_anything_has_arrived_waits_for_the_word_of_the_recipient(side):
    side.call(bytes(2 * MAX_BODY))
    side.on_ack(1)
    side.on_returned(sequence=1)
    assert sent(side.cancel(now=0.1), Kind.CANCEL) == [Cancel(ID, True, 0, 0, 1, 2)]


def test_cancelling_what_is_unknown_or_cancelled_already_is_harmless(side):
    assert side.cancel() == []
    side.call()
    assert len(side.cancel()) == 1
    assert side.cancel() == []


def test_a_cancelled_call_ends_with_the_final_word_of_the_recipient(side):
    side.call()
    side.on_ack(1)
    assert sent(side.cancel()) == [Cancel(ID, True, 0, 0, 1, 2)]
    (piece,) = side.on_chunk(answer(flags=FLAG_EOF, eof=Eof(1, "cancelled", "stopped")))
    assert piece.eof == Eof(1, "cancelled", "stopped")
    assert side.counts["calls"] == 0


def test_a_cancelled_call_ends_when_the_recipient_knows_nothing_of_it(side):
    side.call()
    assert side.on_cancel(request=False) == []
    side.cancel()
    assert side.on_cancel(request=False, source="c") == []
    assert side.on_cancel(request=False) == [final("cancelled", "cancelled; 'b' had not begun, or was done")]
    assert side.on_cancel(request=False) == []


def test_cancelling_is_said_again_until_it_is_confirmed_and_given_up_in_the_end(side):
    side.call()
    side.cancel(now=1.0)
    effects = side.run(1.0, 1.0 + CANCEL_GRACE)
    assert sent([effect for _, effect in effects], Kind.CHUNK) == []
    cancels = [now for now, effect in effects if sent([effect], Kind.CANCEL)]
    assert cancels[:3] == [1.0 + CANCEL_AGAIN, 1.0 + 2 * CANCEL_AGAIN, 1.0 + 3 * CANCEL_AGAIN]
    assert effects[-1] == (
        1.0 + CANCEL_GRACE,
        final("cancelled", "cancelled; 'b' has not confirmed within 10 s that the work has ended"),
    )


def test_cancelling_is_said_again_also_when_the_request_is_acknowledged_meanwhile(side):
    side.call()
    side.cancel(now=0.01)
    side.on_ack(1, now=0.03)
    effects = side.run(0.03, 3.0)
    assert len(sent([effect for _, effect in effects], Kind.CANCEL)) > 3


def test_a_cancelled_call_whose_route_is_lost_is_cancelled_again_when_there_is_one(side):
    side.call()
    side.lose(now=0.5)
    assert side.cancel(now=1.0) == []
    assert sent(side.regain(now=2.0)) == [Cancel(ID, True, 0, 0, 1, 2)]


def test_what_was_not_sent_of_a_cancelled_call_never_is(side):
    side.call(bytes(2 * WINDOW), last=False)
    side.cancel()
    assert side.counts["waiting_bytes"] == 0
    assert sent(side.on_ack(10, 10 * WINDOW), Kind.CHUNK) == []
    assert side.feed(b"more") == []


def test_that_the_recipient_has_closed_a_cancelled_call_does_not_end_it_otherwise(side):
    side.call()
    side.cancel()
    assert side.on_ack(CLOSED, 0) == []
    assert side.counts["calls"] == 1


def test_the_time_of_a_cancelled_call_may_be_up_before_it_is_confirmed(side):
    side.call(timeout=1.9)
    side.cancel(now=1.0)
    effects = [effect for _, effect in side.run(1.0, 2.0)]
    assert effects[-1] == final(
        "timed_out", "no final reply from 'b' within 1.9 s; nothing was heard of the request since it left 'a'"
    )
    assert len(sent(effects, Kind.CANCEL)) == 1


def test_work_that_is_cancelled_is_aborted_once_and_its_final_word_is_sent(side):
    side.on_chunk(request())
    assert side.on_cancel() == [Abort(ID, "cancelled")]
    assert side.on_cancel() == []
    (chunk,) = sent(side.reply(header=None, last=False, eof=Eof(1, "cancelled", "stopped")))
    assert chunk.eof == Eof(1, "cancelled", "stopped")


def test_work_that_has_said_its_final_word_is_not_aborted(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    assert side.on_cancel() == []


def test_work_whose_cancel_has_overtaken_its_first_chunk_never_begins(side):
    assert side.on_chunk(request(1, FLAG_LAST)) != []
    (answer_,) = sent(side.on_cancel(), Kind.CANCEL)
    assert not answer_.request
    assert deliveries(side.on_chunk(request(0, FLAG_FIRST), now=0.1)) == []
    assert side.counts["services"] == 0


def test_nobody_cancels_the_work_of_another(side, road):
    road.open("c", 3)
    side.on_chunk(request())
    assert side.on_cancel(source="c", incarnation=3) == []
    assert side.counts["services"] == 1


def test_a_cancel_from_where_no_way_leads_is_not_answered(side):
    assert side.on_cancel(source="x", incarnation=3) == []


# --- a link that lags ---------------------------------------------------------------------------------------------


def test_a_request_goes_on_when_its_link_is_ready(side, road):
    road.open("b", 2, lagging=True)
    assert side.call() == []
    road.open("b", 2)
    side.exchanges.on_link_ready(1, lambda: False, 0.0)
    assert len(sent(side.done(), Kind.CHUNK)) == 1


def test_a_request_takes_another_way_when_its_link_is_gone(side, road):
    road.open("b", 2, lagging=True)
    side.call()
    road.open("b", 2, link=7)
    side.exchanges.link_down(1, 0.0)
    assert len(sent(side.done(), Kind.CHUNK)) == 1


# --- two nodes, and a network that does what it likes --------------------------------------------------------------


class Pair:
    """The exchanges of two nodes; frames are lost, doubled and reordered as a seed has it, and routes come and go."""

    def __init__(self, seed, new_road):
        self.random = random.Random(seed)
        self.now = 0.0
        self.loss = self.random.choice([0.0, 0.1, 0.4])
        self.sides = {node: Side(new_road(node, life, {other: 3 - life})) for node, other, life in
                      [("a", "b", 1), ("b", "a", 2)]}  # fmt: skip
        self.under_way = []
        self.expected = {}
        self.ended = {}
        self.received = {}
        self.jobs = {}
        self.began = {}

    def other(self, node):
        return "b" if node == "a" else "a"

    def take(self, node, effects):
        side = self.sides[node]
        for effect in effects:
            match effect:
                case Deliver(stream, _, header, body, last, eof, weight):
                    if stream.request:
                        if header is not None:
                            self.began[stream.message_id] = self.began.get(stream.message_id, 0) + 1
                            self.jobs[stream.message_id] = [node, bytearray(), False]
                        job = self.jobs.get(stream.message_id, [node, bytearray(), False])
                        job[1] += body
                        job[2] = job[2] or last
                        sent = self.expected[stream.message_id]
                        if stream.message_id in self.jobs:  # else it was aborted, and nobody reads it
                            assert sent == job[1] if last else sent.startswith(bytes(job[1]))
                    elif weight:
                        assert stream.message_id not in self.ended, "a reply after the end"
                        self.received[stream.message_id] += body
                    if eof is not None:
                        assert stream.message_id not in self.ended, "a second end"
                        self.ended[stream.message_id] = eof
                    side.exchanges.consumed(stream, weight, self.now)
                    self.take(node, side.done())
                case Abort(message_id, reason):
                    side.exchanges.services.reply(
                        message_id, None, b"", last=False, eof=Eof(1, reason, reason), now=self.now
                    )
                    self.jobs.pop(message_id, None)
                    self.take(node, side.done())
                case Report() | Pull():
                    pass
                case _:
                    for _ in range(self.random.choice([1, 1, 1, 2])):
                        if self.random.random() >= self.loss:
                            self.under_way.append((node, effect))
                        elif effect.kind is Kind.CHUNK and self.random.random() < 0.3:
                            self.refuse(node, effect.value)

    def refuse(self, node, chunk):
        """A full queue on the way has no room for a chunk, and its sender hears of it at once."""
        side = self.sides[node]
        note = wire.Unreachable(Kind.CHUNK, "full", "m", self.other(node), (), 0.0)
        side.exchanges.on_returned(Stream(chunk.message_id, chunk.request), chunk.sequence, note, self.now)
        self.take(node, side.done())

    def arrive(self, index):
        node, frame = self.under_way.pop(index)
        side = self.sides[self.other(node)]
        match frame.kind:
            case Kind.CHUNK:
                effects = side.on_chunk(frame.value, frame.body, source=node, now=self.now)
                assert isinstance(effects, list), effects
            case Kind.ACK:
                side.exchanges.on_ack(node, frame.value, self.now)
                effects = side.done()
            case _:
                side.exchanges.on_cancel(node, frame.value, self.now)
                effects = side.done()
        self.take(self.other(node), effects)

    def pass_time(self, seconds):
        until = self.now + seconds
        while True:
            due = [(when, node) for node, side in self.sides.items()
                   if (when := side.exchanges.next_deadline()) is not None]  # fmt: skip
            if not due or min(due)[0] > until:
                break
            when, node = min(due)
            self.now = max(self.now, when)
            self.take(node, self.sides[node].tick(self.now))
            if self.random.random() < 0.5:
                self.deliver_some()
        self.now = until

    def deliver_some(self):
        for _ in range(self.random.randint(0, len(self.under_way))):
            self.arrive(self.random.randrange(min(4, len(self.under_way))))

    def work(self):
        """Have jobs reply what they were asked: the payload in two replies, and the end."""
        for id, (node, payload, whole) in list(self.jobs.items()):
            if whole and self.random.random() < 0.5:
                side = self.sides[node]
                half = len(payload) // 2
                self.take(node, side.reply(bytes(payload[:half]), id=id, now=self.now))
                self.take(node, side.reply(bytes(payload[half:]), id=id, now=self.now, eof=Eof()))
                del self.jobs[id]

    def step(self):
        node = self.random.choice("ab")
        side = self.sides[node]
        other = self.other(node)
        match self.random.randrange(8):
            case 0 if len(self.expected) < 12:
                id = self.random.randbytes(16)
                body = self.random.randbytes(self.random.choice([0, 10, 70_000, 400_000, 1_300_000]))
                timeout = self.random.choice([None, None, 3.0, 60.0])
                self.expected[id], self.received[id] = body, bytearray()
                self.take(node, side.call(body, id=id, to=other, timeout=timeout, now=self.now))
            case 1 if self.expected and self.random.random() < 0.3:
                self.take(node, side.cancel(self.now, id=self.random.choice(list(self.expected))))
            case 2 if self.random.random() < 0.3:
                self.take(node, side.lose(other, now=self.now) if other in side.road.ways else [])
            case 3 if other not in side.road.ways:
                self.take(node, side.regain(other, 2 if other == "b" else 1, now=self.now))
            case 4 | 5:
                self.pass_time(self.random.choice([0.01, 0.1, 1.0, 4.0]))
            case 6:
                self.work()
            case _:
                self.deliver_some()

    def part(self):
        """The two lose each other for good."""
        self.loss = 1.0
        self.under_way.clear()
        for node in "ab":
            if self.other(node) in self.sides[node].road.ways:
                self.take(node, self.sides[node].lose(self.other(node), now=self.now))
        self.pass_time(ROUTE_TIMEOUT + POKE + FORGET_PEER)

    def finish(self):
        self.loss = 0.0
        for node in "ab":
            if self.other(node) not in self.sides[node].road.ways:
                self.take(node, self.sides[node].regain(self.other(node), 2 if node == "a" else 1, now=self.now))
        for _ in range(400):
            self.deliver_some()
            self.work()
            self.pass_time(0.5)


@settings(max_examples=settings().max_examples // 2)
@given(st.integers(0, 1 << 32))
def test_every_call_ends_once_and_its_work_runs_at_most_once_whatever_the_network_does(new_road, seed):
    pair = Pair(seed, new_road)
    for _ in range(80):
        pair.step()
    pair.finish()
    assert pair.ended.keys() == pair.expected.keys()
    assert all(count == 1 for count in pair.began.values())
    for id, body in pair.expected.items():
        assert body.startswith(pair.received[id])
        if pair.ended[id].code == 0:
            assert pair.received[id] == body
    for side in pair.sides.values():
        assert side.counts == dict.fromkeys(side.counts, 0)


@settings(max_examples=settings().max_examples // 2)
@given(st.integers(0, 1 << 32))
@example(352)  # a cancel that overtook the request that it was for
def test_what_is_not_over_when_two_nodes_lose_each_other_for_good_ends_in_error_on_both_sides(new_road, seed):
    pair = Pair(seed, new_road)
    for _ in range(40):
        pair.step()
    over = dict(pair.ended)
    pair.part()
    assert pair.ended.keys() == pair.expected.keys()
    assert all(pair.ended[id].code != 0 for id in pair.ended.keys() - over.keys())
    for id, eof in pair.ended.items():
        assert (
            pair.received[id] == pair.expected[id] if eof.code == 0 else pair.expected[id].startswith(pair.received[id])
        )
    assert pair.jobs == {}
    for side in pair.sides.values():
        assert {**side.counts, "peers": 0} == dict.fromkeys(side.counts, 0)


# --- what check finds ---------------------------------------------------------------------------------------------


def test_a_missing_timer_is_found(side):
    side.call()
    side.exchanges._sending.timers.cancel(REQUEST)
    with pytest.raises(AssertionError, match="nothing will send again"):
        side.exchanges.check()


def test_exchanges_that_nothing_will_wake_are_found(side):
    side.call()
    side.on_ack(1)
    side.exchanges._sending._sweep_at = math.inf
    with pytest.raises(AssertionError, match="nothing will wake"):
        side.exchanges.check()


def test_a_service_that_is_over_and_still_there_is_found(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    side.exchanges.services.get(ID).outbound.acknowledge(1, 0, 0.0)
    with pytest.raises(AssertionError, match="still there"):
        side.exchanges.check()


def test_an_exchange_that_is_in_no_list_is_found(side):
    side.call()
    side.exchanges._sending._of_host.clear()
    with pytest.raises(AssertionError, match="by host"):
        side.exchanges.check()


def test_a_stream_of_an_exchange_that_is_over_is_found(side):
    side.call()
    side.exchanges.calls._calls.clear()
    with pytest.raises(AssertionError, match="that is over"):
        side.exchanges.check()


def test_a_wrong_count_of_waiting_bytes_is_found(side):
    side.call(to="x")
    side.exchanges._sending.waiting_bytes += 1
    with pytest.raises(AssertionError, match="waiting bytes"):
        side.exchanges.check()


def test_a_wrong_count_of_waiting_streams_is_found(side):
    side.call(to="x")
    side.exchanges._sending.waiting_streams += 1
    with pytest.raises(AssertionError, match="waiting streams"):
        side.exchanges.check()


def test_what_waits_whole_is_counted_until_it_leaves_or_is_given_up(side):
    other = bytes(15) + b"\x02"
    side.call(to="x")
    side.call(bytes(3 * MAX_BODY), to="x", id=other)
    assert side.exchanges.waiting_streams == 2
    side.regain("x")
    assert side.exchanges.waiting_streams == 0
    side.call(to="y", id=bytes(15) + b"\x03")
    assert side.exchanges.waiting_streams == 1
    side.cancel(id=bytes(15) + b"\x03")
    assert side.exchanges.waiting_streams == 0


def test_a_call_is_lost_as_long_as_no_way_leads_to_its_recipient(side):
    side.call(to="x")
    assert side.exchanges.is_lost(ID)
    side.regain("x")
    assert not side.exchanges.is_lost(ID)
    side.lose("x")
    assert side.exchanges.is_lost(ID)
    side.cancel()
    assert not side.exchanges.is_lost(bytes(16))


def test_a_timeout_names_the_last_node_that_is_known_to_have_the_request(side):
    side.call(timeout=5.0)
    effects = [effect for _, effect in side.run(0.0, 5.0)]
    text = "no final reply from 'b' within 5 s; nothing was heard of the request since it left 'a'"
    assert deliveries(effects) == [final("timed_out", text)]


def test_a_route_that_is_lost_after_the_request_arrived_does_not_hide_that(side):
    side.call()
    side.on_ack(1, now=0.1)
    side.lose(now=1.0)
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    text = "no route to 'b' after 31 s; the request had reached 'b'; a hint about b"
    assert deliveries(effects) == [final("unreachable", text)]


def test_a_deadline_of_what_is_over_means_nothing(side):
    exchanges = side.exchanges
    exchanges.calls._limits.set(ID, 1.0)
    exchanges._sending.timers.set(Stream(ID, True), 1.0)
    exchanges._peers._acks.set("gone", 1.0)
    assert side.tick(1.0) == []
    exchanges.check()
