"""What others may take up of a node: requests that are open, payload that is kept, peers and numbers remembered."""

import pytest

from tests.core.delivery.delivery_harness import REPLIES, Side, answer, deliveries, request, sent
from zmesh.core import wire
from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.delivery import TIMERS_PER_TICK
from zmesh.core.delivery.exchange import SILENCE_TIMEOUT
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.peers import MAX_FORMER_INCARNATIONS, PEER_IDLE_TIMEOUT, PROBE_LIMIT
from zmesh.core.delivery.sender import PROBE_INTERVAL
from zmesh.core.effects import Abort, Pull, Report
from zmesh.core.limits import Limits
from zmesh.core.message import Eof
from zmesh.core.wire import CLOSED, FLAG_FIRST, FLAG_LAST, MAX_ACKS, Ack, AckItem, Cancel, Kind, Packet

NOTHING = {"services": 0, "kept_bytes": 0, "peers": 0, "request_numbers": 0}


def id_of(number):
    return number.to_bytes(16, "big")


def opening(number, **options):
    """The first chunk of one of several requests, whose payload goes on."""
    return request(flags=FLAG_FIRST, id=id_of(number), number=number, **options)


@pytest.fixture
def limited(forwarding):
    """Make the exchanges of node `a` with these limits; there is a route to `b` and to `c`."""
    forwarding.open("c", 2)
    return lambda **limits: Side(forwarding, Limits(**limits))


def refusals(effects):
    """Why requests were answered as overloaded, by what was sent and by what was reported."""
    answers = [(head.message_id, head.eof) for head in sent(effects, Kind.CHUNK)]
    assert all(eof.code == 1 and eof.reason == "overloaded" for _, eof in answers)
    reports = [effect for effect in effects if isinstance(effect, Report)]
    assert [report.event for report in reports] == ["overloaded"] * len(answers)
    for (_, eof), report in zip(answers, reports, strict=True):
        assert f"({report.detail} is " in eof.error
    return [report.detail for report in reports]


# --- requests that are open ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["services", "services_per_neighbour", "services_per_peer"])
def test_one_request_more_than_the_limit_is_answered_as_overloaded(limited, limit):
    side = limited(**{limit: 3})
    for number in range(3):
        assert len(deliveries(side.on_chunk(opening(number), via="n"))) == 1
    effects = side.on_chunk(opening(3), b"x", via="n")
    assert refusals(effects) == [limit]
    assert deliveries(effects) == []
    (head,) = sent(effects)
    assert (head.message_id, head.target, head.sequence) == (id_of(3), 2, 0)
    assert f"node 'a' has no room for another request of 'b' ({limit} is 3)" in head.eof.error
    assert side.counts["requests_received"] == side.delivery.usage()["services"] == 3


@pytest.mark.parametrize("limit", ["services", "services_per_neighbour", "services_per_peer"])
def test_a_copy_of_a_refused_request_is_refused_though_there_is_room_by_then(limited, limit):
    """Its client may have read that it has not begun (seed 983 of the soak with members that lie)."""
    side = limited(**{limit: 1})
    side.on_chunk(opening(0), via="n")
    assert refusals(side.on_chunk(opening(1), via="n")) == [limit]
    side.on_ack(CLOSED, 0, stream=REPLIES._replace(message_id=id_of(0)))
    assert refusals(side.on_chunk(opening(1), via="n")) == [limit]
    assert len(deliveries(side.on_chunk(opening(2), via="n"))) == 1


def test_so_many_refused_requests_are_remembered(limited):
    side = limited(services=1, refused_requests=2)
    side.on_chunk(opening(0))
    for number in range(1, 4):
        assert refusals(side.on_chunk(opening(number))) == ["services"]
    side.on_ack(CLOSED, 0, stream=REPLIES._replace(message_id=id_of(0)))
    assert refusals(side.on_chunk(opening(3))) == ["services"]
    assert len(deliveries(side.on_chunk(opening(1)))) == 1


def test_a_peer_at_its_limit_leaves_room_for_others_behind_the_same_neighbour(limited):
    side = limited(services_per_peer=2)
    for number in range(5):
        side.on_chunk(opening(number), via="n")
    assert len(deliveries(side.on_chunk(opening(9), source="c", via="n"))) == 1


