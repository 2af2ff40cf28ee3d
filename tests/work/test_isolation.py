"""Directives in processes of their own. (That closing leaves no task and no thread is checked by the fixture.)"""

import asyncio
import functools
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import zmesh
from tests.work.kinds import KINDS, async_generator, coroutine, every_kind, function, generator
from zmesh.config import Config
from zmesh.directives import Directives, directive
from zmesh.errors import ConfigError, MeshError, NotAllowed
from zmesh.isolation.limits import Limits
from zmesh.isolation.line import MAX_FRAME, Channel, Frame, Line, frame
from zmesh.payload import Streaming

MIB = 1024 * 1024


def descendants(of=None):
    """Every process that this one has started, directly or not, with the state that it is in."""
    parents, states = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        parents[int(folder.name)], states[int(folder.name)] = int(parent), state
    found = {of or os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: states[pid] for pid in found - {of or os.getpid()}}


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # left to a sleepy init


async def settled(value):
    """The value once it stands still, as it does when all that lies between two ends is full."""
    before = None
    while value() != before:
        before = value()
        for _ in range(20):
            await asyncio.sleep(0.005)
    return before


@pytest.fixture(autouse=True)
async def nothing_is_left(tmp_path, monkeypatch, eventually):
    """After each test its processes, descriptors and temporary files are gone."""
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    before = len(os.listdir("/proc/self/fd"))
    yield
    await eventually(lambda: not descendants())
    assert list(spool.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
async def bench(nothing_is_left, benches):
    """Depends on the census, so that the table is closed before that is taken."""
    bench = benches(max_processes=4)
    yield bench
    await bench.works.close()


def isolate(bench, name, function, **options):
    bench.directives.register(name, function, isolate=True, **options)


# --- the four kinds of functions --------------------------------------------------------------------------------------


@every_kind
async def test_each_kind_of_function_replies_from_a_process_of_its_own(bench, kind):
    isolate(bench, "test:it", kind)
    isolate(bench, "test:pid", lambda work: [os.getpid(), os.getsid(0)])
    exchange = await bench.call("test:it", b"abc")
    assert (exchange.replies, exchange.reason) == ([b"cba"], None)
    first, second = [(await bench.call("test:pid")).replies for _ in range(2)]
    assert first != second
    pid, session = eval(first[0])
    assert pid == session != os.getpid()


RAISED = [
    (ValueError("bad"), "ValueError: bad"),
    (KeyError(), "KeyError"),
    (SystemExit(3), "SystemExit: 3"),
    (GeneratorExit(), "GeneratorExit"),
    (asyncio.CancelledError(), "CancelledError"),
    (NotAllowed("not for you"), "not for you"),
    (OSError("file \udcff"), "OSError: file \\udcff"),
    (ValueError("x" * 50_000), "ValueError: " + "x" * 985 + "..."),
]


@every_kind
async def test_what_it_raises_ends_the_request_as_it_would_without_isolation(bench, kind):
    isolate(bench, "test:it", kind)
    for error, text in RAISED:
        exchange = await bench.call("test:it", b"abc", config={"error": error})
        assert exchange.error == text
        assert exchange.reason == ("not_allowed" if isinstance(error, NotAllowed) else "remote")
        assert exchange.replies == ([b"cba"] if "generator" in kind.__name__ else [])


async def test_its_traceback_is_in_the_log_of_the_node(bench, caplog):
    isolate(bench, "test:it", function)
    with caplog.at_level(logging.WARNING):
        await bench.call("test:it", config={"error": ValueError("bad")})
    assert "test:it for ctl failed in its process\nTraceback" in caplog.text
    assert ", in function\nValueError: bad" in caplog.text


@every_kind
async def test_it_finds_in_its_work_what_it_would_find_without_isolation(bench, kind):
    def look(work):
        left = work.deadline - time.monotonic()
        return repr([work.message_id, work.directive, work.sender, dict(work.header), dict(work.config),
                     work.cancelled, 50 < left <= 60, len(work.payload), bool(work.payload)])  # fmt: skip

    async def async_look(work):
        return look(work)

    async def async_yield_look(work):
        yield look(work)

    def yield_look(work):
        yield look(work)

    looks = {coroutine: async_look, function: look, async_generator: async_yield_look, generator: yield_look}
    isolate(bench, "test:it", looks[kind])
    deadline = asyncio.get_running_loop().time() + 60
    message_id = bench.start("test:it", b"abc", config={"key": [1]}, deadline=deadline)
    exchange = await bench.end(message_id)
    header = {"recipient": "here", "timestamp": 1.5}
    assert eval(exchange.replies[0]) == [message_id, "test:it", "ctl", header, {"key": [1]}, False, True, 3, True]


async def test_values_of_generators_are_replies_in_order_and_none_is_no_reply(bench):
    def plain(work):
        yield b"one"
        yield None
        yield {"two": 2}
        yield "three"
        yield b""
        return b"not sent"

    async def asynchronous(work):
        for value in plain(work):
            yield value

    isolate(bench, "test:plain", plain)
    isolate(bench, "test:async", asynchronous)
    expected = [b"one", b'{"two":2}', b"three", b""]
    assert (await bench.call("test:plain")).replies == expected
    assert (await bench.call("test:async")).replies == expected


async def test_each_run_has_its_own_copy_of_all_that_is_global(bench):
    def count(work):
        os.environ["ZMESH_TEST_COUNT"] = str(int(os.environ.get("ZMESH_TEST_COUNT", "0")) + 1)
        return os.environ["ZMESH_TEST_COUNT"]

    isolate(bench, "test:count", count)
    assert [(await bench.call("test:count")).replies for _ in range(2)] == [[b"1"], [b"1"]]
    assert "ZMESH_TEST_COUNT" not in os.environ


async def test_what_it_prints_reaches_the_nodes_standard_error_and_nothing_else(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("""
import asyncio, sys, zmesh

def talk(work):
    print("on stdout")
    print("on stderr", file=sys.stderr)
    return sys.stdin.read() + "quiet"

async def main():
    mesh = zmesh.Controller(zmesh.Config(node_id="it"))
    mesh.register("test:talk", talk, isolate=True)
    async with mesh:
        print((await mesh.request("it", "test:talk")).text())

asyncio.run(main())
""")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "quiet\n"
    assert done.stderr.splitlines() == ["on stdout", "on stderr"]


# --- payloads ---------------------------------------------------------------------------------------------------------


@every_kind
async def test_a_spooled_payload_is_read_from_the_file_that_it_lies_in(bench, kind, spooled):
    isolate(bench, "test:it", kind)
    content = os.urandom(1000) * 10_000
    exchange = await bench.call("test:it", spooled(content))
    assert exchange.replies == [content[::-1]]


@pytest.mark.parametrize("size", [3, 9 * MIB])
async def test_a_payload_has_a_file_name_there_and_the_file_is_deleted_however_the_process_ends(bench, size, spooled):
    def by_name(work):
        assert Path(work.payload.name).stat().st_size == len(work.payload)
        return work.payload.name

    def crash(work):
        assert work.payload.name
        os._exit(5)

    isolate(bench, "test:name", by_name)
    isolate(bench, "test:crash", crash)
    name = (await bench.call("test:name", spooled(b"x" * size))).replies[0].decode()
    assert os.path.dirname(name) == tempfile.gettempdir()
    assert not os.access(name, os.F_OK)
    assert (await bench.call("test:crash", spooled(b"x" * size))).error.endswith("exit status 5")
    assert os.listdir(tempfile.gettempdir()) == []


async def test_a_payload_can_be_sought_iterated_and_sent_back(bench, spooled):
    def plain(work):
        work.payload.seek(2)
        yield work.payload.read(2)
        yield b"".join(work.payload)
        yield work.payload

    async def asynchronous(work):
        work.payload.seek(2)
        yield work.payload.read(2)
        yield b"".join([chunk async for chunk in work.payload])
        yield work.payload

    content = b"0123456789" * MIB
    for number, kind in enumerate((plain, asynchronous)):
        isolate(bench, f"test:{number}", kind)
        assert (await bench.call(f"test:{number}", spooled(content))).replies == [b"23", content[4:], content]


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
    isolate(bench, "test:it", kinds[kind])
    content = big.read_bytes()
    several = [content, content + b"!", b"x" * 65536, b"x" * 65537]
    exchange = await bench.call("test:it")
    assert exchange.replies == (several if "generator" in kind.__name__ else [content])


@pytest.mark.parametrize("ending", ["raise", "crash"])
async def test_a_reply_that_breaks_off_in_the_middle_is_an_error(bench, ending):
    def pieces():
        yield b"x" * 100_000
        if ending == "raise":
            raise ValueError("no more")
        os._exit(9)

    isolate(bench, "test:it", lambda work: pieces())
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

    isolate(bench, "test:it", plain if kind == "plain" else asynchronous, stream=True)
    consumed = []
    payload = Streaming(consumed.append)
    message_id = bench.start("test:it", payload)
    exchange = bench.outlet[message_id]
    await eventually(lambda: exchange.replies == [b"begun"])
    bench.outlet.room.clear()
    for _ in range(100):
        payload.feed(bytes(50_000))
    payload.finish()
    await eventually(lambda: consumed)
    assert await settled(lambda: sum(consumed)) < 2 * MIB
    bench.outlet.room.set()
    assert (await bench.end(message_id)).replies == [b"begun", *[bytes(50_000)] * 100]
    assert sum(consumed) == 5_000_000


async def test_a_streaming_payload_is_a_file_that_can_be_read_once(bench):
    def read(work):
        payload = work.payload
        yield bool(payload)
        yield payload.read(3)
        yield payload.read(0)
        yield payload.read(4)
        try:
            payload.readall()
        except OSError as error:
            yield str(error)
        for refused in (lambda: payload.seek(0), lambda: payload.name):
            try:
                refused()
            except OSError as error:
                yield str(error)
        yield payload.read()
        yield [len(payload), payload.tell(), payload.read(), bool(payload)] == [9, 9, b"", True]

    isolate(bench, "test:it", read, stream=True)
    payload = Streaming()
    message_id = bench.start("test:it", payload)
    for chunk in (b"01234", b"567", b"8"):
        payload.feed(chunk)
    payload.finish()
    assert (await bench.end(message_id)).replies == [
        b"true", b"012", b"", b"3456",
        b"a streaming payload can be read once only",
        b"a streaming payload can't seek", b"a streaming payload has no file",
        b"78", b"true",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_streaming_payload_that_breaks_off_raises_where_it_is_read(bench, kind):
    def plain(work):
        return work.payload.readall()

    async def asynchronous(work):
        return b"".join([chunk async for chunk in work.payload])

    isolate(bench, "test:it", plain if kind == "plain" else asynchronous, stream=True)
    payload = Streaming()
    message_id = bench.start("test:it", payload)
    payload.feed(b"some")
    payload.fail(MeshError("the rest is lost"))
    assert (await bench.end(message_id)).error == "MeshError: the rest is lost"


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_streaming_payload_goes_back_as_it_comes_and_need_not_be_read(bench, kind):
    def plain(work):
        return work.payload

    async def asynchronous(work):
        return work.payload

    isolate(bench, "test:echo", plain if kind == "plain" else asynchronous, stream=True)
    isolate(bench, "test:deaf", (lambda work: "heard nothing") if kind == "plain" else coroutine_deaf, stream=True)
    for directive_, expected in (("test:echo", b"x" * 300_000), ("test:deaf", b"heard nothing")):
        payload = Streaming()
        message_id = bench.start(directive_, payload)
        for _ in range(3):
            payload.feed(b"x" * 100_000)
        payload.finish()
        assert (await bench.end(message_id)).replies == [expected]


async def coroutine_deaf(work):
    return "heard nothing"


async def test_a_requester_that_takes_no_replies_stops_the_process(bench, eventually, tmp_path):
    progress = tmp_path / "progress"

    def endless(work):
        with progress.open("a") as file:
            while True:
                file.write("x")
                file.flush()
                yield bytes(60_000)

    isolate(bench, "test:it", endless)
    bench.outlet.room.clear()
    message_id = bench.start("test:it")
    await eventually(progress.exists)
    assert 60_000 * await settled(lambda: progress.stat().st_size) < MIB
    bench.works.cancel(message_id)
    assert (await bench.end(message_id)).reason == "cancelled"


# --- crashes and limits -----------------------------------------------------------------------------------------------


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
    isolate(bench, "test:it", by_signal)
    isolate(bench, "test:fine", function)
    exchange = await bench.call("test:it", config={"signal": int(number)})
    assert (exchange.reason, exchange.error) == ("remote", f"the process of test:it {text}")
    assert (await bench.call("test:fine", b"ab")).replies == [b"ba"]


@pytest.mark.parametrize("status", [0, 3])
async def test_a_process_that_leaves_before_its_function_has_ended_is_an_error(bench, status):
    async def leave(work):
        yield b"one"
        os._exit(status)

    isolate(bench, "test:it", leave)
    exchange = await bench.call("test:it")
    assert exchange.replies == [b"one"]
    assert exchange.error == f"the process of test:it ended with exit status {status}"


@every_kind
async def test_a_process_that_wants_more_memory_than_it_may_have_is_told_apart(bench, kind):
    def hoard(work):
        return len(bytearray(300 * MIB))

    async def async_hoard(work):
        return hoard(work)

    async def async_yield_hoard(work):
        yield hoard(work)

    def yield_hoard(work):
        kept = []
        while True:
            kept.append(bytes(1000) + b"x")
            if not kept:
                yield

    hoards = {coroutine: async_hoard, function: hoard, async_generator: async_yield_hoard, generator: yield_hoard}
    isolate(bench, "test:it", hoards[kind], max_memory_bytes=128 * MIB)
    exchange = await bench.call("test:it")
    assert exchange.error == "the process of test:it ran out of its 128 MiB of memory"
    assert exchange.reason == "remote"


async def test_what_fits_into_the_memory_that_it_may_have_runs(bench):
    isolate(bench, "test:it", lambda work: len(bytearray(64 * MIB)), max_memory_bytes=128 * MIB)
    assert (await bench.call("test:it")).replies == [str(64 * MIB).encode()]


@pytest.mark.parametrize("kind", ["plain", "async", "stubborn"])
async def test_a_process_that_uses_up_its_cpu_time_is_stopped(benches, eventually, kind):
    def spin(work):
        if kind == "stubborn":
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        while True:
            pass

    async def async_spin(work):
        spin(work)

    bench = benches(isolation={"*": {"grace": 0.0}})
    isolate(bench, "test:it", async_spin if kind == "async" else spin, max_cpu_seconds=1)
    message_id = bench.start("test:it")
    exchange = bench.outlet[message_id]
    await eventually(lambda: exchange.finished, within=40.0)  # a second of CPU time may be many on the clock
    await bench.works.close()
    assert exchange.error == "the process of test:it used up its 1 s of CPU time"


async def test_a_process_that_says_what_nobody_understands_is_ended(bench):
    def garbage(work):
        for descriptor in os.listdir("/proc/self/fd"):
            if os.path.realpath(f"/proc/self/fd/{descriptor}").partition(":")[0].endswith("socket"):
                os.write(int(descriptor), work.payload.readall())
        signal.pause()

    isolate(bench, "test:it", garbage)
    unknown = await bench.call("test:it", frame(Frame.JOB, b"x"))
    assert unknown.error == "the process of test:it sent what is none of its frames (1)"
    long = await bench.call("test:it", b"\x04" + (MAX_FRAME + 1).to_bytes(4, "big"))
    assert long.error == f"MeshError: a frame of {MAX_FRAME + 1} bytes, where {MAX_FRAME} are the most"


async def test_a_keeper_that_dies_takes_its_processes_along_and_the_next_call_has_a_new_one(bench, eventually):
    isolate(bench, "test:it", lambda work: signal.pause())
    isolate(bench, "test:fine", function)
    message_id = bench.start("test:it")
    await eventually(lambda: len(descendants()) == 2)
    pids = descendants()
    os.kill(bench.works._processes._keeper._process.pid, signal.SIGKILL)
    exchange = await bench.end(message_id)
    assert exchange.error == "the process of test:it could not be kept: its keeper has ended"
    await eventually(lambda: all(is_gone(pid) for pid in pids))
    assert (await bench.call("test:fine", b"ab")).replies == [b"ba"]


async def test_an_interpreter_that_cannot_be_started_is_an_error(bench, monkeypatch):
    isolate(bench, "test:it", function)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert (await bench.call("test:it")).error.startswith("FileNotFoundError: ")


# --- cancelling -------------------------------------------------------------------------------------------------------


@every_kind
async def test_a_cancelled_function_can_clean_up_and_the_end_is_told_after_it_has(bench, kind, eventually, tmp_path):
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
    isolate(bench, "test:it", rests[kind])
    message_id = bench.start("test:it")
    await eventually((marks / "began").exists)
    bench.works.cancel(message_id)
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
    isolate(bench, "test:it", stays[kind])
    message_id = bench.start("test:it")
    await eventually(pids.exists)
    started = time.monotonic()
    bench.works.cancel(message_id)
    exchange = await bench.end(message_id)
    assert 0.2 <= time.monotonic() - started < 4.0
    assert exchange.reason == "cancelled"
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())
    await bench.works.close()


async def test_the_deadline_stops_the_process(bench, eventually):
    isolate(bench, "test:it", lambda work: time.sleep(60))
    exchange = await bench.call("test:it", deadline=asyncio.get_running_loop().time() + 0.5)
    assert (exchange.reason, exchange.error) == ("timed_out", "test:it did not end before its deadline")
    await eventually(lambda: len(descendants()) == 1)


async def test_work_that_is_cancelled_while_it_waits_for_its_turn_never_has_a_process(benches, eventually, tmp_path):
    bench = benches(max_processes=1)

    def busy(work):
        (tmp_path / work.payload.text()).touch()
        time.sleep(60)

    isolate(bench, "test:it", busy)
    first, second, third = (bench.start("test:it", name) for name in (b"first", b"second", b"third"))
    await eventually((tmp_path / "first").exists)
    bench.works.cancel(second)
    assert (await bench.end(second)).reason == "cancelled"
    bench.works.cancel(first)
    await eventually((tmp_path / "third").exists)
    assert not (tmp_path / "second").exists()
    bench.works.cancel(third)
    for message_id in (first, third):
        assert (await bench.end(message_id)).reason == "cancelled"
    await bench.works.close()


@every_kind
async def test_cancelling_at_any_moment_of_a_start_ends_it_once_and_leaves_nothing(bench, kind):
    isolate(bench, "test:it", kind)
    ids = []
    for turns in (0, 1, 2, 3, 5, 8, 13, 50):
        ids.append(bench.start("test:it", b"abc"))
        for _ in range(turns):
            await asyncio.sleep(0)
        bench.works.cancel(ids[-1])
    for message_id in ids:
        assert (await bench.end(message_id)).reason == "cancelled"
    assert (await bench.call("test:it", b"abc")).replies == [b"cba"]


async def test_many_calls_at_once_are_all_answered(benches):
    bench = benches(max_processes=3)
    isolate(bench, "test:it", function)
    ids = [bench.start("test:it", str(number).encode()) for number in range(100, 150)]
    assert [(await bench.end(message_id)).replies for message_id in ids] == [
        [str(number).encode()[::-1]] for number in range(100, 150)
    ]
    await bench.works.close()


async def test_closing_waits_as_long_as_the_grace_and_kills_then(benches, eventually, tmp_path):
    bench = benches(isolation={"*": {"grace": 0.3}}, max_processes=2)

    def stay(work):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "began").touch()
        while True:
            time.sleep(60)

    isolate(bench, "test:it", stay)
    message_id = bench.start("test:it")
    await eventually((tmp_path / "began").exists)
    await bench.works.close()
    assert bench.outlet[message_id].reason == "cancelled"
    assert descendants() == {}


async def test_what_a_function_leaves_running_ends_with_it(bench, eventually):
    def leave(work):
        return subprocess.Popen(["sleep", "60"]).pid

    def fork(work):
        pid = os.fork()  # which has the connection to the node, too
        if pid == 0:
            time.sleep(60)
        os._exit(pid % 200 + 1)

    isolate(bench, "test:leave", leave)
    isolate(bench, "test:fork", fork)
    pid = int((await bench.call("test:leave")).replies[0])
    await eventually(lambda: is_gone(pid))
    assert "ended with exit status" in (await bench.call("test:fork")).error
    await eventually(lambda: len(descendants()) == 1)


async def test_what_has_left_the_session_is_killed_with_the_node_at_the_latest(bench, eventually):
    def daemon(work):
        return subprocess.Popen(["sleep", "60"], start_new_session=True).pid

    isolate(bench, "test:it", daemon)
    pid = int((await bench.call("test:it")).replies[0])
    assert not is_gone(pid)
    await bench.works.close()
    assert is_gone(pid)


async def test_no_call_leaves_a_zombie_or_a_descriptor(bench, eventually, spooled):
    isolate(bench, "test:it", function)
    isolate(bench, "test:crash", lambda work: os._exit(1))
    await bench.call("test:it")
    (keeper,) = descendants()
    before = len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{keeper}/fd"))
    for _ in range(5):
        await asyncio.gather(*(bench.call(name, spooled(b"x" * 9 * MIB)) for name in ("test:it", "test:crash")))
    await eventually(lambda: (len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{keeper}/fd"))) == before)
    assert list(descendants()) == [keeper]


async def test_neither_a_start_nor_a_reply_holds_up_the_loop(bench):
    isolate(bench, "test:it", lambda work: bytes(20 * MIB))
    longest = 0.0
    ticking = True

    async def tick():
        nonlocal longest
        while ticking:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)

    ticker = asyncio.create_task(tick())
    began = time.perf_counter()
    await bench.call("test:it")
    first = time.perf_counter() - began  # most of which is the start of an interpreter
    for _ in range(3):
        await bench.call("test:it")
    ticking = False
    await ticker
    assert longest < first / 2


# --- what can be isolated ---------------------------------------------------------------------------------------------


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, work):
        self.count += 1
        return self.count


async def test_methods_partials_and_callable_objects_are_copied_when_they_are_registered(bench):
    counter = Counter()
    isolate(bench, "test:method", counter.add)
    isolate(bench, "test:partial", functools.partial(lambda prefix, work: prefix + work.payload.text(), "<"))
    counter.count = 10
    assert [(await bench.call("test:method")).replies for _ in range(2)] == [[b"1"], [b"1"]]
    assert counter.count == 10
    assert (await bench.call("test:partial", b"x")).replies == [b"<x"]


async def test_a_function_of_the_program_itself_can_be_isolated_without_running_the_program_again(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("""
import asyncio, os, zmesh

print("run by", os.getpid())
FACTOR = 3

class Maker:
    def make(self, text):
        return text * FACTOR

async def treble(work):
    return Maker().make(work.payload.text())

mesh = zmesh.Controller(zmesh.Config(node_id="it"))
mesh.register("test:treble", treble, isolate=True)

async def main():
    print((await mesh.request("it", "test:treble", "ab")).text())

mesh.run(main)
""")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=True
    )
    assert re.fullmatch(r"run by \d+\nababab\n", done.stdout)
    assert done.stderr == ""


def test_what_cannot_be_moved_is_refused_at_registration():
    lock = __import__("threading").Lock()
    directives = Directives()

    def locked(work):
        with lock:
            return "never"

    with pytest.raises(TypeError, match=r"locked.* can't be moved to a process of its own: .*lock"):
        directives.register("test:it", locked, isolate=True)
    assert directives.capabilities() == []
    directives.register("test:it", locked)


PLUGIN = """
import os
import zmesh

@zmesh.directive(isolate=True)
def pid(work):
    return os.getpid()

@zmesh.directive(name="both", isolate=True, stream=True, max_memory_bytes=64 << 20, max_cpu_seconds=7)
async def of_another_name(work):
    return len(b"".join([chunk async for chunk in work.payload]))

class Thing:
    made = 0

    def __init__(self):
        Thing.made += 1
        self.calls = 0

    @zmesh.directive(isolate=True)
    def call(self, work):
        self.calls += 1
        return [self.calls, Thing.made]

    @staticmethod
    @zmesh.directive(isolate=True)
    async def still(work):
        yield "static"

    @zmesh.directive
    def here(self, work):
        return os.getpid()

def broken(work):
    raise ImportError
"""


async def test_plugins_are_imported_in_the_process_and_a_class_is_instantiated_there(bench, install):
    points = ["part = isolated_plugin", "thing = isolated_plugin:Thing"]
    install("isolated", {"isolated_plugin.py": PLUGIN}, {"zmesh.plugins": points})
    bench.directives.discover()
    assert int((await bench.call("part:pid")).replies[0]) != os.getpid()
    assert int((await bench.call("thing:here")).replies[0]) == os.getpid()
    assert [(await bench.call("thing:call")).replies for _ in range(2)] == [[b"[1,1]"], [b"[1,1]"]]
    assert (await bench.call("thing:still")).replies == [b"static"]
    both = bench.directives.find("part:both")
    assert both.stream
    assert both.isolation.limits("part:both", {}) == Limits(64 * MIB, 7, 5.0)
    payload = Streaming()
    message_id = bench.start("part:both", payload)
    payload.feed(b"abc")
    payload.finish()
    assert (await bench.end(message_id)).replies == [b"3"]


def test_limits_come_from_the_setting_for_the_directive_then_the_directive_then_the_setting_for_all():
    @directive(isolate=True, max_memory_bytes=100 * MIB)
    def marked(work):
        pass

    directives = Directives()
    directives.register("test:it", marked, max_cpu_seconds=2)
    isolation = directives.find("test:it").isolation
    assert isolation.limits("test:it", {}) == Limits(100 * MIB, 2, 5.0)
    for_all = {"*": {"max_memory_bytes": 50 * MIB, "max_cpu_seconds": 1, "grace": 1.5}}
    assert isolation.limits("test:it", for_all) == Limits(100 * MIB, 2, 1.5)
    assert isolation.limits("test:it", {**for_all, "test:it": {"max_cpu_seconds": 9}}) == Limits(100 * MIB, 9, 1.5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"isolate": True, "max_memory_bytes": 32 * MIB - 1}, "max_memory_bytes = 33554431 is not a number from"),
        ({"isolate": True, "max_cpu_seconds": 0}, "max_cpu_seconds = 0 is not"),
        ({"isolate": True, "max_cpu_seconds": 1.5}, "max_cpu_seconds = 1.5 is not"),
        ({"isolate": True, "max_cpu_seconds": True}, "max_cpu_seconds = True is not"),
        ({"max_cpu_seconds": 1}, "max_cpu_seconds can't be held without isolate=True"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        directive(**options)
    with pytest.raises(ValueError, match=text):
        Directives().register("test:it", function, **options)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([{}], "isolation must hold one table for each directive"),
        ({"test:it": 3}, "isolation must hold one table for each directive"),
        ({"test": {}}, r'\[isolation."test"\] is for no directive'),
        ({"*": {"grace_": 1}}, r"no setting is called 'grace_' \(did you mean 'grace'\?\)"),
        ({"*": {"grace": -1}}, "grace = -1 is not a number from 0 to 3600"),
        ({"a:b": {"max_cpu_seconds": 0.5}}, "max_cpu_seconds = 0.5 is not a number from 1 to"),
    ],
)
def test_settings_that_make_no_sense_are_refused(table, text):
    with pytest.raises(ConfigError, match=text):
        Config(isolation=table)


def test_settings_are_read_from_the_file(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text('[isolation."*"]\ngrace = 2\n[isolation."test:it"]\nmax_memory_bytes = 67108864\n')
    assert Config.load(file, environ={}).isolation == {"*": {"grace": 2}, "test:it": {"max_memory_bytes": 64 * MIB}}


# --- the connection ---------------------------------------------------------------------------------------------------


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


def test_the_public_mark_is_the_one_of_the_plugins():
    assert zmesh.directive is directive
