import asyncio
import functools
import gc
import logging
import threading
import weakref

import pytest

from tests.payloads.kinds import KINDS, async_generator, coroutine, every_kind, function, generator
from zmesh.errors import NotAllowed
from zmesh.payloads.payload import Payload
from zmesh.payloads.streamed import StreamedPayload
from zmesh.serving.failure_log import FAILURES, FailureLog
from zmesh.serving.work import Work, WorkReset

# --- the four kinds of functions ----------------------------------------------------------------------------------


@every_kind
async def test_each_kind_of_function_replies_and_ends_once(bench, kind):
    exchange = await bench.call("test:it", b"abc", function=kind)
    assert exchange.replies == [b"cba"]
    assert exchange.reason is None
    assert bench.runner.active() == []


@every_kind
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (KeyError(), "KeyError"),
        (SystemExit(3), "SystemExit: 3"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError(), "CancelledError"),
        (NotAllowed("not for you"), "not for you"),
        (OSError("file \udcff"), "OSError: file \\udcff"),
        (ValueError("x" * 5000), "ValueError: " + "x" * 985 + "..."),
    ],
)
async def test_whatever_a_plugin_raises_ends_its_own_request_only(bench, kind, error, text):
    message_id = bench.start("test:it", b"abc", function=kind, config={"error": error})
    exchange = await bench.end(message_id)
    assert exchange.error == text
    assert exchange.reason == ("not_allowed" if isinstance(error, NotAllowed) else "remote")
    assert exchange.replies == ([b"cba"] if "generator" in kind.__name__ else [])
    assert (await bench.call("test:it", b"abc")).replies == [b"cba"]


@every_kind
async def test_a_reset_ends_its_request_with_the_code(bench, kind):
    reset = WorkReset("I have heard enough", 7)
    message_id = bench.start("test:it", b"abc", function=kind, config={"error": reset})
    exchange = await bench.end(message_id)
    assert (exchange.reason, exchange.error, exchange.reset_code) == ("cancelled", "I have heard enough", 7)


@every_kind
async def test_what_a_function_finds_in_its_work(bench, kind):
    def look(work):
        seen.append((work.directive, work.sender, dict(work.header), dict(work.config), work.cancelled))

    @functools.wraps(kind)
    async def async_look(work):
        look(work)

    async def async_yield_look(work):
        look(work)
        yield

    def yield_look(work):
        look(work)
        yield

    seen = []
    looks = {coroutine: async_look, function: look, async_generator: async_yield_look, generator: yield_look}
    exchange = await bench.call("test:it", function=looks[kind], config={"key": 1})
    assert seen == [("test:it", "ctl", {"recipient": "here", "timestamp": 1.5}, {"key": 1}, False)]
    assert exchange.replies == []


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

    expected = [b"one", b'{"two":2}', b"three", b""]
    assert (await bench.call("test:plain", function=plain)).replies == expected
    assert (await bench.call("test:async", function=asynchronous)).replies == expected


async def test_none_is_no_reply_and_an_empty_value_is_an_empty_one(bench):
    async def nothing(work):
        return None

    async def empty(work):
        return ""

    assert (await bench.call("test:nothing", function=nothing)).replies == []
    assert (await bench.call("test:empty", function=empty)).replies == [b""]


async def test_plain_functions_run_in_threads_and_async_ones_on_the_loop(bench):
    async def on_the_loop(work):
        return threading.get_ident()

    def in_a_thread(work):
        return threading.get_ident()

    here = str(threading.get_ident()).encode()
    assert (await bench.call("test:loop", function=on_the_loop)).replies == [here]
    assert (await bench.call("test:thread", function=in_a_thread)).replies != [here]


@every_kind
async def test_a_value_that_cannot_be_sent_is_the_plugins_error(bench, kind):
    async def as_coroutine(work):
        return object()

    def as_function(work):
        return object()

    async def as_async_generator(work):
        try:
            yield object()
        finally:
            closed.append(True)

    def as_generator(work):
        try:
            yield object()
        finally:
            closed.append(True)

    closed = []
    broken = dict(zip(KINDS, [as_coroutine, as_function, as_async_generator, as_generator], strict=True))
    exchange = await bench.call("test:it", function=broken[kind])
    assert exchange.error.startswith("TypeError: a payload can't be object")
    assert closed == ([True] if "generator" in kind.__name__ else [])