def test_forged_sources_share_the_quota_of_their_neighbour(limited):
    side = limited(services_per_neighbour=3)
    for number in range(10):
        side.on_chunk(opening(number), source=f"forged-{number}", via="n")
    assert side.counts["requests_received"] == 3
    assert len(deliveries(side.on_chunk(opening(99), source="c", via="m"))) == 1


def test_the_neighbour_that_a_request_counts_for_is_known_while_it_is_open(limited):
    side = limited()
    side.on_chunk(opening(0), via="n")
    side.on_chunk(opening(1), source="c")
    neighbours = [side.delivery.neighbour_of(id_of(number)) for number in range(3)]
    assert neighbours == ["n", None, None]


def test_a_refused_request_without_a_route_back_is_not_answered(limited):
    side = limited(services=0)
    assert side.on_chunk(opening(0), source="far") == [Report("overloaded", "far", None, "services")]


def test_a_copy_of_a_request_does_not_count_towards_the_limit(limited):
    side = limited(services=1)
    side.on_chunk(opening(0))
    assert sent(side.on_chunk(opening(0)), Kind.CHUNK) == []


def test_a_late_copy_of_a_request_is_answered_as_closed_and_not_as_overloaded(limited):
    side = limited(services=1)
    side.on_chunk(opening(0))
    side.on_ack(CLOSED, 0, stream=REPLIES._replace(message_id=id_of(0)))
    side.on_chunk(opening(1))
    (ack,) = sent(side.on_chunk(opening(0)))
    assert AckItem(id_of(0), True, CLOSED, 0) in ack.acks


def test_a_node_that_may_run_more_work_may_serve_more_requests():
    assert Limits.serving(1) == Limits()
    assert Limits.serving(1, 1 << 40).spooled_bytes == 2 << 40
    limits = Limits.serving(1_000_000)
    assert limits.services_per_peer > 1_000_000
    assert limits.services_per_peer < limits.services_per_neighbour < limits.services


def test_by_default_a_limit_of_one_leaves_room_for_others():
    limits = Limits()
    for name in ("services", "kept_bytes", "peers", "spooled_payloads", "spooled_bytes"):
        assert getattr(limits, f"{name}_per_neighbour") < getattr(limits, name)
    for name in ("services", "kept_bytes", "spooled_payloads"):
        assert getattr(limits, f"{name}_per_peer") < getattr(limits, f"{name}_per_neighbour")


def test_frames_of_more_new_peers_than_the_rate_of_a_neighbour_allows_are_dropped_until_it_has_room(limited):
    """Their clients retransmit; an answer would cost as much as the request."""
    side = limited(new_peers=(1, 3))
    made_up = [f"made-up-{number}" for number in range(5)]
    taken = [side.on_chunk(opening(number), source=name, via="n") for number, name in enumerate(made_up)]
    assert [len(deliveries(effects)) for effects in taken[:3]] == [1, 1, 1]
    assert taken[3:] == [("new_peers", []), ("new_peers", [])]
    usage = side.delivery.usage()
    assert (usage["services"], usage["peers"]) == (3, 3)
    assert len(deliveries(side.on_chunk(opening(9), source=made_up[0], via="n"))) == 1
    assert len(deliveries(side.on_chunk(opening(10), source="c", via="other"))) == 1
    assert len(deliveries(side.on_chunk(opening(4), source=made_up[4], via="n", now=1.5))) == 1


# --- payload that is kept -----------------------------------------------------------------------------------------

WEIGHT = 1000 + CHUNK_OVERHEAD


@pytest.mark.parametrize("limit", ["kept_bytes", "kept_bytes_per_neighbour", "kept_bytes_per_peer"])
@pytest.mark.parametrize("sequence", [3, 5], ids=["in its turn", "before its turn"])
def test_payload_beyond_the_limit_is_dropped_and_retransmitted(limited, limit, sequence):
    side = limited(**{limit: 3 * WEIGHT})
    for number in range(3):
        side.on_chunk(request(number, FLAG_FIRST if not number else 0), bytes(1000), via="n")
    effects = side.on_chunk(request(sequence, 0), bytes(1000), via="n")
    assert Report("frame_dropped", "b", None, limit) in effects
    assert side.delivery.usage()["kept_bytes"] == 3 * WEIGHT
    side.delivery.release_credit(REPLIES._replace(request=True), WEIGHT, 0.0)
    assert Report("frame_dropped", "b", None, limit) not in side.on_chunk(request(sequence, 0), bytes(1000), via="n")
    assert side.delivery.usage()["kept_bytes"] == 3 * WEIGHT


