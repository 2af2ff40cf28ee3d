import pytest

from tests.core.engine_harness import ANSWER, HEADER, ID, REPLIES, REQUEST, Routed, Said, chunk, events
from zmesh.core import wire
from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.peers import ACK_DELAY, PROBE_LIMIT
from zmesh.core.effects import Abort, Deliver, Report
from zmesh.core.forwarding.forwarding import DRAIN, LAGGING_BYTES
from zmesh.core.forwarding.queues import BULK
from zmesh.core.message import Eof
from zmesh.core.wire import FLAG_EOF, FLAG_FIRST, FLAG_LAST, Entry, Kind

# --- messages -----------------------------------------------------------------------------------------------------


def test_a_request_goes_out_on_the_link_to_its_recipient(linked):
    (frame,) = linked.send("a", b"hello")
    assert frame[:4] == (1, Kind.CHUNK, "a", "b")
    assert (frame.value.header, frame.body) == (HEADER, b"hello")


def test_a_message_for_this_node_is_delivered_with_the_number_of_links_it_crossed(linked):
    assert linked.arrive(1, Kind.CHUNK, chunk(), b"hello", ttl=253) == [
        Deliver(REQUEST, "a", HEADER, b"hello", True, None, 5 + CHUNK_OVERHEAD, 3)
    ]


def test_a_reply_is_delivered_and_ends_the_exchange(linked):
    linked.send("a", b"hello")
    (piece,) = linked.arrive(1, Kind.CHUNK, chunk(request=False, flags=FLAG_FIRST | FLAG_LAST | FLAG_EOF), b"world")
    assert (piece.stream, piece.header, piece.body, piece.eof) == (REPLIES, ANSWER, b"world", Eof())
    assert linked.engine.stats()["requests_made"] == 0


def test_a_reply_leaves_over_the_next_hop_to_the_client(linked):
    linked.arrive(1, Kind.CHUNK, chunk(), b"hello")
    (frame,) = linked.reply(b"world", eof=Eof())
    assert frame[:4] == (1, Kind.CHUNK, "a", "b")
    assert linked.arrive(1, Kind.ACK, wire.Ack(1, 2, (wire.AckItem(*REPLIES, 1, WINDOW),))) == []
    assert linked.engine.stats()["requests_received"] == 0


def test_a_request_to_the_node_itself_takes_the_same_path(subject):
    (piece,) = subject.send("b", b"hello")
    assert piece == Deliver(REQUEST, "b", HEADER, b"hello", True, None, 5 + CHUNK_OVERHEAD, 0)
    (piece,) = subject.reply(b"world", eof=Eof())
    assert piece == Deliver(REPLIES, "b", ANSWER, b"world", True, Eof(), 5 + CHUNK_OVERHEAD, 0)
    subject.run(ACK_DELAY)
    counts = subject.engine.stats()
    assert (counts["requests_made"], counts["requests_received"]) == (0, 0)


def test_a_large_payload_is_fed_and_read_piece_by_piece(subject):
    body = bytes(range(256)) * 40_000
    effects = subject.send("b", body[:1_000_000], last=False)
    received, fed = b"", 1_000_000
    while effects:
        effect = effects.pop(0)
        if isinstance(effect, Deliver):
            received += effect.body
            effects += subject.done(subject.engine.release_credit(effect.stream, effect.credit, subject.now))
        if not effects and fed < len(body):
            room = subject.engine.room(REQUEST)
            assert room > 0
            piece = body[fed : fed + room]
            fed += len(piece)
            effects += subject.done(subject.engine.feed(REQUEST, piece, subject.now, last=fed == len(body)))
    assert received == body


def test_cancelling_reaches_the_recipient(linked):
    linked.send("a")
    (frame,) = linked.done(linked.engine.cancel(ID, linked.now))
    assert (frame.kind, frame.value.message_id) == (Kind.CANCEL, ID)


