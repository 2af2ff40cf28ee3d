"""Acks that go with the first chunk of the next request to the same node."""

import pytest

from tests.core.delivery.delivery_harness import ID, OTHER, REPLIES, acknowledged, answer, request, sent
from zmesh.core import wire
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.delivery.peers import ACK_DELAY, FEW_EXCHANGES, PIGGYBACK_AFTER
from zmesh.core.message import Eof
from zmesh.core.wire import ACKS, FLAG_EXTENDED, FLAG_FIRST, FLAG_LAST, AckItem, Kind


def test_the_next_request_acknowledges_the_replies_of_the_last_one(side):
    side.call()
    side.on_chunk(answer())
    (chunk,) = sent(side.call(id=OTHER, now=PIGGYBACK_AFTER))
    assert wire.decode_acks(chunk.extensions[ACKS]) == [AckItem(*REPLIES, 1, WINDOW)]
    assert sent(side.tick(ACK_DELAY), Kind.ACK) == []
    assert side.counts["pending_acks"] == 0


def test_acks_of_quick_calls_go_together_with_a_later_one(side):
    ids = [bytes([number]) * 16 for number in range(3)]
    for number, id in enumerate(ids):
        (chunk,) = sent(side.call(id=id, now=number * PIGGYBACK_AFTER / 3))
        side.on_chunk(answer(id=id), now=number * PIGGYBACK_AFTER / 3)
        assert not chunk.extensions
    (chunk,) = sent(side.call(id=OTHER, now=PIGGYBACK_AFTER))
    acks = wire.decode_acks(chunk.extensions[ACKS])
    assert acks == [AckItem(id, False, 1, WINDOW) for id in ids]


def test_acks_that_have_gone_with_a_request_take_the_timer_of_the_next_ones_with_them(side):
    side.call()
    side.on_chunk(answer())
    side.call(id=OTHER, now=PIGGYBACK_AFTER)
    side.on_chunk(answer(id=OTHER), now=PIGGYBACK_AFTER)
    assert sent(side.tick(ACK_DELAY), Kind.ACK) == []
    (ack,) = sent(side.tick(PIGGYBACK_AFTER + ACK_DELAY), Kind.ACK)
    assert [item.message_id for item in ack.acks] == [OTHER]


def test_a_request_that_comes_too_late_finds_nothing_to_acknowledge(side):
    side.call()
    side.on_chunk(answer())
    assert sent(side.tick(ACK_DELAY), Kind.ACK) == [acknowledged(1)]
    (chunk,) = sent(side.call(id=OTHER, now=ACK_DELAY))
    assert not chunk.extensions


def test_a_node_with_many_requests_under_way_sends_their_acks_together(side):
    for number in range(FEW_EXCHANGES + 1):
        side.call(id=bytes([number]) * 16)
    side.on_chunk(answer(id=bytes(16)))
    (chunk,) = sent(side.call(id=ID))
    assert not chunk.extensions
    (ack,) = sent(side.tick(ACK_DELAY), Kind.ACK)
    assert ack.acks == (AckItem(bytes(16), False, 1, WINDOW),)


def test_the_server_takes_them_as_those_of_an_ack(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    assert side.counts["requests_received"] == 1
    acks = wire.encode_acks([AckItem(*REPLIES, 1, WINDOW)])
    following = request(id=OTHER, number=1, flags=FLAG_FIRST | FLAG_LAST | FLAG_EXTENDED)
    side.on_chunk(following._replace(extensions={ACKS: acks}))
    assert side.delivery.server.get(ID) is None
    assert side.delivery.server.get(OTHER) is not None


def test_what_is_no_list_of_acks_refuses_the_request(side):
    with pytest.raises(wire.WireError, match="acknowledgements in 1 bytes"):
        side.on_chunk(request()._replace(extensions={ACKS: b"x"}))
    assert side.counts["requests_received"] == 0
