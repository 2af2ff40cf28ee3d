import asyncio
import gc
import os
import signal

import pytest

from zmesh.runtime import ControlledProcess
from zmesh.testing import eventually

ECHO = "import socket; s = socket.socket(fileno={}); [s.send(p) for p in iter(lambda: s.recv(4096), b'')]"
STUBBORN = "import signal, time; s = {}; signal.signal(15, signal.SIG_IGN); time.sleep(600)"


@pytest.fixture
async def launched():
    made = []

    async def launch(program, *, close_within=10.0):
        packets, losses = [], []
        process = ControlledProcess("test", packets.append, lambda: losses.append(None), close_within=close_within)
        made.append(process)
        await process.launch(lambda descriptor: ["-I", "-S", "-c", program.format(descriptor)])
        return process, packets, losses

    yield launch
    for process in made:
        await process.close()


async def test_packets_go_both_ways_in_order(launched):
    process, packets, _ = await launched(ECHO)
    process.send_soon(b"one")
    await process.send(b"two")
    await eventually(lambda: packets == [b"one", b"two"])


async def test_more_packets_than_the_socket_holds_all_arrive(launched):
    process, packets, _ = await launched(ECHO)
    sent = [b"%d" % number * 500 for number in range(400)]
    for packet in sent:
        process.send_soon(packet)
    await eventually(lambda: len(packets) == len(sent))
    assert sorted(packets) == sorted(sent)


async def test_its_end_is_reported_once_and_what_is_sent_later_is_dropped(launched):
    process, _, losses = await launched(ECHO)
    os.kill(process.pid, signal.SIGKILL)
    await eventually(lambda: losses)
    assert process.lost
    await process.send(b"x")
    process.send_soon(b"x")
    await process.close()
    assert losses == [None]


async def test_closing_ends_it(launched):
    process, _, losses = await launched(ECHO)
    await process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert losses == [None]


async def test_one_that_does_not_end_is_killed(launched):
    process, _, _ = await launched(STUBBORN, close_within=0.1)
    await process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_it_can_be_closed_without_the_loop_and_then_reports_nothing(launched):
    for program in (ECHO, STUBBORN):
        process, _, losses = await launched(program, close_within=0.1)
        process.close_now()
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
        assert losses == []


async def test_a_start_that_is_cancelled_leaves_no_process():
    losses = []
    process = ControlledProcess("test", print, lambda: losses.append(None), close_within=10.0)
    starting = asyncio.create_task(process.launch(lambda descriptor: ["-I", "-S", "-c", ECHO.format(descriptor)]))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert process.lost
    if process.pid is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


async def test_one_that_can_not_be_started_raises_and_is_closed():
    def refuse(descriptor):
        return ["x" * 4_000_000]  # longer than an argument may be

    process = ControlledProcess("test", print, lambda: None, close_within=10.0)
    with pytest.raises(OSError, match="too long"):
        await process.launch(refuse)
    assert process.lost


def test_one_that_nobody_closes_ends_when_it_is_garbage():
    async def forget():
        process = ControlledProcess("test", print, lambda: None, close_within=10.0)
        await process.launch(lambda descriptor: ["-I", "-S", "-c", ECHO.format(descriptor)])
        return process.pid

    pid = asyncio.run(forget())
    gc.collect()
    assert os.waitpid(pid, 0)[0] == pid
