"""The calls that work on machines, copy, leave jobs and show the mesh, with arguments that nobody should give them.

As in `test_public_arguments`: a call raises ValueError, TypeError or a MeshError, or works, and leaves nothing.
"""

import asyncio
import contextlib
import functools
import inspect
import traceback
from asyncio.subprocess import PIPE, STDOUT

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zmesh
import zmesh.sync
from tests.odd_arguments import (
    ALLOWED,
    CONTENT_TYPE,
    METADATA,
    NODE,
    ODD,
    PAYLOAD,
    SETTINGS,
    WITHIN,
    Odd,
    is_short,
    of,
    settled,
)
from zmesh.testing import Mesh

BOOL = of(True, False)
NODES = st.one_of(st.lists(NODE, max_size=3), of("*", "far", "tag:no"))
COMMAND = st.one_of(st.just(["true"]), st.lists(ODD, max_size=2), ODD)
SECONDS = of(0.05, 0).filter(is_short)
ROUTE = {"route_timeout": of(0.05, 0)}
AS = {"env": st.one_of(of(None, {"A": "b"}), METADATA), "cwd": of(None, "/tmp"), "user": of(None, "root")}
RULES = {"max_parallel": of(1), "canary": of(0, 1), "stop_after": of(None, 1, "50%"), "per_node_timeout": of(None, 1)}
PLACE = of("far:/no-such-file", "/no-such-file")
TCP = {"node": NODE, "host": of("127.0.0.1", None), "port": of(1, None), "service": of(None, "db")} | ROUTE

CALLS = {
    "run": {"main": NODE, "command": COMMAND, "stdin": PAYLOAD, "timeout": SECONDS}
    | {"stderr": of(None, PIPE, STDOUT), "terminal": of(None, (24, 80))}
    | AS
    | ROUTE,
    "check_output": {"node": NODE, "command": COMMAND, "stdin": PAYLOAD, "timeout": SECONDS} | AS | ROUTE,
    "run_many": {"nodes": NODES, "command": COMMAND, "timeout": SECONDS} | AS | RULES | ROUTE,
    "copy": {"sources": PLACE, "destination": PLACE, "recursive": BOOL} | ROUTE,
    "copy_many": {"sources": PLACE, "nodes": NODES, "path": of("/no-such-folder/x"), "recursive": BOOL} | RULES | ROUTE,
    "submit": {"node": NODE, "work": st.one_of(of("no:such"), COMMAND), "payload": PAYLOAD, "key": of(None, "k")}
    | {"priority": of(0), "restart": of("never", 3), "timeout": SECONDS}
    | {"content_type": CONTENT_TYPE, "metadata": METADATA}
    | AS
    | ROUTE,
    "job": {"id": of("far/0123456789abcdef")},
    "jobs": {"node": NODE, "owner": of(None, "ctl"), "states": of((), ("done",)), "limit": of(1), "timeout": SECONDS}
    | ROUTE,
    "open_connection": TCP | {"limit": of(65536)},
    "open_socket": TCP,
    "forward": {"listen": of("127.0.0.1:0"), "to": of("far:22"), "max_connections": of(1)} | ROUTE,
    "check_forward": {"to": of("far:22"), "timeout": SECONDS},
    "expose": {"name": of("db"), "port": of(1)},
    "nodes": {"target": of(None, "*", "tag:x"), "tag": of(None, "x")},
    "status": {"node": NODE, "timeout": SECONDS} | ROUTE,
    "settings_of": {"node": NODE, "timeout": SECONDS},
    "doctor": {"node": NODE, "timeout": SECONDS},
    "loads": {"nodes": NODES, "timeout": SECONDS},
    "members": {"at": NODE, "timeout": SECONDS},
    "graph": {"at": NODE, "timeout": SECONDS},
    "ping_many": {"target": NODES, "at": NODE, "timeout": SECONDS},
    "trace": {"node": NODE, "at": NODE, "timeout": SECONDS},
    "why": {"node": NODE, "at": NODE, "timeout": SECONDS},
    "events_of": {"node": NODE, "since": of(None, 0.0), "last": of(1, None), "follow": st.just(False)},
    "watch": {"observer": of(None)},
}
GOOD = {
    "main": "far",
    "node": "far",
    "at": "far",
    "nodes": ["far"],
    "target": "far",
    "command": ["true"],
    "stdin": None,
    "stderr": None,
    "terminal": None,
    "env": None,
    "cwd": None,
    "user": None,
    "timeout": 0.05,
    "route_timeout": 0.05,
    "recursive": False,
    "max_parallel": 1,
    "canary": 0,
    "stop_after": None,
    "per_node_timeout": 1,
    "sources": "/no-such-file",
    "destination": "far:/no-such-folder/x",
    "path": "/no-such-folder/x",
    "work": "no:such",
    "payload": b"x",
    "key": None,
    "priority": 0,
    "restart": "never",
    "content_type": None,
    "metadata": None,
    "owner": None,
    "id": "far/0123456789abcdef",
    "states": (),
    "limit": 65536,
    "host": "127.0.0.1",
    "port": 1,
    "service": None,
    "listen": "127.0.0.1:0",
    "to": "far:22",
    "max_connections": 1,
    "name": "db",
    "tag": None,
    "since": None,
    "last": 1,
    "follow": False,
    "observer": None,
}
"""What may be given: two of the arguments of a call are odd at the most, so that each check is reached."""