@pytest.mark.parametrize("limit", ["kept_bytes", "kept_bytes_per_neighbour", "kept_bytes_per_peer"])
def test_early_chunks_are_dropped_for_the_chunk_that_they_wait_for(limited, limit):
    """Else it would keep that out for ever, and the request would never go on."""
    side = limited(**{limit: 3 * WEIGHT})
    side.on_chunk(request(0, FLAG_FIRST), bytes(1000), via="n")
    for sequence in (2, 3):
        side.on_chunk(request(sequence, 0), bytes(1000), via="n")
    assert len(deliveries(side.on_chunk(request(1, 0), bytes(1000), via="n"))) == 2
    assert side.delivery.usage()["kept_bytes"] == 3 * WEIGHT
    side.delivery.release_credit(REPLIES._replace(request=True), WEIGHT, 0.0)
    assert len(deliveries(side.on_chunk(request(3, FLAG_LAST), bytes(1000), via="n"))) == 1


@pytest.mark.parametrize("limit", ["kept_bytes", "kept_bytes_per_neighbour", "kept_bytes_per_peer"])
def test_a_new_request_is_answered_as_overloaded_at_the_limit_of_bytes(limited, limit):
    side = limited(**{limit: 2 * WEIGHT})
    side.on_chunk(opening(0), bytes(1000), via="n")
    side.on_chunk(opening(1), bytes(1000), via="n")
    assert refusals(side.on_chunk(opening(2), bytes(1000), via="n")) == [limit]


def test_a_copy_of_a_chunk_is_not_charged(limited):
    side = limited(kept_bytes=WEIGHT)
    side.on_chunk(opening(0), bytes(1000))
    assert [effect for effect in side.on_chunk(opening(0), bytes(1000)) if isinstance(effect, Report)] == []


def test_a_whole_request_counts_until_its_exchange_is_over(limited):
    side = limited()
    side.on_chunk(request(), bytes(1000))
    assert side.delivery.usage()["kept_bytes"] == WEIGHT
    side.reply(eof=Eof())
    side.on_ack(1, stream=REPLIES)
    assert side.delivery.usage()["kept_bytes"] == 0


def test_early_chunks_of_replies_are_charged_and_those_in_order_are_always_accepted(limited):
    side = limited(kept_bytes_per_peer=2 * WEIGHT)
    side.call()
    for sequence in (1, 2):
        assert deliveries(side.on_chunk(answer(sequence, 0), bytes(1000))) == []
    assert Report("frame_dropped", "b", None, "kept_bytes_per_peer") in side.on_chunk(answer(3, 0), bytes(1000))
    assert len(deliveries(side.on_chunk(answer(0, FLAG_FIRST), bytes(1000)))) == 3
    assert side.delivery.usage()["kept_bytes"] == 0
    assert len(deliveries(side.on_chunk(answer(3, 0), bytes(1000)))) == 1


def test_the_charge_for_early_chunks_of_replies_ends_with_the_request(limited):
    side = limited()
    side.call(timeout=5.0)
    side.on_chunk(answer(1, 0), bytes(1000))
    side.run(0.0, 6.0)
    assert side.delivery.usage()["kept_bytes"] == 0


def test_replies_count_until_they_are_acknowledged(limited):
    side = limited(kept_bytes=4 * WEIGHT)
    side.on_chunk(request())
    side.reply(bytes(4 * WEIGHT))
    assert refusals(side.on_chunk(opening(2), source="c")) == ["kept_bytes"]
    side.on_ack(1, stream=REPLIES)
    assert side.delivery.usage()["kept_bytes"] == CHUNK_OVERHEAD
    assert len(deliveries(side.on_chunk(opening(3), source="c"))) == 1


@pytest.mark.parametrize("limit", ["kept_bytes", "kept_bytes_per_neighbour", "kept_bytes_per_peer"])
def test_streamed_replies_take_one_chunk_at_a_time_when_the_quota_is_nearly_full(limited, limit):
    side = limited(**{limit: 4 * CHUNK})
    side.on_chunk(request(), via="n")
    side.reply(b"", last=False)
    side.feed(bytes(3 * CHUNK), stream=REPLIES)
    assert side.delivery.room(REPLIES) == 0
    assert Pull(REPLIES) in side.on_ack(4, stream=REPLIES)
    assert side.delivery.room(REPLIES) > CHUNK
    side.on_chunk(opening(2), bytes(3 * CHUNK), via="n")
    assert side.delivery.room(REPLIES) == CHUNK
    side.feed(bytes(CHUNK), stream=REPLIES)
    assert side.delivery.room(REPLIES) == 0
    assert Pull(REPLIES) in side.on_ack(5, stream=REPLIES)


