"""Jobs over real sockets: submitted, followed, found again from other nodes, and ended."""

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import zmesh
from tests.waiting import WITHIN
from zmesh import JobState, Response, Work
from zmesh.errors import (
    Cancelled,
    CommandFailed,
    ConfigError,
    NodeOverloaded,
    NotAllowed,
    RemoteError,
    TimedOut,
    TooManyReplies,
    UnknownDirective,
)
from zmesh.jobs import processes
from zmesh.jobs.submission import frame_head
from zmesh.testing import Mesh, eventually

EVERYONE = {"job:*": ["*"], "exec:*": ["*"]}


def jobs_in(folder: Path, **settings: Any) -> dict[str, Any]:
    return {"job": {"folder": str(folder), **settings}}


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with Mesh.chain("desk", "mid", allow=EVERYONE) as mesh:
        await mesh.add("edge", "mid", allow=EVERYONE, plugins=jobs_in(tmp_path))
        await mesh.settle()
        register(mesh["edge"])
        yield mesh


def register(node: zmesh.Controller) -> None:
    def plain(work: Work) -> str:
        return work.payload.text().upper()

    def generator(work: Work) -> Iterator[str]:
        yield from work.payload.text().split()

    async def described(work: Work) -> Response:
        return Response({"given": work.payload.value()}, metadata={"by": work.sender, **work.metadata})

    async def fails(work: Work) -> None:
        raise ValueError("no such disk")

    async def large(work: Work) -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 1_000_000

    async def waits(work: Work) -> str:
        await asyncio.Event().wait()
        return ""

    for function in (plain, generator, described, fails, waits):
        node.register(f"test:{function.__name__}", function)
    node.register("test:large", large)
    node.register("test:isolated", isolated, isolate=True)


def isolated(work: Work) -> str:
    return work.payload.text()[::-1]


async def test_the_result_of_a_job_is_that_of_the_directive(mesh: Mesh) -> None:
    desk = mesh["desk"]
    job = await desk.submit("edge", "test:described", {"a": 1}, metadata={"for": "tests"})
    assert job.id.startswith("edge/")
    result = await job.result()
    assert result is not None
    assert result.value() == {"given": {"a": 1}}
    assert result.metadata == {"by": "desk", "for": "tests"}
    assert result.content_type == "application/json"
    status = await job.status()
    assert (status.state, status.owner, status.directive) == (JobState.DONE, "desk", "test:described")
    assert status.started is not None
    assert status.ended is not None
    for directive, payload, wanted in (("test:plain", "abc", "ABC"), ("test:isolated", "abc", "cba")):
        result = await (await desk.submit("edge", directive, payload)).result()
        assert result is not None
        assert result.text() == wanted


async def test_the_replies_of_a_generator_are_kept_in_order(mesh: Mesh) -> None:
    job = await mesh["desk"].submit("edge", "test:generator", "one two three")
    assert [reply.payload.text() async for reply in job.replies()] == ["one", "two", "three"]
    with pytest.raises(TooManyReplies):
        await job.result()
    pieces = [piece async for piece in job.output()]
    assert [(piece.stream, piece.data, piece.offset) for piece in pieces] == [
        ("reply", b"one", 0),
        ("reply", b"two", 3),
        ("reply", b"three", 6),
    ]
    large = await mesh["desk"].submit("edge", "test:large")
    sizes = [len(reply.payload) async for reply in large.replies()]
    assert sizes == [1_000_000] * 5


async def test_a_job_that_fails_raises_what_the_request_would_have(mesh: Mesh) -> None:
    job = await mesh["desk"].submit("edge", "test:fails")
    with pytest.raises(RemoteError, match="no such disk"):
        await job.result()
    status = await job.status()
    assert status.state == JobState.FAILED
    assert "no such disk" in status.reason