def test_work_that_the_caller_cancels_is_aborted(linked):
    linked.arrive(1, Kind.CHUNK, chunk())
    assert linked.arrive(1, Kind.CANCEL, wire.Cancel(ID, True, 0, 0, 1, 2)) == [Abort(ID, "cancelled")]


def test_a_server_that_resets_sends_the_code_with_the_end(linked):
    linked.arrive(1, Kind.CHUNK, chunk())
    (frame,) = linked.done(linked.engine.reset(ID, 9, "enough", linked.now))
    assert (frame.kind, frame.value.eof) == (Kind.CHUNK, Eof(1, "cancelled", "enough", 9))
    assert linked.done(linked.engine.reset(ID, 9, "enough", linked.now)) == []


def test_a_client_learns_that_no_more_of_its_request_is_wanted(linked):
    linked.arrive(1, Kind.CHUNK, chunk(flags=FLAG_FIRST))
    (frame,) = linked.done(linked.engine.stop_sending(ID, linked.now))
    assert (frame.kind, frame.to) == (Kind.ACK, "a")
    assert linked.done(linked.engine.stop_sending(ID, linked.now)) == []


def test_a_message_for_an_earlier_incarnation_of_this_node_is_sent_back(linked):
    (frame,) = linked.arrive(1, Kind.CHUNK, chunk(target=77))
    assert frame[:4] == (1, Kind.UNREACHABLE, "a", "b")
    assert (frame.value.reason, frame.value.near) == ("restarted", ())
    assert wire.decode_chunk(frame.body) == chunk(target=77)


def test_a_message_of_an_earlier_incarnation_of_its_sender_is_dropped(linked):
    linked.arrive(1, Kind.CHUNK, chunk())
    assert linked.arrive(1, Kind.CHUNK, chunk(incarnation=77)) == [Report("frame_dropped", "a", None, "stale")]


def test_a_frame_whose_ttl_expired_is_reported(linked):
    note = wire.Expired(Kind.CHUNK, "m", "far")
    assert linked.arrive(1, Kind.EXPIRED, note, b"head") == [Report("expired", "m", None, "far")]


def unreachable(reason="no_route", kind=Kind.CHUNK, to="far"):
    return wire.Unreachable(kind, reason, "a", to, (), 3.0)


def test_an_unreachable_for_a_request_reaches_its_exchange(linked):
    linked.advertise(1, Entry("far", 9, 1, 50, 1))
    (frame,) = linked.send("far")
    effects = linked.arrive(1, Kind.UNREACHABLE, unreachable(), wire.encode(frame.value))
    assert effects == [Report("unreachable", "far", None, "no_route", (), 3.0)]


def test_an_unreachable_for_a_cancel_reaches_its_exchange(linked):
    linked.advertise(1, Entry("far", 9, 1, 50, 1))
    linked.send("far")
    (frame,) = linked.done(linked.engine.cancel(ID, linked.now))
    effects = linked.arrive(1, Kind.UNREACHABLE, unreachable(kind=Kind.CANCEL), wire.encode(frame.value))
    assert events(effects) == ["unreachable"]


def test_an_unreachable_for_an_earlier_incarnation_of_this_node_is_ignored(linked):
    linked.send("a")
    old = chunk(incarnation=77)
    assert linked.arrive(1, Kind.UNREACHABLE, unreachable(to="a"), wire.encode(old)) == []


def test_an_acknowledgement_that_came_back_because_a_leaf_is_gone_starts_its_grace(linked):
    linked.arrive(1, Kind.CHUNK, chunk(), of="cli@a")
    linked.reply(b"x")
    ack = wire.encode(wire.Ack(2, 1, (wire.AckItem(ID, True, 1, WINDOW),)))
    assert linked.arrive(1, Kind.UNREACHABLE, unreachable("no_route", Kind.ACK, "cli@a"), ack) == []
    assert linked.arrive(1, Kind.UNREACHABLE, unreachable("gone", Kind.ACK, "cli@a"), ack) == []
    effects = []
    for _ in range(8):
        effects += linked.run(1.0)
        linked.keep_alive(1)
    assert Abort(ID, "unreachable") in effects


