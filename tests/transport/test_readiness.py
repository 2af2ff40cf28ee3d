"""ZMQ_EVENTS as libzmq itself says it, and as pyzmq does."""

import pytest
import zmq

from zmesh.transport.readiness import events_reader


@pytest.fixture
def pair():
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.bind("inproc://pair")
        other.connect("inproc://pair")
        yield one, other


@pytest.mark.parametrize("options", [{}, {"getsockopt": None}])
def test_a_socket_has_room_and_has_input_once_something_was_sent(pair, options):
    one, other = pair
    read = events_reader(one, **options)
    assert read() == one.get(zmq.EVENTS) == zmq.POLLOUT
    other.send(b"something")
    assert read() == one.get(zmq.EVENTS) == zmq.POLLOUT | zmq.POLLIN
    one.recv()
    assert read() == zmq.POLLOUT


def test_a_call_that_fails_raises_what_libzmq_says(pair):
    with pytest.raises(zmq.ZMQError):
        events_reader(pair[0], lambda *arguments: -1)()