async def test_a_command_has_output_in_order_and_an_exit_code(mesh: Mesh) -> None:
    script = "echo out; cat; echo bad >&2; exit 3"
    job = await mesh["desk"].submit("edge", ["sh", "-c", script], b"given\n", env={"A": "b"})
    out = b"".join([piece.data async for piece in job.output() if piece.stream == "stdout"])
    assert out == b"out\ngiven\n"
    assert job.last is not None
    assert (job.last.state, job.last.returncode) == (JobState.FAILED, 3)
    assert job.last.reason == "exited with 3: bad"
    with pytest.raises(CommandFailed) as caught:
        await job.result()
    assert caught.value.returncode == 3
    missing = await mesh["desk"].submit("edge", ["no-such-program"])
    with pytest.raises(CommandFailed, match="there is no program"):
        await missing.result()
    good = await (await mesh["desk"].submit("edge", ["uname", "-s"])).result()
    assert good is not None
    assert good.text() == "Linux\n"


async def test_large_input_reaches_a_command_and_large_output_is_whole(mesh: Mesh) -> None:
    data = bytes(range(256)) * 20_000
    job = await mesh["desk"].submit("edge", ["cat"], data)
    result = await job.result()
    assert result is not None
    assert hashlib.sha256(result.readall()).digest() == hashlib.sha256(data).digest()
    for offset in (0, 1, 262_143, 262_144, 4_000_001, len(data)):
        rest = b"".join([piece.data async for piece in job.output(offset)])
        assert rest == data[offset:]


async def test_output_is_followed_from_the_byte_that_was_there_by_another_node(mesh: Mesh) -> None:
    job = await mesh["desk"].submit("edge", ["sh", "-c", "echo one; sleep 600"])
    async for piece in job.output():
        assert piece.data == b"one\n"
        break
    await mesh.remove("desk")
    await mesh.add("desk", "mid", allow=EVERYONE)
    await mesh.settle()
    again = mesh["desk"].job(job.id)
    follower = asyncio.create_task(_collected(again.output(2)))
    assert (await again.cancel()).state == JobState.CANCELLED
    assert await follower == b"e\n"


async def _collected(pieces: AsyncIterator[zmesh.JobOutput]) -> bytes:
    return b"".join([piece.data async for piece in pieces])


async def test_a_job_is_cancelled_while_it_runs_and_while_it_waits(mesh: Mesh, tmp_path: Path) -> None:
    await mesh.add("small", "mid", allow=EVERYONE, plugins=jobs_in(tmp_path / "small", max_running=1))
    await mesh.settle()
    running = await mesh["desk"].submit("small", ["sleep", "600"])
    waiting = await mesh["desk"].submit("small", ["sleep", "600"])
    async for status in running.watch():
        if status.state == JobState.RUNNING:
            break
    assert (await waiting.status()).state == JobState.QUEUED
    for job in (waiting, running):
        status = await job.cancel()
        assert (status.state, status.reason) == (JobState.CANCELLED, "by 'desk'")
        with pytest.raises(Cancelled):
            await job.result()
    assert (await waiting.cancel()).state == JobState.CANCELLED


async def test_a_time_limit_stops_a_job(mesh: Mesh) -> None:
    job = await mesh["desk"].submit("edge", "test:waits", timeout=0.05)
    with pytest.raises(TimedOut):
        await job.result()
    assert (await job.status()).state == JobState.FAILED


async def test_a_wait_that_is_over_says_how_the_job_stands(mesh: Mesh) -> None:
    job = await mesh["desk"].submit("edge", "test:waits")
    with pytest.raises(TimedOut, match=f"job {job.id} has not ended within 3 s; it goes on, and .* ago it was "):
        await job.wait(3.0)  # in which it has told how it stands
    gone = mesh["desk"].job("gone/0123456789abcdef")
    with pytest.raises(TimedOut, match="node 'gone' has not answered; it goes on if .*; no route to 'gone' after"):
        await gone.wait(0.2)
    await job.cancel()


