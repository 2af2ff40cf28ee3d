"""The node's end of the processes: what passes between, how they end, and what is made of that."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.payloads.kinds import KINDS, async_generator, coroutine, every_kind, function, generator
from tests.serving.isolation.descendants import descendants, is_gone
from zmesh.payloads.streamed import StreamedPayload
from zmesh.serving.isolation.ipc import MAX_FRAME, Frame, frame

MIB = 1024 * 1024


async def settled(value):
    """The value once it stands still, as it does when all that lies between two ends is full."""
    before = None
    while value() != before:
        before = value()
        for _ in range(20):
            await asyncio.sleep(0.005)
    return before


# --- replies, and payloads while they arrive ----------------------------------------------------------------------


@every_kind
async def test_a_reply_of_any_size_comes_back_in_pieces(bench, kind, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1000) * 5000)

    def as_function(work):
        return big

    async def as_coroutine(work):
        return big.read_bytes()

    def as_generator(work):
        yield big
        yield iter([big.read_bytes(), b"!"])
        yield b"x" * 65536
        yield b"x" * 65537

    async def as_async_generator(work):
        for value in as_generator(work):
            yield value

    kinds = dict(zip(KINDS, [as_coroutine, as_function, as_async_generator, as_generator], strict=True))
    bench.isolate("test:it", kinds[kind])
    content = big.read_bytes()
    several = [content, content + b"!", b"x" * 65536, b"x" * 65537]
    exchange = await bench.call("test:it")
    assert exchange.replies == (several if "generator" in kind.__name__ else [content])


@pytest.mark.parametrize("ending", ["raise", "crash"])
async def test_a_reply_that_breaks_off_in_the_middle_is_an_error(bench, ending):
    def chunks():
        yield b"x" * 100_000
        if ending == "raise":
            raise ValueError("no more")
        os._exit(9)

    bench.isolate("test:it", lambda work: chunks())
    exchange = await bench.call("test:it")
    ended = {"raise": "ValueError: no more", "crash": "the process of test:it ended with exit status 9"}
    assert (exchange.replies, exchange.error) == ([], ended[ending])


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_streaming_payload_is_read_while_it_arrives_no_faster_than_the_process_reads(bench, kind, eventually):
    def plain(work):
        yield "begun"
        yield from work.payload

    async def asynchronous(work):
        yield "begun"
        async for chunk in work.payload:
            yield chunk

    bench.isolate("test:it", plain if kind == "plain" else asynchronous, stream=True)
    consumed = []
    payload = StreamedPayload(consumed.append)
    message_id = bench.start("test:it", payload)
    exchange = bench.sink[message_id]
    await eventually(lambda: exchange.replies == [b"begun"])
    bench.sink.room.clear()
    for _ in range(100):
        payload.feed(bytes(50_000))
    payload.finish()
    await eventually(lambda: consumed)
    assert await settled(lambda: sum(consumed)) < 2 * MIB
    bench.sink.room.set()
    assert (await bench.end(message_id)).replies == [b"begun", *[bytes(50_000)] * 100]
    assert sum(consumed) == 5_000_000


async def test_a_client_that_takes_no_replies_stops_the_process(bench, eventually, tmp_path):
    progress = tmp_path / "progress"

    def endless(work):
        with progress.open("a") as file:
            while True:
                file.write("x")
                file.flush()
                yield bytes(60_000)

    bench.isolate("test:it", endless)
    bench.sink.room.clear()
    message_id = bench.start("test:it")
    await eventually(progress.exists)
    assert 60_000 * await settled(lambda: progress.stat().st_size) < MIB
    bench.runner.cancel(message_id)
    assert (await bench.end(message_id)).reason == "cancelled"


async def test_many_calls_at_once_are_all_answered(benches):
    bench = benches(max_processes=3)
    bench.isolate("test:it", function)
    ids = [bench.start("test:it", str(number).encode()) for number in range(100, 150)]
    assert [(await bench.end(message_id)).replies for message_id in ids] == [
        [str(number).encode()[::-1]] for number in range(100, 150)
    ]
    await bench.runner.close()


async def test_neither_a_start_nor_a_reply_holds_up_the_loop(bench):
    bench.isolate("test:it", lambda work: bytes(20 * MIB))
    ticks = 0
    ticking = True

    async def tick():
        nonlocal ticks
        while ticking:
            await asyncio.sleep(0.001)
            ticks += 1

    ticker = asyncio.create_task(tick())
    await bench.call("test:it")
    assert ticks >= 10  # while an interpreter has started, which takes a hundred times as long as a tick
    for _ in range(3):
        before = ticks
        await bench.call("test:it")
        assert ticks > before
    ticking = False
    await ticker


# --- crashes ------------------------------------------------------------------------------------------------------


def by_signal(work):
    signal.raise_signal(work.config["signal"])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (signal.SIGSEGV, "was killed by SIGSEGV"),
        (signal.SIGABRT, "was killed by SIGABRT"),
        (signal.SIGKILL, "was killed by SIGKILL, as the system does when memory runs out"),
        (signal.SIGTERM, "was killed by SIGTERM"),
        (signal.SIGRTMIN + 3, f"was killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
async def test_a_process_that_a_signal_kills_is_an_error_that_names_it_and_the_node_lives_on(bench, number, text):
    bench.isolate("test:it", by_signal)
    bench.isolate("test:fine", function)
    exchange = await bench.call("test:it", config={"signal": int(number)})
    assert (exchange.reason, exchange.error) == ("remote", f"the process of test:it {text}")
    assert (await bench.call("test:fine", b"ab")).replies == [b"ba"]


@pytest.mark.parametrize("status", [0, 3])
async def test_a_process_that_leaves_before_its_function_has_ended_is_an_error(bench, status):
    async def leave(work):
        yield b"one"
        os._exit(status)

    bench.isolate("test:it", leave)
    exchange = await bench.call("test:it")
    assert exchange.replies == [b"one"]
    assert exchange.error == f"the process of test:it ended with exit status {status}"


async def test_a_worker_that_sends_an_unknown_frame_is_terminated(bench):
    def garbage(work):
        for descriptor in os.listdir("/proc/self/fd"):
            if os.path.realpath(f"/proc/self/fd/{descriptor}").partition(":")[0].endswith("socket"):
                os.write(int(descriptor), work.payload.readall())
        signal.pause()

    bench.isolate("test:it", garbage)
    unknown = await bench.call("test:it", frame(Frame.JOB, b"x"))
    assert unknown.error == "the process of test:it sent an unexpected frame of kind 1"
    long = await bench.call("test:it", b"\x04" + (MAX_FRAME + 1).to_bytes(4, "big"))
    assert long.error == f"MeshError: a frame of {MAX_FRAME + 1} bytes, where {MAX_FRAME} are the most"


async def test_an_interpreter_that_cannot_be_started_is_an_error(bench, monkeypatch):
    bench.isolate("test:it", function)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert (await bench.call("test:it")).error.startswith("FileNotFoundError: ")


# --- cancelling ---------------------------------------------------------------------------------------------------


@every_kind
async def test_a_cancelled_function_can_clean_up_and_the_end_is_reported_after_it_has(
    bench, kind, eventually, tmp_path
):
    marks = tmp_path

    def rest(work):
        try:
            (marks / "began").touch()  # from here on SIGTERM may come
            time.sleep(60)
        finally:
            time.sleep(0.1)
            (marks / f"cleaned {type(sys.exc_info()[1]).__name__} {work.cancelled}").touch()

    async def async_rest(work):
        (marks / "began").touch()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            (marks / f"cleaned {type(sys.exc_info()[1]).__name__} {work.cancelled}").touch()

    async def async_yield_rest(work):
        await async_rest(work)
        yield

    def yield_rest(work):
        rest(work)
        yield

    rests = {coroutine: async_rest, function: rest, async_generator: async_yield_rest, generator: yield_rest}
    bench.isolate("test:it", rests[kind])
    message_id = bench.start("test:it")
    await eventually((marks / "began").exists)
    bench.runner.cancel(message_id)
    exchange = await bench.end(message_id)
    assert (exchange.reason, exchange.error) == ("cancelled", "test:it was cancelled")
    raised = "CancelledError" if asyncio.iscoroutinefunction(kind) or kind is async_generator else "SystemExit"
    assert (marks / f"cleaned {raised} True").exists()


@every_kind
async def test_a_function_that_will_not_end_is_killed_after_its_grace_with_what_it_started(
    benches, kind, eventually, tmp_path
):
    bench = benches(max_processes=4, isolation={"test:it": {"grace": 0.2}})
    pids = tmp_path / "pids"

    def stay(work):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
        child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
        child.stdout.readline()
        (tmp_path / "new").write_text(f"{os.getpid()} {child.pid}")
        (tmp_path / "new").rename(pids)
        while True:
            time.sleep(60)

    async def async_stay(work):
        stay(work)

    async def async_yield_stay(work):
        stay(work)
        yield

    def yield_stay(work):
        stay(work)
        yield

    stays = {coroutine: async_stay, function: stay, async_generator: async_yield_stay, generator: yield_stay}
    bench.isolate("test:it", stays[kind])
    message_id = bench.start("test:it")
    await eventually(pids.exists)
    started = time.monotonic()
    bench.runner.cancel(message_id)
    exchange = await bench.end(message_id)
    assert time.monotonic() - started >= 0.2
    assert exchange.reason == "cancelled"
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())
    await bench.runner.close()


async def test_the_deadline_stops_the_process(bench, eventually):
    bench.isolate("test:it", lambda work: time.sleep(60))
    bench.isolate("test:first", function)
    await bench.call("test:first")  # which starts an interpreter, and may take longer than the deadline
    exchange = await bench.call("test:it", deadline=asyncio.get_running_loop().time() + 0.5)
    assert (exchange.reason, exchange.error) == ("timed_out", "test:it did not end before its deadline")
    await eventually(lambda: len(descendants()) == 1)


async def test_work_that_is_cancelled_while_it_waits_for_its_turn_never_has_a_process(benches, eventually, tmp_path):
    bench = benches(max_processes=1)

    def busy(work):
        (tmp_path / work.payload.text()).touch()
        time.sleep(60)

    bench.isolate("test:it", busy)
    first, second, third = (bench.start("test:it", name) for name in (b"first", b"second", b"third"))
    await eventually((tmp_path / "first").exists)
    waits = "test:it has not begun, other requests have all processes (max_processes is 1)"
    assert [bench.runner.delay(message_id) for message_id in (first, second, third)] == ["", waits, waits]
    bench.runner.cancel(second)
    assert (await bench.end(second)).reason == "cancelled"
    bench.runner.cancel(first)
    await eventually((tmp_path / "third").exists)
    assert [bench.runner.delay(message_id) for message_id in (first, second, third)] == ["", "", ""]
    assert not (tmp_path / "second").exists()
    bench.runner.cancel(third)
    for message_id in (first, third):
        assert (await bench.end(message_id)).reason == "cancelled"
    await bench.runner.close()


@every_kind
async def test_cancelling_at_any_moment_of_a_start_ends_it_once_and_leaves_nothing(bench, kind):
    bench.isolate("test:it", kind)
    ids = []
    for turns in (0, 1, 2, 3, 5, 8, 13, 50):
        ids.append(bench.start("test:it", b"abc"))
        for _ in range(turns):
            await asyncio.sleep(0)
        bench.runner.cancel(ids[-1])
    for message_id in ids[:-1]:
        assert (await bench.end(message_id)).reason == "cancelled"
    last = await bench.end(ids[-1])  # fifty turns of a loop that stands still meanwhile may be enough to run it
    assert last.reason == "cancelled" or (last.reason, last.replies) == (None, [b"cba"])
    assert (await bench.call("test:it", b"abc")).replies == [b"cba"]


async def test_closing_waits_as_long_as_the_grace_and_kills_then(benches, eventually, tmp_path):
    bench = benches(isolation={"*": {"grace": 0.3}}, max_processes=2)

    def stay(work):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "began").touch()
        while True:
            time.sleep(60)

    bench.isolate("test:it", stay)
    message_id = bench.start("test:it")
    await eventually((tmp_path / "began").exists)
    await bench.runner.close()
    assert bench.sink[message_id].reason == "cancelled"
    assert descendants() == {}
