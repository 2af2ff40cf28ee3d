"""Both ends of a stream, and a network between them that does what it likes."""

import random

from hypothesis import example, given
from hypothesis import strategies as st

from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.flow_control import ACK_EVERY, CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.inbound import InboundStream
from zmesh.core.delivery.outbound import OutboundStream
from zmesh.core.message import RequestHeader
from zmesh.core.rtt import RttEstimator
from zmesh.core.wire import FLAG_FIRST, FLAG_LAST, Chunk

HEADER = RequestHeader("echo:echo", 1.0)


def as_chunk(chunk):
    """A chunk as it is read at the other end."""
    return Chunk(bytes(16), True, sequence=chunk.sequence, flags=chunk.flags, request_number=0,
                 lowest_outstanding=0, incarnation=1, target=1, header=chunk.header, eof=chunk.eof)  # fmt: skip


# --- both ends, and a network that does what it likes --------------------------------------------------------------


class Path:
    """Two ends of a stream; frames between them are lost, doubled, reordered and delayed as a seed has it."""

    def __init__(self, seed, loss, reader):
        self.random = random.Random(seed)
        self.loss = loss
        self.reader = reader
        self.outbound, self.inbound = OutboundStream(), InboundStream()
        self.rtt = RttEstimator()
        self.forth, self.back = [], []
        self.now = 0.0
        self.received = bytearray()
        self.flags = []
        self.unread = []
        self.accepted_weight = 0
        self.promised = WINDOW
        self.lossy = True

    def run(self, limit):
        """Let both ends work until all is acknowledged."""
        for _ in range(limit):
            self.now += 0.05
            if self.now > 60:
                self.lossy = False
            while (chunk := self.outbound.next_chunk(self.now)) is not None:
                assert self.outbound.sent_credit <= self.promised
                self.carry(self.forth, (as_chunk(chunk), bytes(chunk.body)))
            due = self.outbound.retransmit_at(self.rtt.timeout(self.outbound.retries))
            if not self.outbound.in_flight and self.outbound.unsent:
                self.acknowledge()  # the sender asks how things stand
            if due is not None and due <= self.now:
                self.outbound.retries += 1
                self.outbound.on_timeout(self.now)
            if self.lossy and self.random.random() < 0.02:
                self.outbound.on_path_change()
            if self.lossy and self.outbound.unacked and self.random.random() < 0.05:
                self.outbound.on_returned(self.random.choice(list(self.outbound.unacked)), self.now, refused=True)
            self.outbound.check()
            self.deliver(self.forth, self.on_chunk)
            self.read()
            if self.random.random() < 0.2:
                self.acknowledge()
            self.deliver(self.back, self.on_ack)
            if self.outbound.is_finished:
                return True
        return False

    def carry(self, direction, item):
        if self.lossy and self.random.random() < self.loss:
            return
        direction.append(item)
        if self.lossy and self.random.random() < 0.1:
            direction.append(item)

    def deliver(self, direction, receive):
        if self.lossy:
            self.random.shuffle(direction)
        for _ in range(self.random.randint(0, len(direction))):
            receive(*direction.pop(0))

    def on_chunk(self, chunk, body):
        ready = self.inbound.accept(chunk, body, 1)
        for chunk, content, _ in ready or ():
            self.received += content
            self.flags.append(chunk.flags)
            self.unread.append(len(content) + CHUNK_OVERHEAD)
            self.accepted_weight += len(content) + CHUNK_OVERHEAD
        assert sum(self.unread) <= WINDOW
        # An ack that is not urgent is sent together with later ones.
        if ready is None or self.inbound.unacked_credit >= ACK_EVERY or self.random.random() < 0.5:
            self.acknowledge()

    def read(self):
        for _ in range(min(self.reader, len(self.unread))):
            if self.inbound.release(self.unread.pop(0)):
                self.acknowledge()

    def acknowledge(self):
        following, limit = self.inbound.acknowledge()
        assert following == len(self.flags)
        assert limit <= self.accepted_weight - sum(self.unread) + WINDOW
        self.promised = max(self.promised, limit)
        self.carry(self.back, (following, limit))

    def on_ack(self, following, limit):
        sample = self.outbound.acknowledge(following, limit, self.now)
        if sample is not None and sample >= 0:
            self.rtt.update(sample)


@given(
    st.integers(0, 1 << 32),
    st.lists(st.sampled_from([0, 1, 100, 3000, CHUNK, CHUNK + 1, 300_000]), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    st.sampled_from([1, 3, 50]),
)
@example(1, [300_000] * 8, 0.3, 1)
def test_what_is_received_is_what_was_sent_whatever_the_network_does(seed, sizes, loss, reader):
    path = Path(seed, loss, reader)
    sent = bytearray()
    for index, size in enumerate(sizes):
        body = path.random.randbytes(size)
        last = index == len(sizes) - 1
        path.outbound.push(HEADER if index == 0 else None, body, last=last, eof=None, complete=last)
        sent += body
    assert path.run(20_000), "the transfer never ended"
    assert path.received == sent
    assert path.flags[0] & FLAG_FIRST
    assert path.flags[-1] & FLAG_LAST
    assert not any(flag & FLAG_LAST for flag in path.flags[:-1])
    assert path.inbound.buffered == {}