WAITS = ("wait", "status", "result", "cancel", "remove")


@st.composite
def calls(draw):
    name = draw(st.sampled_from(tuple(CALLS)))
    odd = draw(st.sets(st.sampled_from(sorted(CALLS[name])), max_size=2))
    chosen = CALLS[name].items()
    return name, {argument: draw(values) if argument in odd else GOOD[argument] for argument, values in chosen}


def bound(method, arguments):
    """The call of a method with these arguments, of which it may take some by position only."""
    parameters = inspect.signature(method).parameters.values()
    first = [each.name for each in parameters if each.kind is inspect.Parameter.POSITIONAL_ONLY]
    rest = {name: value for name, value in arguments.items() if name not in first}
    return functools.partial(method, *(arguments[name] for name in first), **rest)


async def call(mesh, name, arguments):
    """Make the call, and take what it gives, up to its end."""
    with contextlib.suppress(*ALLOWED):
        outcome = bound(getattr(mesh, name), arguments)()
        if hasattr(outcome, "__aenter__"):
            outcome = await outcome.__aenter__()
            await outcome.__aexit__(None, None, None)
        elif hasattr(outcome, "__await__"):
            outcome = await outcome
            if hasattr(outcome, "close"):
                outcome.close()
        elif hasattr(outcome, "__aiter__"):
            async for _ in outcome:
                pass


@pytest.fixture
async def far(tmp_path, monkeypatch):
    """A node that allows what is allowed by default, and a folder of its own for what a call may write."""
    monkeypatch.chdir(tmp_path)
    async with Mesh.chain("ctl", "far", route_timeout=0.1) as mesh:
        yield mesh["ctl"]


def failure_of(name, odd, error):
    """What went wrong, and where, without the text of an argument that may have none."""
    places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{name}, {odd}: {type(error).__name__} at {places[-3:]}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CALLS)
async def test_what_can_not_even_be_compared_is_refused_wherever_it_is_given(name, far):
    failures = set()
    for argument in CALLS[name]:
        for odd in (Odd(), [Odd()], {"a": Odd()}):
            arguments = {each: GOOD[each] for each in CALLS[name]} | {argument: odd}
            try:
                await asyncio.wait_for(call(far, name, arguments), WITHIN)
            except Exception as error:
                failures.add(failure_of(name, argument, error))
    assert failures == set()
    assert await settled(far) == {}


@pytest.mark.timeout(300)
async def test_no_argument_of_a_newer_call_does_harm(far):
    loop = asyncio.get_running_loop()
    failures = set()

    @SETTINGS
    @given(calls())
    def drive(chosen):
        name, arguments = chosen

        async def example():
            try:
                await asyncio.wait_for(call(far, name, arguments), WITHIN)
            except Exception as error:
                odd = [argument for argument, value in arguments.items() if value is not GOOD[argument]]
                failures.add(failure_of(name, odd, error))
            return await settled(far)

        assert asyncio.run_coroutine_threadsafe(example(), loop).result() == {}

    await asyncio.to_thread(drive)
    assert failures == set()
    assert (await far.request("far", "echo:echo", "unharmed", timeout=WITHIN)).text() == "unharmed"


@pytest.mark.timeout(300)
async def test_no_time_limit_of_a_wait_for_a_job_does_harm(far):
    loop = asyncio.get_running_loop()
    job = far.job("nobody/0123456789abcdef")

    @SETTINGS
    @given(st.sampled_from(WAITS), SECONDS)
    def drive(name, timeout):
        async def example():
            with contextlib.suppress(*ALLOWED):
                await asyncio.wait_for(getattr(job, name)(timeout), WITHIN)
            return await settled(far)

        assert asyncio.run_coroutine_threadsafe(example(), loop).result() == {}

    await asyncio.to_thread(drive)
    await asyncio.wait_for(asyncio.sleep(0.01), WITHIN)  # the loop's timers are in order


def test_each_verb_of_a_controller_is_driven_with_odd_arguments():
    from tests.mesh.test_public_arguments import CALLS as OLDER

    takes_none = {"capabilities", "check", "close", "duplicates", "edges", "events", "links", "open", "recv", "routes"}
    takes_none |= {"settings", "stats", "stop", "tags"}
    elsewhere = {
        "directive": "test_a_mark_is_refused_or_made",
        "reload": "tests/mesh/test_reload.py",
        "bundle": "tests/operate/test_bundle.py: it writes where it is told to",
        "create_connection": "as open_connection, but for a factory",
    }
    public = {name for name in dir(zmesh.Controller) if not name.startswith("_")}
    methods = {name for name in public if callable(getattr(zmesh.Controller, name))}
    assert methods - takes_none - elsewhere.keys() <= {*CALLS, *OLDER}
