"""What holds a request back reaches its client: a probe before its timeout is over, and a server whose work waits."""

import pytest

from tests.core.delivery.delivery_harness import (
    ID,
    REPLIES,
    REQUEST,
    WINDOW,
    Side,
    acknowledged,
    answer,
    deliveries,
    request,
    sent,
)
from zmesh.core import wire
from zmesh.core.delivery.client_exchange import LAST_PROBE_BEFORE
from zmesh.core.delivery.peers import PROBE_LIMIT
from zmesh.core.effects import ReportDelay
from zmesh.core.limits import Limits, Rate
from zmesh.core.wire import CLOSED, FLAG_FIRST, FLAG_LAST, Kind

PROBE = acknowledged(0, PROBE_LIMIT)
TEXT = "node 'b': t:f has not begun"
HANDLE = object()


# --- the client ---------------------------------------------------------------------------------------------------


def probes(effects):
    """The times of the probes among effects with their times."""
    return [now for now, effect in effects if sent([effect], Kind.ACK) == [PROBE]]


@pytest.mark.parametrize(("timeout", "at"), [(8.0, 8.0 - LAST_PROBE_BEFORE), (2.0, 1.5)], ids=["long", "short"])
def test_a_request_that_has_arrived_is_probed_once_shortly_before_its_timeout_is_over(side, timeout, at):
    side.call(timeout=timeout)
    side.on_ack(1)
    effects = side.run(0.0, timeout)
    assert probes(effects) == [at]
    (end,) = deliveries([effect for _, effect in effects])
    assert end.eof.error == f"no final reply from 'b' within {timeout:g} s; the request had reached 'b'"


def test_a_request_that_is_answered_before_costs_no_probe(side):
    side.call(timeout=8.0)
    side.on_chunk(answer())
    assert probes(side.run(0.0, 8.0)) == []


@pytest.mark.parametrize("state", ["not acknowledged", "cancelled", "without a route"])
def test_a_request_that_a_probe_would_not_help_is_not_probed(side, state):
    side.call(timeout=4.0)
    if state != "not acknowledged":
        side.on_ack(1)
    if state == "cancelled":
        side.cancel()
    elif state == "without a route":
        side.on_route_lost()
    assert probes(side.run(0.0, 4.0)) == []
    assert side.counts["requests_made"] == 0


def test_a_request_without_time_ends_at_once(side):
    side.call(timeout=0.0)
    (end,) = deliveries(side.tick(0.0))
    assert end.eof.reason == "timed_out"


@pytest.mark.parametrize("reason", ["queued", "blocked", "of_a_later_version"])
def test_the_answer_to_a_probe_is_in_the_error_and_changes_no_route(side, reason):
    side.call(timeout=8.0)
    side.on_ack(1)
    side.run(0.0, 7.0)
    note = wire.encode(wire.Unreachable(Kind.ACK, reason, "b", "b", (), 0.0, TEXT))
    head = wire.encode_ack(1, 2, [(ID, True, 0, PROBE_LIMIT)])
    side.delivery.on_frame(wire.Packet(Kind.UNREACHABLE, 9, "a", "b", "a", note, head, 0, 0), 7.1)
    assert not side.delivery.is_lost(ID)
    (end,) = deliveries(side.tick(8.0))
    assert end.eof.reason == "timed_out"
    assert end.eof.error == f"no final reply from 'b' within 8 s; the request had reached 'b'; {TEXT}"


def test_a_chunk_that_is_said_to_wait_for_a_reason_of_a_later_version_is_not_lost(side):
    side.call(timeout=8.0)
    note = wire.Unreachable(Kind.CHUNK, "of_a_later_version", "m", "b", (), 0.0)
    side.delivery.on_returned(REQUEST, 0, note, 0.0)
    assert side.done() == []
    assert not side.delivery.is_lost(ID)
    assert side.delivery.obstacle(ID, 1.0).endswith("; node 'm': of_a_later_version")


def test_work_that_has_begun_before_the_next_probe_is_not_said_to_wait(side):
    side.call(timeout=8.0)
    side.on_unreachable("queued", text=TEXT)
    side.on_ack(1)
    (end,) = deliveries([effect for _, effect in side.run(0.0, 8.0)])
    assert TEXT not in end.eof.error


