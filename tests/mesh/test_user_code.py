"""Whatever user code raises, and wherever a node runs it: it ends its own exchange, and nothing else."""

import asyncio
import contextlib
import gc
import io
import logging
import sys
import time
from collections.abc import Mapping

import pytest

import zmesh
from tests.odd_errors import ODD_ERRORS, raise_each
from tests.waiting import WITHIN
from zmesh.errors import ExchangeError
from zmesh.payloads.payload import Payload
from zmesh.runtime.watchdog import watchdogs
from zmesh.testing import Mesh, eventually
from zmesh.transport import blocked_loop


class User:
    """Two nodes, and the errors that user code raises there one after the other."""

    def __init__(self, mesh):
        self.client, self.server = mesh["client"], mesh["server"]
        self.count = 0

    def register(self, function, **options):
        self.count += 1
        name = f"odd:it{self.count}"
        self.server.register(name, function, **options)
        return name

    async def fails(self, directive, payload=b"", **options):
        """The request ends, in an error that can be read."""
        with pytest.raises(ExchangeError) as failure:
            async with asyncio.timeout(WITHIN):
                async for reply in self.client.stream("server", directive, payload, **options).send():
                    async for _ in reply.payload:
                        pass
        assert str(failure.value)
        assert not isinstance(failure.value, zmesh.TimedOut)
        return failure.value


# --- directives -----------------------------------------------------------------------------------------------------


async def async_directive(user, make):
    async def directive(work):
        raise make()

    await user.fails(user.register(directive))


async def async_directive_that_waits(user, make):
    async def directive(work):
        await asyncio.sleep(0)
        raise make()

    await user.fails(user.register(directive))


async def async_generator(user, make):
    async def directive(work):
        yield b"first"
        raise make()

    await user.fails(user.register(directive))


async def end_of_async_generator(user, make):
    async def directive(work):
        try:
            yield object()
        finally:
            raise make()

    await user.fails(user.register(directive))


async def thread(user, make):
    def directive(work):
        raise make()

    await user.fails(user.register(directive))


async def generator_in_a_thread(user, make):
    def directive(work):
        yield b"first"
        raise make()

    await user.fails(user.register(directive))


async def streaming_directive(user, make):
    async def directive(work):
        async for _ in work.payload:
            raise make()

    await user.fails(user.register(directive, stream=True), iter([b"x"] * 3))


async def legacy_plugin(user, make):
    from zmesh.serving.receptor_plugins import adapt, plugin_export
    from zmesh.serving.shape import Shape

    @plugin_export
    def execute(message, config, results):
        results.put("first")
        raise make()

    name = user.register(lambda work: None)
    entries = user.server.node.directives._entries
    entries[name] = type(entries[name])(name, adapt(execute), Shape.QUEUE, stream=False)
    await user.fails(name)


# --- what a directive gives back ------------------------------------------------------------------------------------


class Unjsonable(Mapping):
    """A mapping that can't be written as JSON."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 1

    def __iter__(self):
        return iter("a")

    def __getitem__(self, key):
        raise self.make()


async def value_whose_json_fails(user, make):
    async def directive(work):
        return Unjsonable(make)

    await user.fails(user.register(directive))


async def yielded_value_whose_json_fails(user, make):
    def directive(work):
        yield Unjsonable(make)

    await user.fails(user.register(directive))


def iterator(make):
    yield b"first"
    raise make()


async def async_iterator(make):
    yield b"first"
    raise make()


class PlainIterator:
    """An iterator that is no generator, whose StopIteration therefore is an ordinary end."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return self

    def __next__(self):
        raise self.make()

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise self.make()


class File(io.RawIOBase):
    """A file that can't be read."""

    def __init__(self, make):
        self.make = make

    def read(self, size=-1):
        raise self.make()


class Unaskable:
    """What raises when it is asked what it is."""

    def __init__(self, make):
        self.make = make

    def __getattr__(self, name):
        raise object.__getattribute__(self, "make")()


async def returned_iterator(user, make):
    async def directive(work):
        return iterator(make)

    await user.fails(user.register(directive))


async def returned_async_iterator(user, make):
    async def directive(work):
        return async_iterator(make)

    await user.fails(user.register(directive))


async def yielded_async_iterator(user, make):
    async def directive(work):
        yield async_iterator(make)

    await user.fails(user.register(directive))


async def returned_file(user, make):
    def directive(work):
        return File(make)

    await user.fails(user.register(directive))


# --- payloads of a client ----------------------------------------------------------------------------------------


async def payload_iterator(user, make):
    await user.fails("echo:echo", iterator(make))


async def payload_async_iterator(user, make):
    await user.fails("echo:echo", async_iterator(make))


async def payload_file(user, make):
    await user.fails("echo:echo", File(make))


async def payload_file_sent_without_waiting(user, make):
    replies = []
    user.client.send(File(make), "server", "echo:echo", replies.append)
    await eventually(lambda: replies and replies[-1].header["eof"])


async def payload_plain_async_iterator(user, make):
    if make is ODD_ERRORS["StopAsyncIteration"]:
        return
    await user.fails("echo:echo", type("OnlyAsync", (), {"__aiter__": lambda self: PlainIterator(make)})())


async def payload_that_raises_when_it_is_looked_at(user, make):
    with pytest.raises(BaseException) as raised:  # noqa: PT011  # whatever it is, the program gets it
        await user.client.request("server", "echo:echo", Unaskable(make))
    assert raised.value


async def payloads_for_many(user, make):
    class Path:
        """A path that is one for as long as the call lasts."""

        asked = 0

        def __fspath__(self):
            self.asked += 1
            if self.asked > 1:
                raise make()
            return __file__

    answers = [answer async for answer in user.client.request_many(["server", "client"], "echo:echo", Path())]
    assert {answer.node for answer in answers} == {"server", "client"}
    assert all(isinstance(answer.error, ExchangeError) for answer in answers)


