"""One command at many nodes: outcomes, canaries, an end after so many failures, and stopping."""

import asyncio
import re
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack

import pytest

import zmesh
import zmesh.sync
from zmesh import State
from zmesh.testing import Mesh, eventually
from zmesh.testing.process import Process

ALLOW = {"exec:*": ["*"]}
NAMES = ("a", "b", "c", "d")


@pytest.fixture
async def mesh():
    async with Mesh.chain(*NAMES, allow=ALLOW) as nodes:
        desk = nodes["a"]
        await eventually(lambda: len(desk.capabilities()) == len(NAMES))
        yield desk


async def outcomes_of(outcomes):
    return {outcome.node: outcome async for outcome in outcomes}


async def test_each_node_has_an_outcome(mesh):
    found = await outcomes_of(mesh.run_many("*", ["sh", "-c", "echo out; echo err >&2"]))
    assert found.keys() == set(NAMES)
    assert all((each.state, each.returncode) == (State.DONE, 0) for each in found.values())
    assert all((each.stdout, each.stderr, each.error) == (b"out\n", b"err\n", None) for each in found.values())


async def test_what_goes_wrong_at_a_node_is_in_its_outcome(mesh):
    found = await outcomes_of(mesh.run_many(["b", "dead"], ["sh", "-c", "echo no >&2; exit 3"], route_timeout=0.2))
    assert (found["b"].state, found["b"].returncode, found["b"].stderr) == (State.FAILED, 3, b"no\n")
    assert str(found["b"].error) == "node 'b': 'sh' exited with 3: no"
    assert (found["dead"].state, found["dead"].returncode) == (State.UNREACHABLE, None)
    assert isinstance(found["dead"].error, zmesh.Unreachable)
    (one,) = (await outcomes_of(mesh.run_many(["b"], ["no-such-program"]))).values()
    assert (one.state, one.returncode) == (State.FAILED, 127)


@pytest.mark.parametrize("options", [{"per_node_timeout": 0.2}, {"timeout": 0.2}])
async def test_a_node_that_takes_too_long_has_timed_out(mesh, options):
    (one,) = (await outcomes_of(mesh.run_many(["b"], ["sleep", "600"], **options))).values()
    assert one.state == State.TIMED_OUT
    assert isinstance(one.error, zmesh.TimedOut)


@pytest.mark.parametrize(
    ("node", "command", "progress"),
    [
        ("b", ["sleep", "600"], r"it (has not begun|runs as process \d+)"),
        ("dead", ["true"], "it has not begun; no route to 'dead' after .*; the request has not left 'a'; .*"),
    ],
)
async def test_a_node_that_takes_too_long_is_said_to_be_how_far(mesh, node, command, progress):
    (one,) = (await outcomes_of(mesh.run_many([node], command, per_node_timeout=0.5))).values()
    assert re.fullmatch(f"node '{node}': not done within 0.5 s; {progress}", str(one.error))


async def test_so_many_run_at_a_time(mesh):
    outcomes = mesh.run_many(NAMES, ["sleep", "0.05"], max_parallel=2)
    most = 0
    async for _ in outcomes:
        most = max(most, len(outcomes.running))
    assert most <= 2


async def test_the_others_wait_for_the_canaries(mesh):
    outcomes = mesh.run_many(NAMES, ["true"], canary=2)
    first = await anext(outcomes)
    assert first.node in ("a", "b")
    assert set(outcomes.running) <= {"a", "b"}
    assert len(await outcomes_of(outcomes)) == 3


async def test_a_canary_that_goes_wrong_is_the_end(mesh):
    found = await outcomes_of(mesh.run_many(NAMES, ["false"], canary=1))
    assert [found[name].state for name in NAMES] == [State.FAILED, *[State.NOT_STARTED] * 3]


@pytest.mark.parametrize(("stop_after", "started"), [(1, 1), (2, 2), ("2", 2), ("50%", 2), ("1%", 1), (9, 4)])
async def test_no_more_are_started_after_so_many_went_wrong(mesh, stop_after, started):
    found = await outcomes_of(mesh.run_many(NAMES, ["false"], max_parallel=1, stop_after=stop_after))
    assert sum(each.state == State.FAILED for each in found.values()) == started
    assert sum(each.state == State.NOT_STARTED for each in found.values()) == len(NAMES) - started


async def test_unreachable_nodes_count_as_gone_wrong(mesh):
    nodes = ["dead", "b"]
    found = await outcomes_of(mesh.run_many(nodes, ["true"], max_parallel=1, stop_after=1, route_timeout=0.1))
    assert (found["dead"].state, found["b"].state) == (State.UNREACHABLE, State.NOT_STARTED)


async def test_nodes_without_a_route_take_no_place_of_those_that_can_be_reached(mesh):
    dead = [f"dead-{number}" for number in range(20)]
    async with mesh.run_many([*dead, "b", "c"], ["true"], max_parallel=1, route_timeout=600) as outcomes:
        found = [await anext(outcomes) for _ in range(2)]
        assert {each.node: each.state for each in found} == {"b": State.DONE, "c": State.DONE}


@pytest.mark.parametrize("rule", [{"canary": 1}, {"stop_after": 1}])
async def test_a_node_without_a_route_is_waited_for_where_it_decides_about_the_others(mesh, rule):
    async with mesh.run_many(["dead", "b"], ["true"], max_parallel=1, route_timeout=0.5, **rule) as outcomes:
        assert [(each.node, each.state) async for each in outcomes] == [
            ("dead", State.UNREACHABLE),
            ("b", State.NOT_STARTED),
        ]


