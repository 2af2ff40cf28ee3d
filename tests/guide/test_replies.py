"""The guide, third part: the replies, their headers, and the handlers that take them."""

import asyncio
import logging
import time

import pytest

import zmesh as receptor
from zmesh.testing import eventually


@pytest.fixture
async def ctl(mesh):
    """A controller whose node `depot` replies in several ways."""
    await mesh.add("depot")
    controller = await mesh.add("ctl", "depot")
    await mesh.settle()
    depot = mesh["depot"]

    async def three(work):
        for part in ("one", "two", "three"):
            yield part

    async def fails(work):
        yield "so far so good"
        raise LookupError("no such crate")

    async def silent(work):
        return None

    depot.register("depot:three", three)
    depot.register("depot:fails", fails)
    depot.register("depot:silent", silent)
    return controller


async def replies_of(controller, directive, handler=None, **options):
    """All replies to one request to the depot, taken by a handler of the guide's shape."""
    replies = []

    async def keep(message):
        replies.append(message)

    sent = await controller.send(
        payload="", recipient="depot", directive=directive, response_handler=handler or keep, **options
    )
    await eventually(lambda: replies and replies[-1].header.get("eof", False))
    return sent, replies


# --- headers --------------------------------------------------------------------------------------------------------


async def test_every_reply_names_the_request_and_only_the_last_one_is_the_end(ctl):
    message_id, replies = await replies_of(ctl, "depot:three")
    assert [reply.header.get("in_response_to") for reply in replies] == [message_id] * 4
    assert [reply.header.get("eof", False) for reply in replies] == [False, False, False, True]
    assert [reply.payload.readall() for reply in replies] == [b"one", b"two", b"three", b""]


async def test_a_reply_has_the_header_keys_that_are_promised(ctl):
    before = time.time()
    message_id, (reply, end) = await replies_of(ctl, "zmesh:ping")
    for message in (reply, end):
        header = message.header
        keys = {"message_id", "in_response_to", "sender", "recipient", "timestamp", "serial", "code", "eof"}
        assert keys <= set(header)
        assert (header["sender"], header["recipient"], header["code"]) == ("depot", "ctl", 0)
        assert header["in_response_to"] == message_id
        assert before - 1 <= header["timestamp"] <= time.time() + 1
        assert len(header["message_id"]) == 32
        assert "error" not in header
    assert (reply.header["serial"], end.header["serial"]) == (1, 2)
    assert len({message_id, reply.header["message_id"], end.header["message_id"]}) == 3


async def test_a_request_has_the_header_keys_that_are_promised(ctl, mesh):
    seen = []

    async def look(work):
        seen.append(dict(work.header))

    mesh["depot"].register("depot:look", look)
    message_id, _ = await replies_of(ctl, "depot:look")
    (header,) = seen
    assert header == {
        "message_id": message_id,
        "sender": "ctl",
        "recipient": "depot",
        "timestamp": pytest.approx(time.time(), abs=60),
        "directive": "depot:look",
    }


async def test_serials_count_the_replies(ctl):
    _, replies = await replies_of(ctl, "depot:three")
    assert [reply.header["serial"] for reply in replies] == [1, 2, 3, 4]


# --- the final reply ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directive", ["depot:three", "depot:silent", "depot:fails", "depot:missing"])
async def test_the_final_reply_s_payload_is_empty_and_false_and_can_be_read(ctl, directive):
    _, replies = await replies_of(ctl, directive)
    payload = replies[-1].payload
    assert not payload
    assert len(payload) == 0
    assert payload.readall() == b""
    assert payload.read() == b""
    assert list(payload) == []


async def test_a_directive_that_replies_nothing_sends_the_end_alone(ctl):
    _, replies = await replies_of(ctl, "depot:silent")
    assert [(reply.header["eof"], reply.header["code"]) for reply in replies] == [(True, 0)]


async def test_an_empty_reply_is_not_the_end(ctl, mesh):
    async def empty(work):
        yield b""
        yield ""

    mesh["depot"].register("depot:empty", empty)
    _, replies = await replies_of(ctl, "depot:empty")
    assert [(reply.payload.readall(), reply.header["eof"]) for reply in replies] == [
        (b"", False),
        (b"", False),
        (b"", True),
    ]


@pytest.mark.parametrize(
    ("directive", "texts", "reason", "error"),
    [
        ("depot:fails", [b"so far so good", b""], "remote", "LookupError: no such crate"),
        ("depot:treee", [b""], "unknown_directive", "did you mean 'depot:three'?"),
        ("nowhere:execute", [b""], "unknown_directive", "no directive 'nowhere:execute'"),
    ],
)
async def test_work_that_fails_says_so_in_the_final_reply(ctl, directive, texts, reason, error):
    _, replies = await replies_of(ctl, directive)
    assert [reply.payload.readall() for reply in replies] == texts
    end = replies[-1].header
    assert (end["eof"], end["code"], end["reason"]) == (True, 1, reason)
    assert error in end["error"]


async def test_a_node_that_closes_ends_what_is_under_way(ctl):
    replies = []
    await ctl.send("3600", "depot", "sleep:execute", response_handler=replies.append)
    await ctl.close()
    assert [(reply.header["eof"], reply.header["reason"]) for reply in replies] == [(True, "cancelled")]