def test_work_that_replies_is_not_said_to_wait(side):
    side.call(timeout=8.0)
    side.on_ack(1)
    side.on_unreachable("queued", text=TEXT)
    side.on_chunk(answer(flags=FLAG_FIRST | FLAG_LAST), b"first")
    (end,) = [each for each in deliveries([effect for _, effect in side.run(0.0, 8.0)]) if each.eof]
    assert TEXT not in end.eof.error


@pytest.mark.parametrize("sequence", [0, 1])
def test_work_that_has_replied_is_not_said_to_wait_by_what_was_sent_before_and_comes_later(side, sequence):
    side.call(timeout=8.0)
    side.on_ack(1)
    side.on_chunk(answer(sequence=sequence, flags=FLAG_FIRST | FLAG_LAST), b"reply")
    side.on_unreachable("queued", text=TEXT)
    (end,) = [each for each in deliveries([effect for _, effect in side.run(0.0, 8.0)]) if each.eof]
    assert TEXT not in end.eof.error
    assert side.delivery.obstacle(ID, 7.0) == ""


def test_a_loop_that_is_blocked_after_the_first_reply_is_named(side):
    side.call(timeout=8.0)
    side.on_ack(1)
    side.on_chunk(answer(flags=FLAG_FIRST | FLAG_LAST), b"first")
    side.on_unreachable("blocked", text=TEXT)
    (end,) = [each for each in deliveries([effect for _, effect in side.run(0.0, 8.0)]) if each.eof]
    assert end.eof.error.endswith(f"; {TEXT}")


def test_the_obstacle_of_a_request_is_what_its_error_would_say(side):
    side.call()
    assert side.delivery.obstacle(ID, 1.0) == "nothing was heard of the request since it left 'a'"
    side.on_ack(1)
    assert side.delivery.obstacle(ID, 1.0) == ""
    side.on_unreachable("queued", text=TEXT)
    assert side.delivery.obstacle(ID, 1.0) == TEXT
    side.on_route_lost(now=2.0)
    assert side.delivery.obstacle(ID, 4.0).startswith("no route to 'b' after 4 s, none for the last 2 s; the request")
    side.on_route()
    side.on_chunk(answer())
    assert side.delivery.obstacle(ID, 5.0) == ""


# --- the server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def serving(side):
    """A request was received, and the shell has attached its handle."""
    side.on_chunk(request())
    side.delivery.attach(ID, HANDLE)
    return side


def probe(side, **options):
    return side.on_ack(0, PROBE_LIMIT, stream=REPLIES, **options)


def test_a_probe_for_a_request_without_a_reply_is_passed_to_the_shell_after_its_ack(serving):
    effects = probe(serving)
    assert effects[-1] == ReportDelay(ID, HANDLE)
    assert sent(effects, Kind.ACK) == [acknowledged(1, WINDOW, REQUEST)]


@pytest.mark.parametrize("why", ["no probe", "replied", "no handle"])
def test_the_shell_is_asked_for_no_delay_where_there_can_be_none(side, serving, why):
    if why == "no probe":
        assert ReportDelay(ID, HANDLE) not in serving.on_ack(0, stream=REPLIES)
        return
    if why == "replied":
        serving.reply(b"x")
    else:
        serving.delivery.attach(ID, None)
    assert not [effect for effect in probe(serving) if isinstance(effect, ReportDelay)]


def test_so_many_delays_are_reported_and_no_more(forwarding):
    side = Side(forwarding, Limits(reported_delays=Rate(1, 3)))
    side.on_chunk(request())
    side.delivery.attach(ID, HANDLE)
    asked = [ReportDelay(ID, HANDLE) in probe(side, now=1.0) for _ in range(5)]
    assert asked == [True] * 3 + [False] * 2
    assert ReportDelay(ID, HANDLE) in probe(side, now=3.0)


def test_a_delay_goes_to_the_client_as_an_unreachable_about_its_probe(serving):
    serving.delivery.server.report_delay(ID, TEXT)
    (note,) = sent(serving.done(), Kind.UNREACHABLE)
    assert note == wire.Unreachable(Kind.ACK, "queued", "a", "a", (), 0.0, TEXT)


@pytest.mark.parametrize("why", ["over", "no route"])
def test_a_delay_of_a_request_whose_client_is_gone_is_dropped(serving, forwarding, why):
    if why == "over":
        serving.on_ack(CLOSED, 0, stream=REPLIES)
    else:
        forwarding.shut("b")
    serving.delivery.server.report_delay(ID, TEXT)
    assert sent(serving.done(), Kind.UNREACHABLE) == []
