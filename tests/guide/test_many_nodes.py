"""`request_many`: one request to many nodes, the answers as they come, each node's error in its place."""

import asyncio
import gc
from pathlib import Path

import pytest

import zmesh
from tests.waiting import WITHIN
from zmesh.testing import Mesh, eventually


@pytest.fixture
async def mesh():
    """A star: `ctl` in its middle, and nodes that answer, fail, or wait until they are told."""
    async with Mesh.star("ctl", "a", "b", "c", "d") as star:
        star.go_on = asyncio.Event()
        star.ended = []
        star.running = star.most = 0

        async def waits(work):
            star.running += 1
            star.most = max(star.most, star.running)
            try:
                await star.go_on.wait()
            finally:
                star.running -= 1
                star.ended.append(work.header["recipient"])
            return work.header["recipient"]

        async def three(work):
            for number in range(3):
                yield str(number)

        for name in "abcd":
            star[name].register("t:waits", waits)
            star[name].register("t:three", three)
        yield star


async def answers_of(answers):
    return {answer.node: answer async for answer in answers}


async def test_each_node_answers_in_its_own_time(mesh):
    async def slow(work):
        await mesh.go_on.wait()
        return "slow"

    async def quick(work):
        return "quick"

    for name in "abcd":
        mesh[name].register("t:speed", slow if name == "a" else quick)
    order = []
    async for answer in mesh["ctl"].request_many(["a", "b", "c", "d"], "t:speed", timeout=90):
        order.append(answer.node)
        assert answer.error is None
        assert answer.payload.text() == ("slow" if answer.node == "a" else "quick")
        assert len(answer.message_id) == 32
        if len(order) == 3:
            mesh.go_on.set()
    assert sorted(order[:3]) == ["b", "c", "d"]
    assert order[3] == "a"


async def test_each_error_is_in_its_node_s_place(mesh):
    async def fails(work):
        yield "first"
        raise ValueError("then it broke")

    mesh["b"].register("t:mixed", fails)
    mesh["c"].register("t:mixed", lambda work: "fine")
    answers = await answers_of(
        mesh["ctl"].request_many(["a", "b", "c", "nobody"], "t:mixed", timeout=WITHIN, route_timeout=1.0)
    )
    assert answers.keys() == {"a", "b", "c", "nobody"}
    assert (answers["c"].error, answers["c"].payload.text()) == (None, "fine")
    assert isinstance(answers["a"].error, zmesh.UnknownDirective)
    assert isinstance(answers["b"].error, zmesh.RemoteError)
    assert [payload.text() for payload in answers["b"].replies] == ["first"]
    assert isinstance(answers["nobody"].error, zmesh.Unreachable)
    assert answers["nobody"].payload is None
    (late,) = (await answers_of(mesh["ctl"].request_many(["nobody"], "echo:echo", timeout=0.1))).values()
    assert isinstance(late.error, zmesh.TimedOut)
    for name in ("a", "b", "nobody"):
        assert (answers[name].error.node, answers[name].error.message_id) == (name, answers[name].message_id)


async def test_all_replies_of_a_node_are_in_its_answer(mesh):
    answers = await answers_of(mesh["ctl"].request_many(["b", "c"], "t:three"))
    assert [payload.text() for payload in answers["b"].replies] == ["0", "1", "2"]
    assert answers["c"].payload.text() == "0"


async def test_a_node_that_is_named_twice_is_asked_once(mesh):
    seen = []
    async for answer in mesh["ctl"].request_many(["a", "b", "a", "a"], "echo:echo", b"x"):
        seen.append(answer.node)
    assert sorted(seen) == ["a", "b"]


async def test_no_nodes_no_answers(mesh):
    assert await answers_of(mesh["ctl"].request_many([], "echo:echo")) == {}


async def test_no_more_than_the_limit_are_at_work(mesh):
    answers = mesh["ctl"].request_many(["a", "b", "c", "d"], "t:waits", limit=2)
    waiting = asyncio.ensure_future(anext(answers))
    await eventually(lambda: mesh.running == 2)
    mesh.go_on.set()
    first = await waiting
    assert sorted([first.node, *[answer.node async for answer in answers]]) == ["a", "b", "c", "d"]
    assert mesh.most == 2


async def test_who_takes_no_answers_has_no_more_nodes_asked(mesh):
    asked = []
    for name in "abcd":
        mesh[name].register("t:quick", lambda work: asked.append(work.header["recipient"]))
    answers = mesh["ctl"].request_many(["a", "b", "c", "d"], "t:quick", limit=1)
    assert (await anext(answers)).node == "a"
    await eventually(lambda: len(asked) == 2)
    await mesh["ctl"].ping_once("d")
    await mesh["ctl"].ping_once("d")
    assert asked == ["a", "b"]
    assert [answer.node async for answer in answers] == ["b", "c", "d"]


async def test_nothing_is_sent_before_the_first_answer_is_asked_for(mesh):
    answers = mesh["ctl"].request_many(["a"], "t:waits")
    await mesh["ctl"].ping_once("a")
    assert mesh.running == 0
    del answers


async def test_nodes_that_can_not_be_reached_keep_none_of_the_others_waiting(mesh):
    dead = [f"dead-{number}" for number in range(20)]
    answers = mesh["ctl"].request_many([*dead, "a", "b", "c"], "echo:echo", b"x", limit=2, timeout=3600)
    async with answers, asyncio.timeout(WITHIN):
        assert sorted([(await anext(answers)).node for _ in range(3)]) == ["a", "b", "c"]


