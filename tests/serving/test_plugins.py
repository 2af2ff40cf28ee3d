import asyncio
import gc
import hashlib
import json
import sys

import pytest

from zmesh.errors import ConfigError
from zmesh.payloads.buffered import BufferedPayload
from zmesh.payloads.payload import CHUNK
from zmesh.payloads.streamed import StreamedPayload

POINTS = [*(f"{name} = zmesh.plugins.{name}" for name in ("echo", "sleep", "digest")), "http = zmesh.plugins.http:Http"]


@pytest.fixture
def nodes(benches, install):
    """Makes nodes that have the built-in plugins, with these settings."""
    install("built-in", {}, {"zmesh.plugins": POINTS})

    async def make(**tables):
        bench = benches()
        bench.directives.discover()
        bench.directives.configure(tables)
        await bench.directives.start(5.0)
        return bench

    return make


@pytest.fixture
async def node(nodes):
    return await nodes()


def test_the_built_in_directives_are_there(node):
    names = {"echo:echo", "echo:stream", "sleep:execute", "digest:sha256", "http:execute"}
    assert names <= set(node.directives.capabilities())


# --- echo, digest, sleep ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 1000])
async def test_echo_sends_the_payload_back(node, content):
    assert (await node.call("echo:echo", content)).replies == [content]


async def test_echo_sends_a_large_payload_back_from_its_file(node, tmp_path):
    payload = BufferedPayload(spool_dir=str(tmp_path))
    for number in range(200):
        payload.feed(bytes([number]) * CHUNK)
    payload.finish()
    exchange = await node.call("echo:echo", payload)
    assert exchange.replies == [b"".join(bytes([number]) * CHUNK for number in range(200))]


async def test_digest_hashes_what_streams_in(node):
    assert node.runner.wants_stream("digest:sha256")
    payload = StreamedPayload()
    message_id = node.start("digest:sha256", payload)
    expected = hashlib.sha256()
    for number in range(100):
        chunk = bytes([number]) * 1000
        expected.update(chunk)
        payload.feed(chunk)
        await asyncio.sleep(0)
    payload.finish()
    assert (await node.end(message_id)).replies == [expected.hexdigest().encode()]


async def test_digest_takes_a_complete_payload_too(node):
    assert (await node.call("digest:sha256")).replies == [hashlib.sha256(b"").hexdigest().encode()]


@pytest.mark.parametrize("payload", [b"0.001", b" 0.001\n", b'{"seconds": 0.001}'])
async def test_sleep_replies_when_it_has_slept(node, payload):
    assert (await node.call("sleep:execute", payload)).replies == [b'{"seconds":0.001}']


async def test_sleep_is_listed_meanwhile_and_can_be_cancelled(node):
    message_id = node.start("sleep:execute", b"600")
    await asyncio.sleep(0)
    assert [work["directive"] for work in node.runner.active()] == ["sleep:execute"]
    node.runner.cancel(message_id)
    assert (await node.end(message_id)).reason == "cancelled"


@pytest.mark.parametrize("payload", [b"", b"soon", b"-1", b"NaN", b"Infinity", b"true", b"[]", b"{}", b'"1"', b"\xff"])
async def test_sleep_refuses_what_is_no_time(node, payload):
    exchange = await node.call("sleep:execute", payload)
    assert exchange.error.startswith("ValueError: sleep:execute takes seconds")


# --- http ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def server():
    """A web server on loopback; `urls["name"]` starts with its address."""
    web = pytest.importorskip("aiohttp.web")

    async def show(request):
        connections.add(request.transport)
        headers = {name: request.headers[name] for name in request.headers if name.startswith("X-")}
        cookies = dict(request.cookies)
        body = (await request.read()).decode()
        answer = {"method": request.method, "headers": headers, "body": body, "cookies": cookies}
        response = web.json_response(answer, status=int(request.query.get("status", 200)))
        response.set_cookie("session", "secret")
        return response

    async def drip(request):
        response = web.StreamResponse(headers={"X-Kind": "drip"})
        await response.prepare(request)
        try:
            for _ in range(3):
                await response.write(b"drop")
                await go_on.get()
        finally:
            state["left"] = True
        return response

    async def redirect(request):
        raise web.HTTPFound("/show")

    async def large(request):
        return web.Response(body=b"x" * 1_000_000)

    connections, state = set(), {"left": False}
    go_on = asyncio.Queue()
    app = web.Application()
    app.router.add_route("*", "/show", show)
    app.router.add_get("/drip", drip)
    app.router.add_get("/redirect", redirect)
    app.router.add_get("/large", large)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield type(
        "Server", (), {"url": f"http://127.0.0.1:{port}", "connections": connections, "state": state, "go": go_on}
    )
    await runner.cleanup()
    gc.collect()


def asking(url, **more):
    return json.dumps({"url": url, **more}).encode()


