"""What a node refuses because of one of its limits is counted once, under the name of the limit."""

import ast
import asyncio
from pathlib import Path

import pytest

import zmesh
from zmesh import Controller, NodeOverloaded
from zmesh.core.limits import DEFAULT_LIMITS, Rate
from zmesh.operate import event_log, examiner
from zmesh.serving.incoming import MAX_INLINE_BYTES
from zmesh.serving.thread_executor import ThreadExecutor
from zmesh.testing import Mesh, eventually
from zmesh.transport import DialError, DialFailure

WITHIN = 60.0


def overloads(node: Controller) -> dict[str, int]:
    """The counts of refusals of a node, by the name of the limit."""
    counters = node.stats().counters
    return {name.partition(":")[2]: count for name, count in counters.items() if name.startswith("overloaded:")}


async def test_a_limit_of_what_a_node_shows() -> None:
    async with Mesh.chain("a", "b", limits=DEFAULT_LIMITS._replace(shown_rows=Rate(0.0, 1))) as mesh:
        a, b = mesh["a"], mesh["b"]
        await a.status("b", timeout=WITHIN)
        with pytest.raises(NodeOverloaded, match="has shown as much"):
            await a.status("b", timeout=WITHIN)
        assert overloads(b) == {"shown_rows": 1}
        [_ async for _ in a.events_of("b")]
        with pytest.raises(NodeOverloaded, match="has shown as much"):
            [_ async for _ in a.events_of("b")]
        assert overloads(b) == {"shown_rows": 2}


@pytest.mark.parametrize(
    ("setting", "limit"),
    [("MAX_FOLLOWERS", "event_followers"), ("MAX_FOLLOWERS_PER_NODE", "event_followers_per_node")],
)
async def test_followers_of_events(setting: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, setting, 0)
    async with Mesh.chain("a", "b") as mesh:
        with pytest.raises(NodeOverloaded, match="follow 'b' already"):
            await anext(mesh["a"].events_of("b", follow=True))
        assert overloads(mesh["b"]) == {limit: 1}


async def test_requests_that_wait_for_an_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examiner, "MAX_WAITING", 0)
    async with Mesh.chain("a", "b") as mesh:
        with pytest.raises(NodeOverloaded, match="wait for an examination"):
            await mesh["a"].doctor("b", timeout=WITHIN)
        assert overloads(mesh["b"]) == {"examinations": 1}


@pytest.mark.parametrize("size_bytes", [MAX_INLINE_BYTES + 1, 10 * MAX_INLINE_BYTES])
async def test_the_payload_of_a_builtin_directive(size_bytes: int) -> None:
    async with Mesh.chain("a", "b") as mesh:
        with pytest.raises(NodeOverloaded, match="takes a payload of"):
            await mesh["a"].request("b", "zmesh:ping", bytes(size_bytes), timeout=WITHIN)
        assert overloads(mesh["b"]) == {"payload_bytes": 1}


async def test_a_payload_and_work_past_the_settings() -> None:
    async with Mesh.chain("a", "b", max_payload_bytes=65_536, max_work=1) as mesh:
        a, b = mesh["a"], mesh["b"]
        with pytest.raises(NodeOverloaded, match="max_payload_bytes"):
            await a.request("b", "echo:echo", bytes(100_000), timeout=WITHIN)
        assert overloads(b) == {"max_payload_bytes": 1}
        async with a.stream("b", "sleep:execute", "3600"):
            await eventually(lambda: len(b.node.serving))
            with pytest.raises(NodeOverloaded, match="max_work"):
                await a.request("b", "sleep:execute", "0", timeout=WITHIN)
        assert overloads(b) == {"max_payload_bytes": 1, "max_work": 1}