# --- peers that are remembered ------------------------------------------------------------------------------------


def frame(kind, head, source, side, via):
    packet = Packet(kind, 255, "a", source, "a", wire.encode(head), b"", 0, 0)
    return side.delivery.on_frame(packet, 0.0, via)


@pytest.mark.parametrize(("limit", "via"), [("peers", "m"), ("peers_per_neighbour", "n")])
def test_one_peer_more_than_the_limit_is_not_entered(limited, limit, via):
    side = limited(**{limit: 3})
    for number in range(3):
        assert frame(Kind.ACK, Ack(5, 1, ()), f"forged-{number}", side, "n") is None
    assert frame(Kind.ACK, Ack(5, 1, ()), "c", side, via) == limit
    assert frame(Kind.CANCEL, Cancel(id_of(1), True, 0, 0, 5, 1), "c", side, via) == limit
    assert frame(Kind.CHUNK, answer(), "c", side, via) == limit
    assert side.forwarding.take() == []
    assert frame(Kind.CHUNK, opening(0), "c", side, via) is None
    assert refusals(side.forwarding.take()) == [limit]
    assert side.delivery.usage() == {**NOTHING, "peers": 3}


def test_this_node_itself_and_its_servers_are_always_entered(limited):
    side = limited(peers=1, peers_per_neighbour=1)
    frame(Kind.ACK, Ack(5, 1, ()), "forged", side, "n")
    side.call(to="c")
    assert frame(Kind.ACK, Ack(1, 1, ()), "a", side, None) is None
    assert side.delivery.usage()["peers"] == 3


def test_forged_peers_are_forgotten_and_others_may_come(limited):
    side = limited(peers_per_neighbour=3)
    for number in range(5):
        frame(Kind.ACK, Ack(5, 1, ()), f"forged-{number}", side, "n")
    side.run(0.0, PEER_IDLE_TIMEOUT)
    assert side.delivery.usage() == NOTHING
    assert frame(Kind.ACK, Ack(5, 1, ()), "c", side, "n") is None


def test_pending_acks_are_sent_before_they_exceed_a_frame(limited):
    side = limited()
    item = AckItem(id_of(1), True, 1, 1)
    asked = tuple(item._replace(message_id=id_of(number)) for number in range(MAX_ACKS))
    side.delivery.on_ack("b", Ack(2, 1, asked), 0.0)
    (ack,) = sent(side.done())
    assert len(ack.acks) == MAX_ACKS
    assert side.counts["pending_acks"] == 0


# --- numbers that are remembered ----------------------------------------------------------------------------------


def cancel(side, number, *, incarnation=2, source="b"):
    side.on_cancel(id=id_of(number), number=number, incarnation=incarnation, source=source)


def test_the_largest_replay_windows_are_compacted_at_the_limit(limited):
    side = limited(request_numbers=40)
    for number in (10, 12, 14):
        cancel(side, number, source="c")
    for number in range(1, 200, 2):
        cancel(side, number)
        assert side.delivery.usage()["request_numbers"] <= 40
    (over,) = sent(side.on_chunk(request(number=11, flags=FLAG_FIRST)), Kind.ACK)
    assert over.acks[0].next == CLOSED
    assert len(deliveries(side.on_chunk(opening(11), source="c"))) == 1
    (over,) = sent(side.on_chunk(opening(12), source="c"), Kind.ACK)
    assert AckItem(id_of(12), True, CLOSED, 0) in over.acks


def test_the_numbers_of_former_incarnations_count_as_well(limited):
    side = limited(request_numbers=100)
    side.forwarding.open("x", 0)
    for incarnation in range(1, 20):
        for number in range(1, 40, 2):
            cancel(side, number, incarnation=incarnation, source="x")
            assert side.delivery.usage()["request_numbers"] <= 100
    last = 19 - MAX_FORMER_INCARNATIONS
    (over,) = sent(side.on_chunk(opening(39, incarnation=last), source="x"), Kind.ACK)
    assert over.acks[0].next == CLOSED
    side.run(0.0, 2 * PEER_IDLE_TIMEOUT)
    assert side.delivery.usage() == NOTHING


# --- clients that stay silent -------------------------------------------------------------------------------------