async def test_a_key_gives_the_same_job_and_refuses_another_content(mesh: Mesh) -> None:
    desk = mesh["desk"]
    first = await desk.submit("edge", "test:plain", "a", key="k")
    again = await desk.submit("edge", "test:plain", "a", key="k")
    assert first.id == again.id
    with pytest.raises(RemoteError, match="the key 'k' is that of job .* another content"):
        await desk.submit("edge", "test:plain", "b", key="k")
    with pytest.raises(RemoteError, match="another content"):
        await desk.submit("edge", "test:plain", "a", key="k", priority=1)
    large = bytes(1_000_000)
    first, again = [await desk.submit("edge", "digest:sha256", large, key="l") for _ in range(2)]
    assert first.id == again.id
    other = await mesh["mid"].submit("edge", "test:plain", "b", key="k")
    assert other.id != first.id
    await first.wait()
    await first.remove()
    assert (await desk.submit("edge", "test:plain", "c", key="l")).id != first.id


async def test_jobs_are_listed_and_removed(mesh: Mesh) -> None:
    desk = mesh["desk"]
    done = [await desk.submit("edge", "test:plain", "a") for _ in range(3)]
    for job in done:
        await job.wait()
    failed = await desk.submit("edge", "test:fails")
    await failed.wait()
    assert [status.id for status in await desk.jobs("edge")] == [failed.id, *(job.id for job in reversed(done))]
    assert [status.id for status in await desk.jobs("edge", states=["failed"])] == [failed.id]
    assert len(await desk.jobs("edge", limit=2)) == 2
    running = await desk.submit("edge", "test:waits")
    with pytest.raises(RemoteError, match="cancel it first"):
        await running.remove()
    await failed.remove()
    with pytest.raises(RemoteError, match=f"no job {failed.id} is kept there; 'zmesh job ls edge'"):
        await failed.status()
    prefix = done[0].id[: len("edge/") + 10]
    assert (await desk.job(prefix).status()).id == done[0].id


async def test_a_node_without_a_folder_says_what_it_needs(mesh: Mesh) -> None:
    with pytest.raises(RemoteError, match=r"node 'mid' keeps no jobs.*zmesh init.*\[jobs\] folder"):
        await mesh["desk"].submit("mid", "echo:echo", "a")


async def test_what_can_not_be_a_job_is_refused_with_a_reason(mesh: Mesh) -> None:
    desk = mesh["desk"]
    with pytest.raises(UnknownDirective, match="test:plain"):
        await desk.submit("edge", "test:plan")
    with pytest.raises(ConfigError, match="can't be a job"):
        await desk.submit("edge", "job:submit")
    with pytest.raises(ConfigError, match="priority"):
        await desk.submit("edge", "test:plain", priority=101)
    with pytest.raises(ConfigError, match="edge-7/3f9a"):
        desk.job("edge")
    with pytest.raises(TypeError, match="command"):
        await desk.submit("edge", "test:plain", cwd="/")
    for payload, text in (
        (b"", "a head"),
        (b"\xff\xff\xff\xff", "longer than"),
        (b"\0\0\0\1x", "not JSON"),
        (b"\0\0\0\2[]", "no table"),
        (frame_head({}), "missing"),
        (frame_head({"number": "1", "directive": "a:b", "title": ""}), "16 hex digits"),
        (frame_head({"numbr": "1"}), "did you mean 'number'"),
    ):
        with pytest.raises(RemoteError, match=text):
            await desk.request("edge", "job:submit", payload)
    for directive, asked, text in (
        ("job:status", {}, "hex digits"),
        ("job:status", {"id": "zzzz"}, "hex digits"),
        ("job:status", {"ide": "abcd"}, "takes no 'ide'"),
        ("job:status", [1], "a table"),
        ("job:list", {"states": ["odd"]}, "queued, running"),
        ("job:list", {"limit": 0}, "limit"),
        ("job:status", {"id": "abcd"}, "no job edge/abcd"),
    ):
        with pytest.raises(RemoteError, match=text):
            await desk.request("edge", directive, asked)