async def test_the_settings_of_jobs(tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path), "max_queued": 2, "max_queued_per_owner": 1, "max_payload_bytes": 1024}
    async with Mesh.star("edge", "ada", "bob", allow={"job:*": ["*"]}, plugins={"job": settings}) as mesh:
        ada, bob, edge = mesh["ada"], mesh["bob"], mesh["edge"]
        with pytest.raises(NodeOverloaded, match=r"\[jobs\] max_payload_bytes"):
            await ada.submit("edge", "echo:echo", bytes(2000))
        assert overloads(edge) == {"jobs_max_payload_bytes": 1}
        await ada.submit("edge", "sleep:execute", "3600")
        with pytest.raises(NodeOverloaded, match=r"1 jobs of 'ada' .*\[jobs\] max_queued_per_owner\); try again"):
            await ada.submit("edge", "sleep:execute", "3600")
        await bob.submit("edge", "sleep:execute", "3600")
        with pytest.raises(NodeOverloaded, match=r"2 jobs .*\[jobs\] max_queued\); try again"):
            await edge.submit("edge", "sleep:execute", "3600")
        assert overloads(edge) == {"jobs_max_payload_bytes": 1, "jobs_max_queued_per_owner": 1, "jobs_max_queued": 1}


async def test_threads_and_descriptors_that_the_system_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def none_left(*_: object) -> None:
        raise DialError(DialFailure.RESOURCES, "too many open files")

    async with Mesh.chain("a", "b", allow={"tcp:*": ["*"]}) as mesh:
        a, b = mesh["a"], mesh["b"]
        b.register("test:plain", lambda work: work.payload)
        monkeypatch.setattr(ThreadExecutor, "submit", exhausted)
        with pytest.raises(NodeOverloaded, match="can start no thread"):
            await a.request("b", "test:plain", timeout=WITHIN)
        assert overloads(b) == {"system_resources": 1}
        monkeypatch.setattr("zmesh.tunnel.dialling.connect_first", none_left)
        with pytest.raises(NodeOverloaded, match="can't connect"):
            await a.open_connection("b", port=1)
        assert overloads(b) == {"system_resources": 2}


async def test_a_limit_of_a_plugin_and_none_of_another_node() -> None:
    async with Mesh.chain("a", "b", "c") as mesh:
        a, b, c = mesh["a"], mesh["b"], mesh["c"]

        async def full(work: zmesh.Work) -> None:
            raise NodeOverloaded("both GPUs are in use", limit="gpus")

        async def asks_another(work: zmesh.Work) -> zmesh.Payload:
            return await b.request("c", "test:full", timeout=WITHIN)

        async def unnamed(work: zmesh.Work) -> None:
            raise NodeOverloaded("come again")

        async def its_own(work: zmesh.Work) -> None:
            raise zmesh.Overloaded("too much waits here", limit="queue")

        c.register("test:full", full)
        b.register("test:asks-another", asks_another)
        b.register("test:unnamed", unnamed)
        b.register("test:its-own", its_own)
        with pytest.raises(NodeOverloaded, match="both GPUs are in use") as refused:
            await a.request("b", "test:asks-another", timeout=WITHIN)
        assert refused.value.limit == ""
        assert overloads(c) == {"gpus": 1}
        with pytest.raises(NodeOverloaded, match="come again"):
            await a.request("b", "test:unnamed", timeout=WITHIN)
        with pytest.raises(zmesh.RemoteError, match="Overloaded: too much waits here") as failed:
            await a.request("b", "test:its-own", timeout=WITHIN)
        assert failed.value.code == "remote"
        assert overloads(b) == {}


async def test_work_that_was_cancelled_counts_as_no_refusal() -> None:
    async with Mesh.chain("a", "b") as mesh:
        a, b = mesh["a"], mesh["b"]

        async def full_when_cancelled(work: zmesh.Work) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                raise NodeOverloaded("no room to clean up", limit="gpus")

        b.register("test:slow", full_when_cancelled)
        async with a.stream("b", "test:slow") as replies:
            await eventually(lambda: len(b.node.serving.runner))
            await replies.cancel()
        await eventually(lambda: not len(b.node.serving.runner))
        assert overloads(b) == {}


def test_every_refusal_of_a_node_names_its_limit() -> None:
    """All of zmesh that refuses another node's request for lack of room gives the name of a limit."""
    calls = [
        (path, node)
        for path in Path(zmesh.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "NodeOverloaded"
    ]
    assert len(calls) > 12
    unnamed = [f"{path}:{call.lineno}" for path, call in calls if "limit" not in {each.arg for each in call.keywords}]
    assert unnamed == []