async def test_a_command_that_runs_keeps_its_place_while_its_node_is_lost():
    async with Mesh("hub", tcp=True, allow=ALLOW) as nodes, AsyncExitStack() as stack:
        hub = nodes["hub"]
        edge = await Process.begin("edge", peers=hub.listening, allow=ALLOW)
        stack.callback(edge.process.communicate)
        stack.callback(edge.process.kill)
        await hub.wait_for("edge")
        begun = asyncio.Event()

        async def on_output(node, stream, data):
            begun.set()

        async with hub.run_many(
            ["edge", "hub"],
            ["sh", "-c", "echo; exec sleep 600"],
            max_parallel=1,
            route_timeout=600,
            on_output=on_output,
        ) as outcomes:
            collecting = asyncio.create_task(anext(outcomes))
            await begun.wait()
            edge.process.kill()
            await eventually(lambda: hub.nodes() == ["hub"])
            outcomes._fill()
            assert outcomes.running == ["edge"]
            collecting.cancel()
            await asyncio.wait((collecting,))


async def test_a_node_may_be_given_up_while_it_waits_for_a_route_and_only_then(mesh):
    async with mesh.run_many(["dead", "b"], ["sleep", "600"], route_timeout=600) as outcomes:
        collecting = asyncio.create_task(anext(outcomes))
        await eventually(lambda: set(outcomes.running) == {"dead", "b"})
        outcomes.give_up("dead", "it is off")
        outcome = await collecting
        assert (outcome.node, outcome.state, str(outcome.error)) == ("dead", State.UNREACHABLE, "it is off")
        await eventually(lambda: outcomes.last_line("b") == "")
        outcomes.give_up("b", "it runs there")
        outcomes.give_up("none", "it is not meant")
        outcomes.stop()
        assert (await anext(outcomes)).state == State.STOPPED


async def test_stopping_ends_what_runs_and_starts_no_more(mesh):
    outcomes = mesh.run_many(NAMES, ["sleep", "600"], max_parallel=2)
    collecting = asyncio.create_task(outcomes_of(outcomes))
    await eventually(lambda: len(outcomes.running) == 2)
    await mesh.request("b", "echo:echo", b"x")
    outcomes.stop()
    found = await collecting
    assert [found[name].state for name in NAMES] == [State.STOPPED] * 2 + [State.NOT_STARTED] * 2


async def test_the_last_line_so_far_is_there_while_it_runs(mesh):
    outcomes = mesh.run_many(["b"], ["sh", "-c", "echo one; echo two; exec sleep 600"])
    assert outcomes.last_line("b") == ""
    collecting = asyncio.create_task(outcomes_of(outcomes))
    await eventually(lambda: outcomes.last_line("b") == "two")
    outcomes.stop()
    assert (await collecting)["b"].stdout == b"one\ntwo\n"
    assert outcomes.last_line("b") == ""


async def test_leaving_the_block_stops_what_runs(mesh):
    async with mesh.run_many(NAMES, ["sleep", "600"]) as outcomes:
        collecting = asyncio.create_task(anext(outcomes))
        await eventually(lambda: len(outcomes.running) == 4)
        collecting.cancel()
        await asyncio.wait((collecting,))
    assert outcomes.running == []


async def test_output_may_be_taken_as_it_comes(mesh):
    pieces = []

    async def take(node, stream, data):
        pieces.append((node, stream, data))

    found = await outcomes_of(mesh.run_many(["b", "c"], ["echo", "x"], on_output=take))
    assert sorted(pieces) == [("b", 1, b"x\n"), ("c", 1, b"x\n")]
    assert found["b"].stdout == b""


async def test_output_past_what_an_outcome_holds_stops_the_command(mesh):
    (one,) = (await outcomes_of(mesh.run_many(["b"], ["head", "-c", "20000000", "/dev/zero"]))).values()
    assert (one.state, one.error.code) == (State.FAILED, "overloaded")


async def test_each_node_gets_the_same_input(mesh):
    found = await outcomes_of(mesh.run_many(["b", "c"], ["cat"], stdin=b"given"))
    assert {each.stdout for each in found.values()} == {b"given"}


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"max_parallel": 0}, zmesh.ConfigError, "max_parallel must be"),
        ({"canary": -1}, zmesh.ConfigError, "canary must be"),
        ({"stop_after": "0%"}, zmesh.ConfigError, "stop_after must be"),
        ({"stop_after": "101%"}, zmesh.ConfigError, "stop_after must be"),
        ({"stop_after": "few"}, zmesh.ConfigError, "stop_after must be"),
        ({"stop_after": 0}, zmesh.ConfigError, "stop_after must be"),
        ({"per_node_timeout": 0}, zmesh.ConfigError, "per_node_timeout must be"),
        ({"stdin": PIPE}, ValueError, "can't share stdin=PIPE"),
        ({"stdin": iter([b"x"])}, TypeError, "read once for each"),
    ],
)
async def test_what_is_no_rule_is_refused_at_once(mesh, options, error, said):
    with pytest.raises(error, match=said):
        mesh.run_many(["b"], ["true"], **options)


def test_without_asyncio_commands_run_too():
    with zmesh.sync.Controller(node_id="solo", allow=ALLOW) as mesh:
        done = mesh.run("solo", ["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (done.args[0], done.returncode, done.stdout, done.stderr) == ("sh", 3, b"out\n", b"err\n")
        assert mesh.check_output("solo", ["echo", "x"]) == b"x\n"
        (one,) = mesh.run_many("*", ["echo", "x"])
        assert (one.node, one.state, one.stdout) == ("solo", State.DONE, b"x\n")
        with pytest.raises(zmesh.CommandFailed):
            mesh.run("solo", ["no-such-program"])
