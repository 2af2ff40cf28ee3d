"""One directive in its process: what it finds there, and what becomes of what it does."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgpack
import pytest

from tests.odd_errors import ODD_ERRORS
from tests.own_process import without_blocks
from tests.payloads.kinds import async_generator, coroutine, every_kind, function, generator
from tests.waiting import WITHIN
from zmesh.errors import CopyFailed, MeshError, NodeOverloaded, NotAllowed, Overloaded, RemoteError
from zmesh.payloads.streamed import StreamedPayload
from zmesh.runtime import is_a
from zmesh.serving.isolation.worker import _report

MIB = 1024 * 1024


# --- the four kinds of functions ----------------------------------------------------------------------------------


@every_kind
async def test_each_kind_of_function_replies_from_a_process_of_its_own(bench, kind):
    bench.isolate("test:it", kind)
    bench.isolate("test:pid", lambda work: [os.getpid(), os.getsid(0)])
    exchange = await bench.call("test:it", b"abc")
    assert (exchange.replies, exchange.reason) == ([b"cba"], None)
    first, second = [(await bench.call("test:pid")).replies for _ in range(2)]
    assert first != second
    pid, session = eval(first[0])
    assert pid == session != os.getpid()


OUT_OF_PAPER = RemoteError("buy some")
OUT_OF_PAPER.code = "out_of_paper"
"""Of a class of the plugin's own it would be no different, but a class of a test is not there in the process."""
RAISED = [
    (ValueError("bad"), "remote", "ValueError: bad"),
    (KeyError(), "remote", "KeyError"),
    (SystemExit(3), "remote", "SystemExit: 3"),
    (GeneratorExit(), "remote", "GeneratorExit"),
    (asyncio.CancelledError(), "remote", "CancelledError"),
    (NotAllowed("not for you"), "not_allowed", "not for you"),
    (NodeOverloaded("come again"), "overloaded", "come again"),
    (NodeOverloaded("no GPU is free", limit="gpus"), "overloaded", "no GPU is free"),
    (CopyFailed("no disk"), "copy_failed", "no disk"),
    (OUT_OF_PAPER, "out_of_paper", "buy some"),
    (OSError("file \udcff"), "remote", "OSError: file \\udcff"),
    (ValueError("x" * 50_000), "remote", "ValueError: " + "x" * 985 + "..."),
]


@every_kind
async def test_what_it_raises_ends_the_request_as_it_would_without_isolation(benches, kind):
    reports = []
    bench = benches(max_processes=4, note=reports.append)
    bench.isolate("test:isolated", kind)
    bench.directives.register("test:plain", kind)
    for directive in ["test:isolated", "test:plain"]:
        for error, code, text in RAISED:
            exchange = await bench.call(directive, b"abc", config={"error": error})
            assert (exchange.reason, exchange.error) == (code, text)
            assert exchange.replies == ([b"cba"] if "generator" in kind.__name__ else [])
    assert [(report.event, report.node, report.detail) for report in reports] == [("overloaded", "ctl", "gpus")] * 2


@pytest.mark.parametrize("make", ODD_ERRORS.values(), ids=ODD_ERRORS)
def test_any_error_can_be_reported_to_the_node(make):
    error = make()
    word = msgpack.unpackb(_report(error))
    assert word["text"]
    assert word["reason"] == ("overloaded" if is_a(error, Overloaded) else "remote")
    assert word["memory"] is (make is MemoryError)


async def test_an_error_without_a_text_ends_the_request(bench):
    class Odd(BaseException):
        def __str__(self):
            raise KeyError("no text")

    def plain(work):
        raise Odd

    async def waiting(work):
        raise Odd

    for name, directive in [("test:plain", plain), ("test:waiting", waiting)]:
        bench.isolate(name, directive)
        exchange = await bench.call(name)
        assert (exchange.reason, exchange.error) == ("remote", "Odd: <its text can't be shown: KeyError>")


async def test_its_traceback_is_in_the_log_of_the_node(bench, caplog):
    bench.isolate("test:it", function)
    with caplog.at_level(logging.WARNING):
        await bench.call("test:it", config={"error": ValueError("bad")})
    assert "test:it for ctl failed in its process\nTraceback" in caplog.text
    shown = re.search(r", in function\n(.*\n)?ValueError: bad", caplog.text)  # with the line, if its file is found
    assert shown is not None


@every_kind
async def test_it_finds_in_its_work_what_it_would_find_without_isolation(bench, kind):
    def look(work):
        left = work.deadline - time.monotonic()
        return repr([work.message_id, work.directive, work.sender, dict(work.header), dict(work.config),
                     work.cancelled, 500 < left <= 600, len(work.payload), bool(work.payload)])  # fmt: skip

    async def async_look(work):
        return look(work)

    async def async_yield_look(work):
        yield look(work)

    def yield_look(work):
        yield look(work)

    looks = {coroutine: async_look, function: look, async_generator: async_yield_look, generator: yield_look}
    bench.isolate("test:it", looks[kind])
    deadline = asyncio.get_running_loop().time() + 600
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

    bench.isolate("test:plain", plain)
    bench.isolate("test:async", asynchronous)
    expected = [b"one", b'{"two":2}', b"three", b""]
    assert (await bench.call("test:plain")).replies == expected
    assert (await bench.call("test:async")).replies == expected


async def test_each_run_has_its_own_copy_of_all_that_is_global(bench):
    def count(work):
        os.environ["ZMESH_TEST_COUNT"] = str(int(os.environ.get("ZMESH_TEST_COUNT", "0")) + 1)
        return os.environ["ZMESH_TEST_COUNT"]

    bench.isolate("test:count", count)
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
        subprocess.run, [sys.executable, str(script)], capture_output=True, text=True, timeout=WITHIN, check=True
    )
    assert done.stdout == "quiet\n"
    assert without_blocks(done.stderr).splitlines() == ["on stdout", "on stderr"]


# --- payloads -----------------------------------------------------------------------------------------------------


@every_kind
async def test_a_spooled_payload_is_read_from_the_file_that_it_lies_in(bench, kind, spooled):
    bench.isolate("test:it", kind)
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

    bench.isolate("test:name", by_name)
    bench.isolate("test:crash", crash)
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
        bench.isolate(f"test:{number}", kind)
        assert (await bench.call(f"test:{number}", spooled(content))).replies == [b"23", content[4:], content]


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

    bench.isolate("test:it", read, stream=True)
    payload = StreamedPayload()
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

    bench.isolate("test:it", plain if kind == "plain" else asynchronous, stream=True)
    payload = StreamedPayload()
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

    bench.isolate("test:echo", plain if kind == "plain" else asynchronous, stream=True)
    bench.isolate("test:deaf", (lambda work: "heard nothing") if kind == "plain" else coroutine_deaf, stream=True)
    for directive_, expected in (("test:echo", b"x" * 300_000), ("test:deaf", b"heard nothing")):
        payload = StreamedPayload()
        message_id = bench.start(directive_, payload)
        for _ in range(3):
            payload.feed(b"x" * 100_000)
        payload.finish()
        assert (await bench.end(message_id)).replies == [expected]


async def coroutine_deaf(work):
    return "heard nothing"
