"""The frames on the socket between a node and the process of a directive."""

import signal

import pytest

from zmesh.errors import MeshError
from zmesh.serving.isolation.ipc import BlockingChannel, Channel, Frame, frame


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


def test_a_channel_interrupted_in_a_frame_raises_from_then_on():
    import socket

    ours, theirs = socket.socketpair()

    def interrupt(number, at):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ours, theirs:
            channel = BlockingChannel(ours)
            theirs.send(frame(Frame.CHUNK, b"whole") + frame(Frame.CHUNK, b"torn")[:-1])
            assert channel.receive() == (Frame.CHUNK, b"whole")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptedError):
                channel.receive()
            theirs.send(b"n")
            for use in (channel.receive, lambda: channel.send(Frame.DONE)):
                with pytest.raises(BrokenPipeError, match="interrupted"):
                    use()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