async def closed_payload_for_many(user, make):
    payload = Payload(b"x")
    answers = user.client.request_many(["server", "client"], "echo:echo", payload)
    payload.close()
    assert [type(answer.error) async for answer in answers] == [ExchangeError] * 2


# --- what hears of things -------------------------------------------------------------------------------------------


async def handler(user, make):
    calls = []

    def handle(message):
        calls.append(message)
        raise make()

    user.client.send(b"x", "server", "echo:echo", handle)
    await eventually(lambda: len(calls) == 2)


async def async_handler(user, make):
    calls = []

    async def handle(message):
        calls.append(message)
        await asyncio.sleep(0)
        raise make()

    user.client.send(b"x", "server", "echo:echo", handle)
    await eventually(lambda: len(calls) == 2)


async def handler_whose_result_raises_when_it_is_looked_at(user, make):
    calls = []

    def handle(message):
        calls.append(message)
        return Unaskable(make)

    user.client.send(b"x", "server", "echo:echo", handle)
    await eventually(lambda: len(calls) == 2)


async def observer(user, make):
    heard = []

    def observe(report):
        heard.append(report)
        raise make()

    observers = user.server.node.observation._observers
    user.server.node.watch(observe)
    leaf = zmesh.Controller(zmesh.Config(node_id="leaf", ephemeral=True, peers=user.server.listening))
    async with leaf:
        await eventually(lambda: any(report.event == "link_up" for report in heard))
        await leaf.request("server", "echo:echo", b"still there")
    observers.clear()


async def destructor(user, make):
    class Dying:
        def __del__(self):
            raise make()

    async def directive(work):
        thing = Dying()
        thing.itself = thing
        return b"fine"

    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        assert (await user.client.request("server", user.register(directive))).text() == "fine"
        gc.collect()
    finally:
        sys.unraisablehook = hook


PLACES = [
    async_directive,
    async_directive_that_waits,
    async_generator,
    end_of_async_generator,
    thread,
    generator_in_a_thread,
    streaming_directive,
    legacy_plugin,
    value_whose_json_fails,
    yielded_value_whose_json_fails,
    returned_iterator,
    returned_async_iterator,
    yielded_async_iterator,
    returned_file,
    payload_iterator,
    payload_async_iterator,
    payload_file,
    payload_file_sent_without_waiting,
    payload_plain_async_iterator,
    payload_that_raises_when_it_is_looked_at,
    payloads_for_many,
    closed_payload_for_many,
    handler,
    async_handler,
    handler_whose_result_raises_when_it_is_looked_at,
    observer,
    destructor,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_what_user_code_raises_ends_its_own_exchange_and_nothing_else(place):
    async with Mesh.chain("client", "server") as mesh:
        user = User(mesh)
        async with mesh["client"].stream("server", "sleep:execute", b"3600") as beside:
            await raise_each(lambda make: place(user, make), mesh["client"])
            assert not beside.ended, "work that had nothing to do with it"


# --- the log --------------------------------------------------------------------------------------------------------


class Raising(logging.Handler):
    """Raises whatever it is given; `logging` passes that on to who logs."""

    def __init__(self, make):
        super().__init__()
        self.make, self.lines = make, []

    def emit(self, record):
        self.lines.append(record.getMessage())
        raise self.make()


def block(watchdog):
    """Keep the loop from going on until its watchdog has noticed that."""
    while not watchdog._reported:
        time.sleep(0.01)


@pytest.mark.parametrize("odd", ["its text raises", "it is no Exception", "a BlockingIOError", "CancelledError"])
async def test_what_a_handler_of_the_log_raises_ends_nothing(odd, monkeypatch, caplog, capsys):
    """Links come and go, work fails and is left behind, and the loop is blocked: all of it is logged."""
    logger = logging.getLogger("zmesh")
    handler = Raising(ODD_ERRORS[odd])
    monkeypatch.setattr(logger, "handlers", [*logger.handlers, handler])
    caplog.set_level(logging.DEBUG, "zmesh")
    monkeypatch.setattr("zmesh.serving.runner.CLOSE_WITHIN", 0.1)
    monkeypatch.setattr(blocked_loop, "BLOCKED_AFTER", 0.1)
    over = asyncio.Event()
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))

    async def stubborn(work):
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    def fails(work):
        raise ValueError("wrong")

    async with Mesh.chain("client", "hub", "server", tcp=True) as mesh:
        client, server = mesh["client"], mesh["server"]
        server.register("odd:fails", fails)
        mesh["hub"].register("odd:stubborn", stubborn)
        with pytest.raises(zmesh.RemoteError, match="wrong"):
            await client.request("server", "odd:fails", timeout=WITHIN)
        watchdog = watchdogs._by_loop[asyncio.get_running_loop()]
        block(watchdog)
        await eventually(lambda: server.node.telemetry.counts["loop_blocked"])
        await eventually(lambda: watchdog._answered)
        client.send(b"x", "hub", "odd:stubborn", expect_response=False)
        await eventually(lambda: len(mesh["hub"].node.serving.runner))
        await mesh.remove("hub")
        over.set()
        await mesh.add("hub", "client")
        server.add_peer(mesh["hub"].listening[0])
        await client.wait_for("server", WITHIN)
        await client.ping_once("server", timeout=WITHIN)
    for said in ("linked", "odd:fails for client failed", "event loop blocked", "is left behind", "link lost"):
        assert any(said in line for line in handler.lines), said
    assert failures == []
    assert "--- Logging error ---" in capsys.readouterr().err