# --- handlers -------------------------------------------------------------------------------------------------------


async def test_a_handler_may_be_plain_async_or_any_object_that_can_be_called(ctl):
    taken = []

    class Callable:
        def __call__(self, message):
            taken.append(("object", message.payload.readall()))

        async def method(self, message):
            await asyncio.sleep(0)
            taken.append(("async method", message.payload.readall()))

    def plain(message):
        taken.append(("plain", message.payload.readall()))

    async def asynchronous(message):
        await asyncio.sleep(0)
        taken.append(("async", message.payload.readall()))

    for handler in (plain, asynchronous, Callable(), Callable().method, lambda message: asynchronous(message)):
        await ctl.send("", "depot", "depot:three", response_handler=handler)
    await eventually(lambda: len(taken) == 20)
    in_order = [b"one", b"two", b"three", b""]
    for kind in ("plain", "object", "async method"):
        assert [payload for name, payload in taken if name == kind] == in_order
    assert len([payload for name, payload in taken if name == "async"]) == 8


async def test_an_async_handler_takes_one_reply_after_the_other(ctl):
    inside, taken = [], []

    async def slow(message):
        inside.append(message)
        assert len(inside) == 1
        await asyncio.sleep(0.01)
        taken.append(message.payload.readall())
        inside.remove(message)

    await ctl.send("", "depot", "depot:three", response_handler=slow)
    await eventually(lambda: len(taken) == 4)
    assert taken == [b"one", b"two", b"three", b""]


async def test_a_slow_async_handler_holds_up_nobody_else(ctl):
    """A reply can be awaited while another one's handler still is at it."""
    at_it = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(message):
        at_it.set()
        await go_on.wait()

    await ctl.send("", "depot", "depot:three", response_handler=slow)
    await at_it.wait()
    assert (await ctl.request("depot", "echo:echo", b"by the way")).readall() == b"by the way"
    go_on.set()


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_handler_that_raises_is_logged_and_harms_nothing(ctl, caplog, kind):
    taken, others = [], []

    def plain(message):
        taken.append(message.payload.readall())
        raise ValueError("the handler's own fault")

    async def asynchronous(message):
        await asyncio.sleep(0)
        plain(message)

    with caplog.at_level(logging.ERROR, "zmesh"):
        message_id = await ctl.send(
            "", "depot", "depot:three", response_handler=plain if kind == "plain" else asynchronous
        )
        await ctl.send("", "depot", "depot:three", response_handler=lambda m: others.append(m.payload.readall()))
        await eventually(lambda: len(taken) == 4 and len(others) == 4)
    assert taken == others == [b"one", b"two", b"three", b""], "it gets the replies that follow, too"
    assert len(caplog.records) == 4
    assert all(message_id in record.message and "\nTraceback" in record.message for record in caplog.records)
    assert (await ctl.ping_once("depot")).node == "depot"


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_handler_that_lets_a_cancellation_out_is_logged_and_harms_nothing(depot, caplog, kind):
    """As one does that looks at a task which somebody has cancelled: this says nothing about the handler itself."""
    controller = receptor.Controller(receptor.ReceptorConfig())
    controller.add_peer(depot.url)
    taken = []

    def plain(message):
        taken.append(message.payload.readall())
        raise asyncio.CancelledError

    async def asynchronous(message):
        taken.append(message.payload.readall())
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    async def main():
        handler = plain if kind == "plain" else asynchronous
        controller.send("3", "depot", "depot:count", response_handler=handler)
        assert (await controller.request("depot", "echo:echo", "by the way")).text() == "by the way"

    with caplog.at_level(logging.ERROR, "zmesh"):
        controller.run(main)
    assert taken == [b"0", b"1", b"2", b""]
    assert [record.name for record in caplog.records] == ["zmesh.requests.exchange"] * 4


def test_a_handler_that_raises_does_not_keep_run_from_returning(depot):
    controller = receptor.Controller(receptor.ReceptorConfig())
    controller.add_peer(depot.url)

    def handler(message):
        raise ValueError("the handler's own fault")

    async def main():
        controller.send("first", "depot", "depot:store", response_handler=handler)
        controller.send("second", "depot", "depot:store", response_handler=handler)

    controller.run(main)
    assert sorted(depot.kept(2)) == [b"first", b"second"]


async def test_replies_of_many_requests_reach_the_handler_of_each(ctl):
    taken = {}

    def handler_of(number):
        return lambda message: taken.setdefault(number, []).append(message.payload.readall())

    for number in range(50):
        ctl.send(str(number), "depot", "echo:echo", response_handler=handler_of(number))
    await eventually(lambda: sum(map(len, taken.values())) == 100)
    assert taken == {number: [str(number).encode(), b""] for number in range(50)}


async def test_a_reply_s_payload_reads_like_a_file(ctl):
    replies = []
    text = b"line one\nline two\n"
    await ctl.send(text, "depot", "echo:echo", response_handler=replies.append)
    await eventually(lambda: len(replies) == 2)
    payload = replies[0].payload
    assert payload
    assert payload.read(8) == b"line one"
    assert payload.readall() == text
    assert payload.readall().decode().splitlines() == ["line one", "line two"]
    assert payload.seek(0) == 0
    assert b"".join(payload) == text