async def test_a_returned_iterator_is_one_reply_that_outlives_the_function(bench, tmp_path, spooled):
    def lazily(work):
        return (chunk.upper() for chunk in work.payload)

    exchange = await bench.call("test:it", spooled(b"abc" * 4_000_000, tmp_path), function=lazily)
    assert exchange.replies == [b"ABC" * 4_000_000]


@every_kind
async def test_the_payload_is_closed_when_the_work_has_ended(bench, tmp_path, kind, spooled):
    payload = spooled(b"abc", tmp_path)
    assert payload.name
    exchange = await bench.call("test:it", payload, function=kind)
    assert exchange.replies == [b"cba"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        payload.read()


async def test_an_async_generator_that_never_waits_leaves_the_loop_to_others(bench):
    async def busy(work):
        while True:
            yield b""

    message_id = bench.start("test:it", function=busy)
    await asyncio.sleep(0)
    bench.runner.cancel(message_id)
    assert (await bench.end(message_id)).reason == "cancelled"


async def test_replies_wait_while_the_client_has_no_room(bench, eventually):
    def plain(work):
        for number in range(3):
            produced.append(number)
            yield str(number)

    async def asynchronous(work):
        for value in plain(work):
            yield value

    for kind in (plain, asynchronous):
        produced = []
        bench.sink.room.clear()
        message_id = bench.start(f"test:{kind.__name__}", function=kind)
        await eventually(lambda message_id=message_id: bench.sink[message_id].handing_over)
        assert produced == [0]
        bench.sink.room.set()
        assert (await bench.end(message_id)).replies == [b"0", b"1", b"2"]


async def test_an_outlet_that_fails_ends_the_work_with_that_error(bench):
    async def reply(message_id, payload):
        raise ConnectionError("gone")

    bench.sink.reply = reply
    for kind in (generator, async_generator):
        assert (await bench.call(f"test:{kind.__name__}", function=kind)).error == "ConnectionError: gone"


# --- refusals -----------------------------------------------------------------------------------------------------


async def test_unknown_directives_are_refused_with_a_hint(bench):
    bench.directives.register("echo:echo", coroutine)
    exchange = await bench.call("echo:ecko")
    assert exchange.reason == "unknown_directive"
    assert exchange.error == "no directive 'echo:ecko' here (did you mean 'echo:echo'?)"


async def test_the_most_work_that_is_allowed_runs_and_one_more_is_refused(benches, tmp_path, spooled):
    bench = benches(max_work=2)
    release = asyncio.Event()

    async def wait(work):
        await release.wait()

    running = [bench.start("test:it", function=wait), bench.start("test:it")]
    payload = spooled(b"x", tmp_path)
    exchange = await bench.call("test:it", payload)
    assert exchange.reason == "overloaded"
    assert "max_work" in exchange.error
    with pytest.raises(ValueError, match="closed"):
        payload.read()
    release.set()
    for message_id in running:
        assert (await bench.end(message_id)).reason is None
    assert (await bench.call("test:it")).reason is None


async def test_work_that_fails_without_end_is_logged_at_a_bounded_rate_and_the_rest_counted(bench, caplog):
    """A member may call what fails as often as it likes, and each failure has a traceback."""

    async def fails(work):
        raise ValueError("as ever")

    clock = [0.0]
    bench.runner._failures = FailureLog(lambda: clock[0])
    bench.directives.register("test:it", fails)
    for _ in range(FAILURES.burst + 30):
        assert (await bench.call("test:it")).reason == "remote"
    clock[0] += 1.0
    await bench.call("test:it")
    lines = [record.getMessage().splitlines()[0] for record in caplog.records if " failed" in record.getMessage()]
    assert len(lines) == FAILURES.burst + 1
    assert lines[-2].endswith(" failed")
    assert lines[-1].endswith(" failed, and 30 more failures before it")


async def test_a_message_id_that_runs_is_not_run_twice(bench, caplog):
    release = asyncio.Event()
    runs = []

    async def wait(work):
        runs.append(work)
        await release.wait()

    message_id = bench.start("test:it", function=wait)
    bench.run(Work(message_id, "test:it", "ctl", {}, Payload(), {}))
    release.set()
    await bench.end(message_id)
    assert len(runs) == 1
    assert "is running already" in caplog.text


async def test_streaming_directives_and_unknown_ones_start_at_the_first_chunk(bench):
    bench.directives.register("test:stream", coroutine, stream=True)
    bench.directives.register("test:whole", coroutine)
    assert bench.runner.wants_stream("test:stream")
    assert not bench.runner.wants_stream("test:whole")
    assert bench.runner.wants_stream("test:unknown")


# --- streaming payloads -------------------------------------------------------------------------------------------


async def test_functions_of_every_kind_read_a_payload_while_it_arrives(bench, eventually):
    async def as_coroutine(work):
        return b"".join([chunk.upper() async for chunk in work.payload])

    def as_function(work):
        return b"".join(chunk.upper() for chunk in work.payload)

    async def as_async_generator(work):
        async for chunk in work.payload:
            yield chunk.upper()

    def as_generator(work):
        for chunk in work.payload:
            yield chunk.upper()

    for kind in (as_coroutine, as_function, as_async_generator, as_generator):
        taken = []
        payload = StreamedPayload(taken.append)
        message_id = bench.start(f"test:{kind.__name__}", payload, function=kind, stream=True)
        for chunk in (b"one", b"two"):
            payload.feed(chunk)
            await eventually(lambda taken=taken, payload=payload: sum(taken) == len(payload))
        payload.finish()
        exchange = await bench.end(message_id)
        assert b"".join(exchange.replies) == b"ONETWO"
        assert len(exchange.replies) == (2 if "generator" in kind.__name__ else 1)


async def test_a_sender_that_is_lost_ends_the_work_that_reads(bench, eventually):
    async def asynchronous(work):
        return b"".join([chunk async for chunk in work.payload])

    def plain(work):
        return work.payload.read()

    for kind in (asynchronous, plain):
        payload = StreamedPayload()
        message_id = bench.start(f"test:{kind.__name__}", payload, function=kind, stream=True)
        payload.feed(b"half")
        await eventually(lambda payload=payload: payload.feed(b"") == 0 and not payload._chunks)
        payload.fail(ConnectionError("lost"))
        assert (await bench.end(message_id)).error == "ConnectionError: lost"


async def test_what_a_work_leaves_unread_does_not_hold_its_sender_up(bench):
    async def uninterested(work):
        return b"enough"

    taken = []
    payload = StreamedPayload(taken.append)
    payload.feed(b"x" * 100)
    exchange = await bench.call("test:it", payload, function=uninterested, stream=True)
    payload.feed(b"y" * 50)
    assert exchange.replies == [b"enough"]
    assert sum(taken) == 150


# --- what runs ----------------------------------------------------------------------------------------------------


async def test_active_work_is_listed_in_the_order_of_its_start(bench):
    release = asyncio.Event()

    async def wait(work):
        await release.wait()

    ids = [bench.start("test:it", function=wait), bench.start("test:it"), bench.start("test:it")]
    expected = [
        {"id": int(message_id, 16), "message_id": message_id, "directive": "test:it", "sender": "ctl"}
        for message_id in ids
    ]
    assert bench.runner.active() == expected
    bench.runner.cancel(ids[1])
    await bench.end(ids[1])
    assert bench.runner.active() == [expected[0], expected[2]]
    release.set()
    await bench.end(ids[2])
    assert bench.runner.active() == []


@every_kind
async def test_work_that_failed_is_forgotten_at_once(bench, kind, caplog, eventually):
    class Value:
        pass

    def fail():
        value = Value()  # held by the traceback
        references.append(weakref.ref(value))
        raise ValueError("with a traceback")

    async def as_coroutine(work):
        fail()

    def as_function(work):
        fail()

    async def as_async_generator(work):
        yield fail()

    def as_generator(work):
        yield fail()

    failing = dict(zip(KINDS, [as_coroutine, as_function, as_async_generator, as_generator], strict=True))
    references = []
    caplog.set_level(logging.CRITICAL, "zmesh.serving.runner")  # a record that is kept would keep the exception
    gc.disable()
    try:
        assert (await bench.call("test:it", function=failing[kind])).reason == "remote"
        await eventually(lambda: references[0]() is None)
    finally:
        gc.enable()


async def test_a_thousand_requests_of_every_kind_each_end_once(benches):
    bench = benches(max_work=2000)
    for kind in KINDS:
        bench.directives.register(f"test:{kind.__name__}", kind)
    ids = [bench.start(f"test:{KINDS[number % 4].__name__}", b"%d" % number) for number in range(1000)]
    for number in range(0, 1000, 7):
        bench.runner.cancel(ids[number])
    for number, message_id in enumerate(ids):
        exchange = await bench.end(message_id)
        if exchange.reason is None:
            assert exchange.replies == [(b"%d" % number)[::-1]]
        else:
            assert exchange.reason == "cancelled"