@pytest.mark.parametrize(
    ("directive", "way_out"),
    [
        ("tcp:connect", "'zmesh forward' keeps a port open"),
        ("file:write", "'zmesh cp' goes on where it was broken off"),
        ("job:list", "answers at once"),
        ("job-admin:read", "is a permission"),
        ("zmesh:status", "answers at once"),
    ],
)
async def test_what_needs_its_client_can_not_be_a_job_and_the_way_out_is_named(
    mesh: Mesh, directive: str, way_out: str
) -> None:
    with pytest.raises(ConfigError, match="can't be a job") as refused:
        await mesh["desk"].submit("edge", directive)
    assert way_out in str(refused.value)
    head = {"number": "0" * 16, "directive": directive, "title": directive}  # as a client that does not look
    with pytest.raises(RemoteError, match=f"job:submit: {directive} .*can't be a job"):
        await mesh["desk"].request("edge", "job:submit", frame_head(head))


async def test_a_node_advertises_those_directives_of_jobs_that_it_allows(tmp_path: Path) -> None:
    async with Mesh("a") as mesh:
        allow = {"job:submit": ["a", "b"], "job:list": ["b"]}
        await mesh.add("b", "a", allow=allow, plugins=jobs_in(tmp_path))
        await mesh.settle()
        offered = [name for name in mesh["a"].node.router.node_capabilities()["b"] if name.startswith("job")]
        assert sorted(offered) == ["job:list", "job:submit"]


async def test_jobs_of_others_need_a_permission_and_so_does_what_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zmesh.jobs.audit")
    allow = {"job:*": ["ada", "bob", "ops"], "exec:run": ["ada"], "job-admin:*": ["ops"]}
    async with Mesh.star("edge", "ada", "bob", "ops", "eve", allow=allow, plugins=jobs_in(tmp_path)) as mesh:
        with pytest.raises(NotAllowed, match=r'\[allow\] "job:\*" = \["ada", "bob", "eve", "ops"\]'):
            await mesh["eve"].submit("edge", "echo:echo", "a")
        with pytest.raises(NotAllowed, match="what it runs.*exec:run"):
            await mesh["bob"].submit("edge", ["true"])
        job = await mesh["ada"].submit("edge", ["sleep", "600"])
        theirs = mesh["bob"].job(job.id)
        for refused in (theirs.status(), theirs.cancel(), theirs.remove(), theirs.wait(), _collected(theirs.output())):
            with pytest.raises(NotAllowed, match="is that of 'ada'.*job-admin"):
                await refused
        assert await mesh["bob"].jobs("edge") == []
        with pytest.raises(NotAllowed, match="jobs of 'ada'"):
            await mesh["bob"].jobs("edge", owner="ada")
        assert [each.id for each in await mesh["ops"].jobs("edge", owner="ada")] == [job.id]
        assert (await mesh["ops"].job(job.id).cancel()).reason == "by 'ops'"
        await mesh["ops"].job(job.id).remove()
    lines = [record.getMessage() for record in caplog.records]
    for line in ("ada submits job", "runs: sleep 600", "ops cancels job", "cancelled: by 'ops'", "ops removes job"):
        assert any(line in each for each in lines), lines


async def test_a_permission_that_is_taken_back_ends_at_the_next_start(tmp_path: Path) -> None:
    plugins = jobs_in(tmp_path, max_running=1)
    allow = {"job:*": ["*"], "exec:run": ["ada"]}
    async with Mesh.star("edge", "ada", allow=allow, plugins=plugins) as mesh:
        await mesh["ada"].submit("edge", ["sleep", "600"])
        waits = await mesh["ada"].submit("edge", ["true"], restart="on-restart")
    async with Mesh.star("edge", "ada", allow={"job:*": ["*"], "exec:run": []}, plugins=plugins) as mesh:
        with pytest.raises(NotAllowed, match="does not let 'ada' call exec:run any more"):
            await mesh["ada"].job(waits.id).result()
        assert not (await mesh["ada"].job(waits.id).status()).output_bytes