def test_an_unreachable_for_an_ask_means_that_there_is_no_route(linked):
    linked.send()
    assert not linked.engine.is_lost(ID)
    asked = wire.encode(wire.Ack(2, 1, (wire.AckItem(ID, False, 0, PROBE_LIMIT),)))
    effects = linked.arrive(1, Kind.UNREACHABLE, unreachable("no_route", Kind.ACK, "a"), asked)
    assert events(effects) == ["unreachable"]
    assert linked.engine.is_lost(ID)


def test_a_frame_for_another_node_is_passed_on(subject):
    subject.join(1, "a")
    subject.join(2, "c")
    (frame,) = subject.arrive(1, Kind.CHUNK, chunk(), b"hello", to="c")
    assert frame[:4] == (2, Kind.CHUNK, "c", "a")


def test_exchanges_hear_of_routes_that_come_and_go(linked):
    assert linked.send("far") == []
    effects = linked.advertise(1, Entry("far", 9, 1, 50, 1))
    assert [type(effect) for effect in effects] == [Report, Report, Routed]
    effects = linked.advertise(1, Entry("far", 10, 2, 50, 1))
    assert effects[-1].eof.reason == "node_restarted"


def test_an_error_that_is_too_long_for_a_frame_still_ends_the_request(linked):
    linked.arrive(1, Kind.CHUNK, chunk())
    (frame,) = linked.reply(eof=Eof(1, "remote", "x" * (wire.MAX_TEXT + 1)))
    assert frame.value.eof.error.startswith("xxx")


def test_an_error_that_is_too_long_for_a_frame_still_ends_a_request_to_the_node_itself(subject):
    subject.send("b")
    (piece,) = subject.reply(eof=Eof(1, "remote", "x" * (wire.MAX_TEXT + 1)))
    assert piece.eof.code == 1


@pytest.mark.parametrize("recipient", ["a", "b"], ids=["to another node", "to oneself"])
def test_an_error_with_what_can_not_be_written_as_utf_8_ends_the_call_all_the_same(linked, recipient):
    if recipient == "a":
        linked.arrive(1, Kind.CHUNK, chunk())
    else:
        linked.send("b")
    (effect,) = linked.reply(eof=Eof(1, "remote", "no such file: caf\udce9"))
    eof = effect.eof if recipient == "b" else effect.value.eof
    assert eof.error.startswith("no such file: caf")


# --- full links ---------------------------------------------------------------------------------------------------


def bodies(effects):
    """The bodies of packets that are sent."""
    return [wire.read_packet(effect.frames).body for effect in effects]


def test_what_a_full_link_did_not_take_is_sent_first_when_it_is_ready(linked):
    engine, now = linked.engine, linked.now
    (first,) = engine.send(ID, "a", HEADER, b"1", now)
    assert engine.link_full(1, first.frames, now) == []
    assert engine.send(bytes(16), "a", HEADER, b"2", now) == []
    engine.check()
    effects = engine.link_ready(1, now)
    assert effects[0] == first
    assert bodies(effects) == [b"1", b"2"]
    assert engine.link_ready(1, now) == []
    assert len(engine.send(bytes(15) + b"\x02", "a", HEADER, b"3", now)) == 1


def test_a_link_whose_readiness_shows_only_by_sending_is_tried_with_one_frame(linked):
    engine, now = linked.engine, linked.now
    (first,) = engine.send(ID, "a", HEADER, b"0", now)
    engine.link_full(1, first.frames, now)
    for number in (1, 2):
        assert engine.send(bytes([number]) * 16, "a", HEADER, b"%d" % number, now) == []
    assert engine.link_ready(1, now, most=1) == [first]
    engine.link_full(1, first.frames, now)
    engine.check()
    assert engine.link_ready(1, now, most=1) == [first]
    assert bodies(engine.link_ready(1, now)) == [b"1", b"2"]