async def test_a_leaf_learns_that_nodes_can_not_be_reached_and_goes_on_with_the_others(mesh):
    dead = [f"dead-{number}" for number in range(6)]
    await mesh["ctl"].wait_for("a")
    mesh["ctl"].enable_server(["tcp://127.0.0.1:*"])
    config = zmesh.Config(node_id="leaf", peers=[mesh["ctl"].listening[-1]], ephemeral=True)
    async with zmesh.Controller(config) as leaf:
        answers = leaf.request_many([*dead, "a", "b"], "echo:echo", b"x", limit=2, timeout=3600)
        async with answers, asyncio.timeout(WITHIN):
            assert sorted([(await anext(answers)).node for _ in range(2)]) == ["a", "b"]


async def leave(how, answers, three_at_work):
    """Take the first answer, and leave when the other three are at work."""
    if how == "async with":
        async with answers:
            await anext(answers)
            await three_at_work()
    elif how == "aclose":
        await anext(answers)
        await three_at_work()
        await answers.aclose()
    elif how == "cancel":
        task = asyncio.ensure_future(answers_of(answers))
        await three_at_work()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async for _ in answers:
            await three_at_work()
            break


@pytest.mark.parametrize("how", ["break", "cancel", "aclose", "async with"])
async def test_leaving_early_cancels_what_is_open(mesh, how):
    for name in "abc":
        mesh[name].register("t:mixed", mesh[name].node.directives.find("t:waits").run)
    mesh["d"].register("t:mixed", lambda work: "at once")
    answers = mesh["ctl"].request_many(["d", "a", "b", "c"], "t:mixed")
    await leave(how, answers, lambda: eventually(lambda: mesh.running == 3))
    if how in ("aclose", "async with"):
        assert mesh.running == 0, "it is waited for"
    del answers
    gc.collect()
    await eventually(lambda: mesh.running == 0)
    assert sorted(mesh.ended) == ["a", "b", "c"]
    await eventually(lambda: len(mesh["ctl"].node.requests) == 0)


async def test_a_path_is_read_anew_for_each_node(mesh, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(300_000))
    answers = await answers_of(mesh["ctl"].request_many(["a", "b", "c"], "digest:sha256", path))
    assert {answer.error for answer in answers.values()} == {None}
    assert len({answer.payload.text() for answer in answers.values()}) == 1
    answers = await answers_of(mesh["ctl"].request_many(["a", "b"], "echo:echo", {"json": [1, 2]}))
    assert [answer.payload.json() for answer in answers.values()] == [{"json": [1, 2]}] * 2
    received = await mesh["ctl"].request("a", "echo:echo", b"from elsewhere")
    answers = await answers_of(mesh["ctl"].request_many(["a", "b"], "echo:echo", received))
    assert [answer.payload.text() for answer in answers.values()] == ["from elsewhere"] * 2


@pytest.mark.parametrize("kind", ["file", "iterator", "async iterator", "device"])
async def test_a_payload_that_can_be_read_only_once_is_refused(mesh, kind, tmp_path):
    async def pieces():
        yield b""

    (tmp_path / "file").write_bytes(b"x")
    with open(tmp_path / "file", "rb") as file:  # noqa: ASYNC230
        payload = {"file": file, "iterator": iter([b"x"]), "async iterator": pieces()}.get(kind)
        if kind == "device":
            payload = Path("/dev/null")
        with pytest.raises(TypeError, match="once for each"):
            mesh["ctl"].request_many(["a"], "echo:echo", payload)


async def test_what_can_not_be_asked_is_refused_before_anything_is_sent(mesh, tmp_path):
    ask = mesh["ctl"].request_many
    with pytest.raises(zmesh.ConfigError, match="'tag:' is no target"):
        ask("tag:", "echo:echo")
    with pytest.raises(zmesh.ConfigError, match="'no node' is no node id"):
        ask(["a", "no node"], "echo:echo")
    with pytest.raises(zmesh.ConfigError, match="'echo' is no directive"):
        ask(["a"], "echo")
    with pytest.raises(ValueError, match="1 or more, not 0"):
        ask(["a"], "echo:echo", limit=0)
    with pytest.raises(FileNotFoundError):
        ask(["a"], "echo:echo", tmp_path / "missing")


async def test_a_path_that_is_gone_meanwhile_is_an_error_in_its_place(mesh, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"x")
    answers = mesh["ctl"].request_many(["a", "b"], "echo:echo", path, limit=1)
    path.unlink()
    found = await answers_of(answers)
    assert all("could not be read" in str(found[node].error) and node in str(found[node].error) for node in "ab")
    assert {answer.message_id for answer in found.values()} == {""}


async def test_when_too_much_waits_the_others_are_asked_later():
    async with Mesh.star("ctl", "a", max_waiting_bytes=65_536) as mesh:
        dead = [f"dead-{number}" for number in range(40)]
        answers = mesh["ctl"].request_many([*dead, "a"], "echo:echo", bytes(4000), timeout=WITHIN, route_timeout=1.0)
        found = await answers_of(answers)
        assert len(found) == 41
        assert found["a"].error is None
        assert {type(found[node].error) for node in dead} == {zmesh.Unreachable}


async def test_a_controller_that_is_closed_answers_for_all(mesh):
    async with zmesh.Controller(zmesh.Config(node_id="gone")) as gone:
        pass
    answers = await answers_of(gone.request_many(["a", "b"], "echo:echo"))
    assert {type(answer.error) for answer in answers.values()} == {zmesh.Closed}


async def test_two_tasks_do_not_take_the_same_answers(mesh):
    answers = mesh["ctl"].request_many(["a"], "t:waits")
    first = asyncio.ensure_future(anext(answers))
    await eventually(lambda: mesh.running == 1)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(answers)
    mesh.go_on.set()
    assert (await first).node == "a"
