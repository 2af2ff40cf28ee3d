"""The web application: who may read it, what it answers, and how many pages it serves."""

import asyncio
import gc
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.dashboard.fixed_mesh import link, status
from zmesh.dashboard import feed as limits
from zmesh.dashboard.feed import Feed
from zmesh.dashboard.guard import CONTENT_SECURITY_POLICY
from zmesh.dashboard.server import Dashboard
from zmesh.errors import NotAllowed

BASE = "http://127.0.0.1:7380"


@pytest.fixture
def dashboard(fixed_mesh):
    return Dashboard(fixed_mesh)


@asynccontextmanager
async def client_of(dashboard, token=None, **more):
    query = {"token": dashboard.token if token is None else token}
    transport = httpx.ASGITransport(dashboard.app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE, params=query, **more) as client:
        yield client
    await dashboard._pages.queries.close()


@pytest.mark.parametrize("path", ["/", "/api/stream", "/api/nodes/a", "/api/path?from=a&to=b", "/nowhere"])
async def test_without_the_token_nothing_of_the_mesh_is_answered(dashboard, path):
    for wrong in ("", "x", dashboard.token[:-1]):
        async with client_of(dashboard, wrong) as client:
            answer = await client.get(path.partition("?")[0])
            assert answer.status_code == 403
            assert "zmesh dashboard" in answer.text
    assert dashboard.app.refused == 3


async def test_the_token_may_come_in_a_header(dashboard):
    async with client_of(dashboard, "", headers={"Authorization": f"Bearer {dashboard.token}"}) as client:
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7380", "127.0.0.1.evil.example", "", "10.0.0.1", "[::2]"]
)
async def test_a_name_that_was_pointed_here_is_refused_with_the_right_token_too(dashboard, host):
    async with client_of(dashboard, headers={"Host": host}) as client:
        assert (await client.get("/")).status_code == 421
        assert (await client.get("/static/app.js")).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:9000", "[::1]:80"])
async def test_loopback_may_be_called_as_it_is_and_by_any_port(dashboard, host):
    async with client_of(dashboard, headers={"Host": host}) as client:
        assert (await client.get("/")).status_code == 200