def test_a_request_whose_client_is_silent_ends(limited):
    side = limited()
    side.on_chunk(request(flags=FLAG_FIRST), bytes(1000))
    effects = side.run(0.0, SILENCE_TIMEOUT + PROBE_INTERVAL)
    ended = [now for now, effect in effects if effect == Abort(REPLIES.message_id, "unreachable")]
    assert len(ended) == 1
    assert SILENCE_TIMEOUT <= ended[0] <= SILENCE_TIMEOUT + PROBE_INTERVAL
    asked = [item for _, effect in effects for head in sent([effect], Kind.ACK) for item in head.acks]
    assert sum(item.limit == PROBE_LIMIT for item in asked) >= 2
    side.run(ended[0], ended[0] + PEER_IDLE_TIMEOUT)
    assert side.delivery.usage() == NOTHING


def test_a_client_that_answers_probes_may_take_its_time_with_the_payload(limited):
    side = limited()
    side.on_chunk(request(flags=FLAG_FIRST), bytes(1000))
    now = 0.0
    for _ in range(20):
        effects = side.run(now, now + PROBE_INTERVAL)
        assert Abort(REPLIES.message_id, "unreachable") not in [effect for _, effect in effects]
        now += PROBE_INTERVAL
        side.on_ack(0, WINDOW, stream=REPLIES, now=now)
    assert len(deliveries(side.on_chunk(request(1, 0), now=now))) == 1


def test_a_client_that_never_acknowledges_replies_is_given_up_as_well(limited):
    side = limited()
    side.on_chunk(request())
    side.reply(b"never heard", eof=Eof())
    side.run(0.0, SILENCE_TIMEOUT + PROBE_INTERVAL)
    assert side.counts["requests_received"] == 0


def test_a_client_that_was_unreachable_has_the_full_silence_timeout_again(limited):
    side = limited()
    side.on_chunk(request(flags=FLAG_FIRST))
    side.run(0.0, 29.0)
    side.on_route_lost(now=29.0)
    side.run(29.0, 58.0)
    side.on_route(now=58.0)
    side.run(58.0, 58.0 + SILENCE_TIMEOUT - 1.0)
    assert side.counts["requests_received"] == 1
    side.run(58.0 + SILENCE_TIMEOUT - 1.0, 58.0 + SILENCE_TIMEOUT + PROBE_INTERVAL)
    assert side.counts["requests_received"] == 0


def test_clients_are_probed_about_all_of_their_requests_together(limited):
    side = limited()
    count = MAX_ACKS + 10
    for number in range(count):
        side.on_chunk(opening(number))
    side.run(0.0, 1.0)
    frames = [head.acks for _, effect in side.run(1.0, PROBE_INTERVAL) for head in sent([effect], Kind.ACK)]
    assert [len(acks) for acks in frames] == [MAX_ACKS, 10]
    assert {item.limit for acks in frames for item in acks} == {PROBE_LIMIT}


def test_many_requests_that_end_at_once_end_in_several_ticks(limited, forwarding):
    side = limited()
    for number in range(2 * TIMERS_PER_TICK + 1):
        side.on_chunk(opening(number))
    side.run(0.0, 1.0)
    side.on_route_lost(now=1.0)
    left = []
    while side.counts["requests_received"]:
        side.delivery.tick(31.0)
        side.done()
        left.append(side.counts["requests_received"])
    assert left == [TIMERS_PER_TICK + 1, 1, 0]


# --- counts that are wrong ----------------------------------------------------------------------------------------


def spoil_requests(side):
    side.delivery._peers._quotas.node.requests += 1


def spoil_neighbour(side):
    side.delivery._peers._quotas._neighbours["n"].peers += 1


def spoil_numbers(side):
    side.delivery._peers._remembered += 1


def spoil_kept(side):
    side.delivery.server.get(id_of(0)).charged_bytes += 1


def spoil_payload(side):
    side.delivery.server.get(id_of(0)).outbound.unacked_bytes += 1


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (spoil_requests, "requests"),
        (spoil_neighbour, "'n'"),
        (spoil_numbers, "remembered"),
        (spoil_kept, "charged"),
        (spoil_payload, "payload"),
    ],
)
def test_a_wrong_count_is_found(limited, spoil, found):
    side = limited()
    side.on_chunk(opening(0), via="n")
    spoil(side)
    with pytest.raises(AssertionError, match=found):
        side.delivery.check()
