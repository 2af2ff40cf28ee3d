"""The directives that a node answers itself, and JSON from elsewhere that is made to do harm."""

import asyncio

import pytest

import zmesh
from tests.waiting import WITHIN
from zmesh.errors import ExchangeError, NodeOverloaded, RemoteError
from zmesh.operate.directives import GRAPH, HOP, LOAD, MEMBERS, STATUS, WHY
from zmesh.payloads.payload import Payload
from zmesh.serving.builtins import CANCEL, MAX_LISTED_WORK, PING, ROUTES
from zmesh.serving.incoming import MAX_INLINE_BYTES
from zmesh.testing import Mesh, eventually

BOMBS = {
    "brackets": b"[" * 15_000,
    "braces": b'{"a":' * 3_000,
    "many brackets": b"[" * 60_000,
    "many digits": b"9" * 10_000,
    "digits as an id": b'{"message_id": %s}' % (b"9" * 10_000),
    "a large id": b'{"message_id": 1e999}',
    "lone surrogates": b'{"message_id": "\\ud800", "initial_time": "\\udfff"}',
    "nested as deep as it goes": b'{"message_id": %s, "initial_time": %s}'
    % (b"[" * 900 + b"]" * 900, b"[[" * 450 + b"]]" * 450),
    "no numbers": b'{"initial_time": [NaN, Infinity, -Infinity]}',
    "no UTF-8": b"\xff\xfe\x00",
    "a string": b'"x"',
    "a null": b"null",
    "a whole frame": b" " * 65_536,
    "a large payload": b" " * 300_000,
}


@pytest.mark.parametrize("directive", [PING, CANCEL, ROUTES, STATUS, MEMBERS, GRAPH, LOAD, WHY, HOP])
async def test_a_builtin_answers_whatever_it_is_sent_and_nothing_is_left_of_it(directive):
    async with Mesh.chain("client", "server") as mesh:
        client, serving = mesh["client"], mesh["server"].node.serving
        for what, bomb in BOMBS.items():
            for payload in [bomb, iter([bomb[at : at + 10_000] for at in range(0, len(bomb), 10_000)])]:
                async with asyncio.timeout(WITHIN):
                    error = await outcome(client, directive, payload)
                assert not isinstance(error, zmesh.TimedOut), what
                if len(bomb) > MAX_INLINE_BYTES:
                    assert isinstance(error, NodeOverloaded), what
                    assert f"{directive} takes a payload of {MAX_INLINE_BYTES} bytes at most" in str(error)
        await eventually(lambda: not len(serving))
        assert (await client.ping_once("server", timeout=WITHIN)).node == "server"


async def outcome(client, directive, payload):
    """The error that a request ends in, None if it succeeds."""
    try:
        await client.request("server", directive, payload, timeout=WITHIN)
    except ExchangeError as error:
        return error
    return None


ANSWERS = [b"[" * 60_000, b"9" * 10_000, b"[]", b"7", b"null", b'"x"', b"", b"\xff", b'{"active_work": 1e999']


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: repr(answer[:20]))
async def test_an_answer_of_another_node_that_makes_no_sense_is_a_remote_error(answer):
    async with Mesh.chain("client", "server") as mesh:
        for directive in [PING, CANCEL]:
            mesh["server"].node.serving.builtins.pop(directive)  # as a node that is no zmesh would
            mesh["server"].register(directive, lambda work: answer)
        with pytest.raises(RemoteError, match="node 'server' answers a ping with something else"):
            await mesh["client"].ping_once("server", timeout=WITHIN)
        with pytest.raises(RemoteError, match="node 'server' answers a cancel with something else"):
            await mesh["client"].cancel_at("server", "0" * 32, timeout=WITHIN)


async def test_a_ping_whose_list_of_work_is_none_lists_none():
    async with Mesh.chain("client", "server") as mesh:
        mesh["server"].node.serving.add_builtin(PING, lambda work: {"active_work": {"a": 1}})
        assert (await mesh["client"].ping_once("server", timeout=WITHIN)).active_work == ()