async def test_another_page_can_t_ask_and_nothing_can_be_sent(dashboard):
    async with client_of(dashboard) as client:
        assert (await client.get("/api/nodes/a", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
        assert (await client.get("/static/app.js", headers={"Sec-Fetch-Site": "same-site"})).status_code == 403
        assert (await client.post("/")).status_code == 405


async def test_every_answer_forbids_scripts_of_others_frames_and_referrers(dashboard):
    async with client_of(dashboard) as client:
        for path in ("/", "/static/app.js", "/static/vendor/d3.min.js", "/api/nodes/none", "/nowhere"):
            headers = (await client.get(path)).headers
            assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY


async def test_no_path_leads_out_of_the_static_files(dashboard):
    async with client_of(dashboard) as client:
        for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd", "/static/"):
            assert (await client.get(path)).status_code == 404


async def test_the_state_of_a_node_is_answered_with_its_line(dashboard, fixed_mesh):
    model = dashboard.model
    model.take_members(await fixed_mesh.members(), 100.0)
    model.take_status(status("a", links=[link("hub")]), 101.0)
    async with client_of(dashboard) as client:
        answer = (await client.get("/api/nodes/a")).json()
        assert (answer["row"]["id"], answer["status"]["node"], len(answer["lines"])) == ("a", "a", 1)
        assert (await client.get("/api/nodes/zz")).status_code == 404


async def test_where_permission_is_missing_the_answer_says_so(dashboard, fixed_mesh):
    fixed_mesh.errors[("jobs", "a")] = NotAllowed("node 'a' does not let 'hub' call job:list")
    async with client_of(dashboard) as client:
        answer = await client.get("/api/nodes/a/jobs")
    assert answer.status_code == 403
    assert answer.json() == {"error": {"code": "not_allowed", "text": "node 'a' does not let 'hub' call job:list"}}


async def test_an_unreachable_node_and_a_wrong_id_are_errors_in_json(dashboard):
    async with client_of(dashboard) as client:
        assert (await client.get("/api/nodes/a/why", params={"to": "z"})).json()["error"]["code"] == "unreachable"
        assert (await client.get("/api/nodes/a/why", params={"to": "no id!"})).status_code == 400
        assert (await client.get("/api/path", params={"from": "a"})).json()["error"]["text"] == "to is missing"


async def test_the_same_query_of_several_pages_is_sent_once(dashboard, fixed_mesh):
    async with client_of(dashboard) as client:
        await asyncio.gather(*(client.get("/api/nodes/a/events") for _ in range(20)))
    assert fixed_mesh.asked.count(("events", "a")) == 1


async def test_queries_of_nodes_that_do_not_answer_end_and_let_others_through(dashboard, fixed_mesh, monkeypatch):
    monkeypatch.setattr("zmesh.dashboard.queries.QUERY_WITHIN", 2.0)
    fixed_mesh.silent = {"a"}
    async with client_of(dashboard) as client:
        silent = [client.get(f"/api/nodes/a/{part}") for part in ("jobs", "events", "routes")]
        silent += [client.get("/api/path", params={"from": "a", "to": node}) for node in ("b", "c")]
        answers = await asyncio.gather(*silent, client.get("/api/nodes/b/events"))
    assert [each.status_code for each in answers] == [504] * 5 + [200]
    assert answers[0].json() == {"error": {"code": "timed_out", "text": "node 'a' does not answer"}}


async def test_an_error_after_the_page_is_closed_is_not_logged(dashboard, caplog, eventually):
    asked, answer = asyncio.Event(), asyncio.Event()

    async def ask():
        asked.set()
        await answer.wait()
        raise NotAllowed("no")

    queries = dashboard._pages.queries
    page = asyncio.ensure_future(queries.answer(("x",), ask))
    await asked.wait()
    page.cancel()
    answer.set()
    await asyncio.wait([page])
    await eventually(lambda: not queries._open)
    gc.collect()
    assert not caplog.records


# -- the stream ------------------------------------------------------------------------------------------------------


class Page:
    """The other end of a stream of updates: what it was sent; it takes no more while `open` is not set."""

    def __init__(self):
        self.status = None
        self.body = b""
        self.open = asyncio.Event()
        self.open.set()
        self.gone = asyncio.Event()

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await self.open.wait()
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    def updates(self):
        return [json.loads(line[6:]) for line in self.body.decode().split("\n\n") if line]


async def test_a_page_gets_all_at_first_and_then_what_has_changed(dashboard, fixed_mesh, eventually):
    model, feed, page = dashboard.model, dashboard.feed, Page()
    model.take_members(await fixed_mesh.members(), 100.0)
    stream = asyncio.ensure_future(feed({}, page.receive, page.send))
    await eventually(lambda: page.updates())
    model.take_status(status("a"), 101.0)
    feed.update()
    feed.update()
    await eventually(lambda: len(page.updates()) == 2)
    first, second = page.updates()
    assert (first["full"], len(first["nodes"])) == (True, 4)
    assert (second["full"], [each["id"] for each in second["nodes"]]) == (False, ["a"])
    page.gone.set()
    await stream
    assert len(feed) == 0


async def test_a_page_that_takes_nothing_is_dropped_and_counted_and_others_get_on(dashboard, eventually):
    model, feed, stopped, other = dashboard.model, dashboard.feed, Page(), Page()
    stopped.open.clear()
    streams = [asyncio.ensure_future(feed({}, page.receive, page.send)) for page in (stopped, other)]
    await eventually(lambda: other.updates())
    for number in range(limits.QUEUED + 2):
        model.tick(100.0 + number)
        feed.update()
        await eventually(lambda received=number + 2: len(other.updates()) == received)
    await streams[0]
    assert feed.counters == {"open": 1, "opened": 2, "dropped": 1, "refused": 0}
    other.gone.set()
    await streams[1]


async def test_there_are_so_many_pages_at_most(dashboard, eventually):
    feed, pages = dashboard.feed, [Page() for _ in range(limits.MAX_CLIENTS + 1)]
    streams = [asyncio.ensure_future(feed({}, page.receive, page.send)) for page in pages]
    await eventually(lambda: all(page.status for page in pages))
    assert [page.status for page in pages] == [200] * limits.MAX_CLIENTS + [503]
    assert feed.refused == 1
    for page in pages:
        page.gone.set()
    await asyncio.gather(*streams)


async def test_an_update_is_written_once_for_all_pages_and_not_without_a_page():
    class Counting(Feed):
        written = 0

        def _written(self, *since):
            Counting.written += 1
            return super()._written(*since)

    from zmesh.dashboard.model import MeshModel

    model = MeshModel()
    feed = Counting(model)
    model.tick(1.0)
    feed.update()
    assert Counting.written == 0