def test_a_stream_whose_link_lags_waits_and_goes_on_when_it_is_ready(linked):
    engine, now = linked.engine, linked.now
    (first,) = engine.send(ID, "a", HEADER, b"1", now)
    engine.link_full(1, first.frames, now)
    body = bytes(CHUNK)
    for number in range(2, 22):
        assert engine.send(bytes([number]) * 16, "a", HEADER, body, now) == []
    engine.check()
    assert LAGGING_BYTES <= engine.forwarding.queued_bytes < LAGGING_BYTES + CHUNK + 1000
    sent = []
    while effects := engine.link_ready(1, now):
        engine.check()
        sent += effects
    assert [len(body) for body in bodies(sent)] == [1] + [CHUNK] * 20


def test_a_link_may_still_lag_when_it_is_ready(linked):
    engine, now = linked.engine, linked.now
    (first,) = engine.send(ID, "a", HEADER, b"1", now)
    engine.link_full(1, first.frames, now)
    frames = wire.encode_packet(Kind.CHUNK, "a", "x", b"", bytes(CHUNK))
    for _ in range(DRAIN + 10):
        engine.forwarding.enqueue(1, frames, ("x", "a", True))
    waiting = engine.send(bytes(16), "a", HEADER, b"2", now)
    assert waiting == []
    assert len(engine.link_ready(1, now)) == DRAIN
    assert b"2" not in bodies(engine.link_ready(1, now)[:-1])


def test_small_messages_pass_large_ones_on_a_full_link(linked):
    engine, now = linked.engine, linked.now
    (first, *rest) = engine.send(ID, "a", HEADER, bytes(3 * CHUNK), now)
    for effect in (first, *rest):
        engine.link_full(1, effect.frames, now)
    for number, body in enumerate([bytes(BULK), bytes(BULK), b"small"]):
        engine.send(bytes([number]) * 16, "a", HEADER, body, now)
    sizes = [len(body) for body in bodies(engine.link_ready(1, now))]
    assert sizes == [CHUNK] * 3 + [BULK, 5, BULK]


def test_an_unknown_link_can_be_neither_full_nor_ready(subject):
    dropped = Report("frame_dropped", None, 9, "link_gone")
    assert subject.done(subject.engine.link_full(9, (b"",), 0.0)) == [dropped]
    assert subject.done(subject.engine.link_ready(9, 0.0)) == []


# --- time ---------------------------------------------------------------------------------------------------------


def test_a_node_without_anything_to_do_asks_for_no_tick(subject):
    subject.tick()
    assert subject.engine.next_deadline() is None


def test_a_tick_before_its_time_does_nothing(linked):
    linked.tick()
    due = linked.engine.next_deadline()
    linked.now = due - 0.001
    assert linked.tick() == []
    assert linked.engine.next_deadline() == due


def test_a_link_is_probed_when_it_is_time(linked):
    linked.run(0.0)
    effects = linked.run(1.2)
    assert [(effect.link, effect.kind) for effect in effects] == [(1, Kind.PROBE)]


def test_a_settled_pair_says_nothing_but_probes(linked):
    seen = set()
    for _ in range(60):
        for effect in linked.run(0.5):
            if isinstance(effect, Said):
                seen.add(effect.kind)
        probe = wire.Probe(linked.now, linked.engine.routing.received(1), linked.engine.routing.digest, 0.0)
        linked.hear(1, Kind.PROBE, probe)
    assert seen == {Kind.PROBE}


# --- a node that could not listen -----------------------------------------------------------------------------------


def test_a_node_that_was_kept_from_listening_does_not_take_that_for_silence_of_its_neighbours(linked):
    linked.now += 10.0
    assert linked.done(linked.engine.resume(10.0, linked.now)) == []
    assert "link_lost" not in events(linked.tick())
    linked.now += 10.0
    assert "link_lost" in events(linked.tick())