async def test_a_builtin_that_fails_later_is_answered():
    async with Mesh.chain("client", "server") as mesh:
        later = asyncio.get_running_loop().create_future()
        mesh["server"].node.serving.add_builtin(PING, lambda work: later)
        request = mesh["client"].stream("server", PING).send()
        await eventually(lambda: len(mesh["server"].node.serving))
        later.set_exception(KeyError("gone"))
        with pytest.raises(RemoteError, match="KeyError: 'gone'"):
            await request.only_payload()


@pytest.mark.parametrize("text", [b"[" * 60_000, b'{"a":' * 50_000, b"9" * 10_000, b"\xff"])
def test_json_that_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        Payload(text).json()


async def test_a_frame_that_a_node_fails_to_take_in_ends_its_exchange_only(monkeypatch):
    async with Mesh.chain("client", "server") as mesh:
        client = mesh["client"]
        monkeypatch.setattr("zmesh.serving.incoming.IncomingRequest._start", lambda *_: 1 / 0)
        with pytest.raises(RemoteError, match="node 'server' failed to take it in: ZeroDivisionError"):
            await client.request("server", "echo:echo", b"x", timeout=WITHIN)
        monkeypatch.undo()
        assert (await client.request("server", "echo:echo", b"x", timeout=WITHIN)).text() == "x"
        request = client.stream("server", "echo:echo", b"x", timeout=WITHIN).send()
        monkeypatch.setattr("zmesh.requests.exchange.Exchange._reply", lambda *_: 1 / 0)
        with pytest.raises(RemoteError, match="node 'client' failed to take it in: ZeroDivisionError"):
            await request.only_payload()
        monkeypatch.undo()
        assert (await client.request("server", "echo:echo", b"x", timeout=WITHIN)).text() == "x"


async def test_a_ping_lists_at_most_so_many_requests_and_counts_the_others():
    async with Mesh.chain("client", "server") as mesh:
        client, server = mesh["client"], mesh["server"]
        release = asyncio.Event()

        async def waits(work):
            await release.wait()

        async def ping():
            return (await client.request("server", PING, timeout=WITHIN)).json()

        server.register("server:waits", waits)
        requests = [client.stream("server", "server:waits", b"").send() for _ in range(MAX_LISTED_WORK)]
        await eventually(lambda: len(server.node.serving.runner) == MAX_LISTED_WORK)
        answer = await ping()
        assert len(answer["active_work"]) == MAX_LISTED_WORK
        assert "active_work_omitted" not in answer
        requests.append(client.stream("server", "server:waits", b"").send())
        await eventually(lambda: len(server.node.serving.runner) == MAX_LISTED_WORK + 1)
        answer = await ping()
        assert [work["message_id"] for work in answer["active_work"]] == [
            request.message_id for request in requests[:MAX_LISTED_WORK]
        ]
        assert answer["active_work_omitted"] == 1
        release.set()
        for request in requests:
            await request.only_payload()


async def test_a_reply_to_a_client_that_is_gone_is_dropped_and_counted():
    async with Mesh.chain("client", "server") as mesh:
        server = mesh["server"]
        cancelled, release = asyncio.Event(), asyncio.Event()

        async def ignores_its_cancellation(work):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                await release.wait()
            yield b"late"

        server.register("server:late", ignores_its_cancellation)
        mesh["client"].stream("server", "server:late", b"").send()
        await eventually(lambda: len(server.node.serving.runner))
        await mesh.remove("client")
        await mesh.add("client", "server")  # another incarnation, which ends the exchanges of the former one
        await mesh["client"].ping_once("server", timeout=WITHIN)
        async with asyncio.timeout(WITHIN):
            await cancelled.wait()
        release.set()
        await eventually(lambda: not len(server.node.serving))
        counts = server.node.telemetry.counts
        assert sum(count for key, count in counts.items() if key.startswith("reply_dropped")) == 1, counts