async def test_http_replies_with_the_head_and_then_the_body(node, server):
    exchange = await node.call("http:execute", asking(f"{server.url}/show"))
    head, *body = exchange.replies
    head = json.loads(head)
    assert (head["status"], head["reason"], head["url"]) == (200, "OK", f"{server.url}/show")
    assert head["headers"]["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(b"".join(body))["method"] == "GET"
    assert exchange.reason is None


async def test_http_sends_method_headers_and_body(node, server):
    request = asking(f"{server.url}/show", method="post", headers={"X-Test": "\u00e9"}, body="text \u00e9")
    _, *body = (await node.call("http:execute", request)).replies
    answer = json.loads(b"".join(body))
    assert (answer["method"], answer["headers"], answer["body"]) == ("POST", {"X-Test": "\u00e9"}, "text \u00e9")


async def test_http_reports_a_status_of_failure_as_an_answer(node, server):
    head, *_ = (await node.call("http:execute", asking(f"{server.url}/show?status=503"))).replies
    assert json.loads(head)["status"] == 503


async def test_http_follows_redirects_and_tells_where_they_led(node, server):
    head, *_ = (await node.call("http:execute", asking(f"{server.url}/redirect"))).replies
    assert json.loads(head)["url"] == f"{server.url}/show"


async def test_http_passes_the_body_on_as_it_comes_in(node, server, eventually):
    message_id = node.start("http:execute", asking(f"{server.url}/drip"))
    replies = node.sink[message_id].replies
    for count in range(2, 5):
        await eventually(lambda count=count: len(replies) == count)
        server.go.put_nowait(None)
    exchange = await node.end(message_id)
    assert exchange.replies[1:] == [b"drop", b"drop", b"drop"]


async def test_http_splits_a_large_body_into_replies(node, server):
    _, *body = (await node.call("http:execute", asking(f"{server.url}/large"))).replies
    assert b"".join(body) == b"x" * 1_000_000
    assert max(map(len, body)) <= CHUNK


async def test_http_hangs_up_when_it_is_cancelled(node, server, eventually):
    message_id = node.start("http:execute", asking(f"{server.url}/drip"))
    await eventually(lambda: len(node.sink[message_id].replies) == 2)
    node.runner.cancel(message_id)
    assert (await node.end(message_id)).reason == "cancelled"
    await eventually(lambda: server.state["left"])


async def test_http_keeps_its_connection_and_no_cookies(node, server):
    for _ in range(3):
        _, *body = (await node.call("http:execute", asking(f"{server.url}/show"))).replies
        assert json.loads(b"".join(body))["cookies"] == {}
    assert len(server.connections) == 1


async def test_http_goes_on_at_one_node_when_another_one_in_the_program_closes(nodes, server, eventually):
    first, second = await nodes(), await nodes()
    message_id = first.start("http:execute", asking(f"{server.url}/drip"))
    await eventually(lambda: len(first.sink[message_id].replies) == 2)
    await second.runner.close()
    for _ in range(3):
        server.go.put_nowait(None)
    assert (await first.end(message_id)).reason is None
    await first.runner.close()


async def test_http_fails_clearly_where_nobody_answers(node, server):
    exchange = await node.call("http:execute", asking("http://127.0.0.1:1/"))
    assert exchange.reason == "remote"
    assert exchange.error.startswith("ClientConnectorError: ")


async def test_http_gives_a_silent_server_up(nodes, server):
    node = await nodes(http={"read_timeout": 0.05})
    exchange = await node.call("http:execute", asking(f"{server.url}/drip"))
    assert exchange.reason == "remote"
    assert "Timeout" in exchange.error


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "JSONDecodeError"),
        (b"[]", "http:execute takes"),
        (b"{}", "http:execute takes"),
        (asking("http://x/", verb="GET"), "not verb"),
        (asking("http://x/", headers=["X"]), "headers must be"),
        (asking("http://x/", headers={"X": 1}), "headers must be"),
        (asking("http://x/", method=1), "method must be"),
        (asking("http://x/", body={}), "method must be a string, body"),
    ],
)
async def test_http_refuses_what_is_no_request(node, payload, text):
    exchange = await node.call("http:execute", payload)
    assert exchange.reason == "remote"
    assert text in exchange.error


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"read_timeout": "long"}, r"^\[plugins.http\]: read_timeout must be a number, not a string$"),
        ({"connect_timeout": True}, r"^\[plugins.http\]: connect_timeout must be a number, not true or false$"),
        ({"connect_timeout": 0}, r"^\[plugins.http\]: connect_timeout must be a number of seconds above 0$"),
        ({"read_timeuot": 1}, r"no setting is called 'read_timeuot' \(did you mean 'read_timeout'\?\)$"),
    ],
)
def test_http_refuses_settings_that_make_no_sense(node, table, text):
    with pytest.raises(ConfigError, match=text):
        node.directives.configure({"http": table})


async def test_http_has_settings_of_its_own_at_each_node(nodes, server):
    quick, patient = await nodes(http={"read_timeout": 0.05}), await nodes(http={"read_timeout": 60})
    message_id = patient.start("http:execute", asking(f"{server.url}/drip"))
    assert "Timeout" in (await quick.call("http:execute", asking(f"{server.url}/drip"))).error
    for _ in range(6):
        server.go.put_nowait(None)
    assert (await patient.end(message_id)).reason is None


async def test_http_without_its_library_says_how_to_get_it(node, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    exchange = await node.call("http:execute", asking("http://127.0.0.1/"))
    assert exchange.reason == "remote"
    assert exchange.error.endswith("pip install 'zmesh-mq[http]'")
    assert "Error:" not in exchange.error