async def test_limits_of_submitters_and_sizes_are_named(tmp_path: Path) -> None:
    settings = {"max_queued_per_owner": 2, "max_payload_bytes": 100_000, "max_output_bytes": 2048, "max_readers": 1}
    async with Mesh.star("edge", "desk", allow=EVERYONE, plugins=jobs_in(tmp_path, **settings)) as mesh:
        register(mesh["edge"])
        desk = mesh["desk"]
        large = await desk.submit("edge", "test:large")
        with pytest.raises(NodeOverloaded, match=r"\[jobs\] max_output_bytes"):
            await large.result()
        chatty = await desk.submit("edge", ["head", "-c", "10000", "/dev/zero"])
        status = await chatty.wait()
        assert (status.state, status.output_bytes, status.omitted_bytes) == (JobState.DONE, 2048, 7952)
        with pytest.raises(RemoteError, match="7952 bytes"):
            await chatty.result()
        with pytest.raises(NodeOverloaded, match=r"\[jobs\] max_payload_bytes"):
            await desk.submit("edge", "test:plain", bytes(1_000_000))
        jobs = [await desk.submit("edge", "test:waits") for _ in range(2)]
        with pytest.raises(NodeOverloaded, match=r"2 jobs of 'desk'.*\[jobs\] max_queued_per_owner"):
            await desk.submit("edge", "test:waits")
        watching = aiter(jobs[0].watch())
        await anext(watching)
        with pytest.raises(NodeOverloaded, match=r"\[jobs\] max_readers"):
            await jobs[1].wait()
        await watching.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_a_request_that_ends_while_jobs_are_taken_over_leaves_them_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(found: object) -> None:
        begun.set()
        go_on.wait(WITHIN)

    monkeypatch.setattr(processes, "end", slow)
    async with Mesh.star("edge", "desk", allow=EVERYONE, plugins=jobs_in(tmp_path)) as mesh:
        desk, edge = mesh["desk"], mesh["edge"]
        first = asyncio.ensure_future(desk.jobs("edge"))
        await asyncio.to_thread(begun.wait, WITHIN)
        working = list(edge.node.serving.runner._active.values())
        closing = None
        if end == "cancel":
            first.cancel()
        else:
            closing = asyncio.ensure_future(edge.close())
        await eventually(lambda: all(each.reason for each in working))
        go_on.set()
        with contextlib.suppress(Cancelled, asyncio.CancelledError, zmesh.ExchangeError):
            await first
        if closing is None:
            assert await desk.jobs("edge") == []
        else:
            await closing
            await eventually(lambda: "zmesh-jobs" not in [thread.name for thread in threading.enumerate()])


def test_jobs_without_asyncio(tmp_path: Path) -> None:
    settings: Any = {"listen": ["tcp://127.0.0.1:0"], "allow": EVERYONE, "plugins": jobs_in(tmp_path)}
    with zmesh.sync.Controller(node_id="edge", **settings) as edge:
        with zmesh.sync.Controller(node_id="desk", peers=edge.listening) as desk:
            desk.wait_for("edge", 60)
            job = desk.submit("edge", ["sh", "-c", "echo one; echo two"])
            assert b"".join(piece.data for piece in job.output()) == b"one\ntwo\n"
            assert job.wait(60).state == JobState.DONE
            result = desk.job(job.id).result()
            assert result is not None
            assert result.text() == "one\ntwo\n"
            assert [status.id for status in desk.jobs("edge")] == [job.id] == [job.status().id]
            assert [reply.payload.text() for reply in job.replies()] == ["one\ntwo\n"]
            assert list(job.watch())[-1].state == JobState.DONE
            assert job.cancel().state == JobState.DONE
            job.remove()
            assert desk.jobs("edge") == []
