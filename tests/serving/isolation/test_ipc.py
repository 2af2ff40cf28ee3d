"""The frames on the socket between a node and the process of a directive."""

import signal

import pytest

from zmesh.errors import MeshError
from zmesh.serving.isolation.ipc import Channel, Frame, Line, frame


async def test_frames_arrive_whole_whatever_pieces_they_come_in():
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours, 10)
        for byte in frame(Frame.REPLY, b"0123456789") + frame(Frame.DONE):
            theirs.send(bytes([byte]))
        assert await channel.receive() == (Frame.REPLY, b"0123456789")
        assert await channel.receive() == (Frame.DONE, b"")
        theirs.send(frame(Frame.REPLY, b"01234567890")[:5])
        with pytest.raises(MeshError, match="11 bytes, where 10"):
            await channel.receive()


def test_a_line_that_a_signal_has_torn_carries_nothing_more():
    import socket

    ours, theirs = socket.socketpair()

    def interrupt(number, at):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ours, theirs:
            line = Line(ours)
            theirs.send(frame(Frame.PIECE, b"whole") + frame(Frame.PIECE, b"torn")[:-1])
            assert line.receive() == (Frame.PIECE, b"whole")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptedError):
                line.receive()
            theirs.send(b"n")
            for use in (line.receive, lambda: line.send(Frame.DONE)):
                with pytest.raises(BrokenPipeError, match="torn"):
                    use()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
