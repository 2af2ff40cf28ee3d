"""Every public call, with arguments that nobody should give it: it raises, or works, and nothing of it is left.

A call raises ValueError, TypeError or a MeshError, which ConfigError and the like are. Whatever it does, the tables of
the node are empty afterwards, and it closes as if nothing had been.
"""

import asyncio
import contextlib
import decimal
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zmesh
import zmesh.sync
from tests.odd_arguments import (
    ALLOWED,
    BAD,
    CONTENT_TYPE,
    DIRECTIVE,
    LONG,
    METADATA,
    NODE,
    ODD,
    PAYLOAD,
    SETTINGS,
    TIMEOUT,
    WITHIN,
    Odd,
    is_short,
    of,
    settled,
)
from zmesh.testing import Mesh

DESCRIBED = {"content_type": CONTENT_TYPE, "metadata": METADATA}
HANDLER = of(None, lambda message: None)
MESSAGE_ID = of("0" * 32, 0, 17)
FUNCTION = of(lambda work: None, lambda: 1)
BOOL = of(True, False)

CALLS = {
    "send": {"payload": PAYLOAD, "recipient": NODE, "directive": DIRECTIVE, "response_handler": HANDLER}
    | {"expect_response": BOOL, "timeout": TIMEOUT}
    | DESCRIBED,
    "ping": {"node": NODE, "response_handler": HANDLER, "expect_response": BOOL, "timeout": TIMEOUT},
    "request": {"node": NODE, "directive": DIRECTIVE, "payload": PAYLOAD, "timeout": TIMEOUT} | DESCRIBED,
    "stream": {"node": NODE, "directive": DIRECTIVE, "payload": PAYLOAD, "timeout": TIMEOUT, "buffered": BOOL}
    | DESCRIBED,
    "request_many": {"nodes": st.one_of(st.lists(NODE, max_size=3), ODD), "directive": DIRECTIVE, "payload": PAYLOAD}
    | {"timeout": TIMEOUT, "limit": of(1, 100)}
    | DESCRIBED,
    "ping_once": {"node": NODE, "timeout": TIMEOUT},
    "cancel": {"message_id": MESSAGE_ID},
    "cancel_at": {"node": NODE, "message_id": MESSAGE_ID, "timeout": TIMEOUT},
    "enable_server": {"listen_urls": st.one_of(st.lists(ODD, max_size=2), ODD)},
    "add_peer": {"peer": ODD},
    "register": {"name": ODD, "function": FUNCTION, "stream": BOOL, "max_memory_bytes": ODD, "max_cpu_seconds": ODD},
    "wait_for": {"node": NODE, "timeout": of(0.05, 0).filter(is_short)},
    "next_hop": {"node": NODE},
    "route": {"node": NODE},
}


GOOD = {
    "payload": b"x",
    "recipient": "far",
    "node": "far",
    "nodes": ["far"],
    "directive": "echo:echo",
    "response_handler": None,
    "expect_response": True,
    "timeout": 0.05,
    "content_type": None,
    "metadata": None,
    "route_timeout": None,
    "buffered": True,
    "limit": 1,
    "message_id": "0" * 32,
    "listen_urls": (),
    "peer": "tcp://127.0.0.1:1",
    "name": "x:y",
    "function": lambda work: None,
    "stream": False,
    "max_memory_bytes": None,
    "max_cpu_seconds": None,
}


@st.composite
def calls(draw, names=tuple(CALLS)):
    name = draw(st.sampled_from(names))
    return name, {argument: draw(values) for argument, values in CALLS[name].items()}


def method(mesh, name):
    if name in ("next_hop", "route"):
        return getattr(mesh.node.router, name)
    return getattr(mesh, name)


async def call(mesh, name, arguments):
    """Make the call, and wait for what it gives."""
    with contextlib.suppress(*ALLOWED):
        outcome = method(mesh, name)(**arguments)
        if hasattr(outcome, "__await__"):
            await outcome
        elif hasattr(outcome, "__aenter__"):
            async with outcome:
                async for _ in outcome:
                    pass
        elif hasattr(outcome, "__aiter__"):
            async for _ in outcome:
                pass


@pytest.mark.parametrize("name", CALLS)
async def test_what_can_not_even_be_compared_is_refused_wherever_it_is_given(name):
    async with Mesh.chain("ctl", "far", route_timeout=0.1) as mesh:
        for argument in CALLS[name]:
            for odd in (Odd(), [Odd()], {"a": Odd()}):
                arguments = {each: GOOD[each] for each in CALLS[name]} | {argument: odd}
                await asyncio.wait_for(call(mesh["ctl"], name, arguments), WITHIN)
        assert await settled(mesh["ctl"]) == {}


@pytest.mark.timeout(300)
async def test_no_argument_of_a_call_does_harm():
    loop = asyncio.get_running_loop()
    async with Mesh.chain("ctl", "far", route_timeout=0.1) as mesh:
        ctl = mesh["ctl"]

        @SETTINGS
        @given(calls())
        def drive(chosen):
            async def example():
                await asyncio.wait_for(call(ctl, *chosen), WITHIN)
                return await settled(ctl)

            assert asyncio.run_coroutine_threadsafe(example(), loop).result() == {}

        await asyncio.to_thread(drive)
        assert (await ctl.request("far", "echo:echo", "unharmed", timeout=WITHIN)).text() == "unharmed"
        await asyncio.wait_for(ctl.close(), WITHIN)


@pytest.mark.timeout(300)
async def test_no_argument_of_a_call_does_harm_without_asyncio():
    async with Mesh("far", tcp=True) as others:
        config = zmesh.Config(node_id="ctl", peers=others["far"].listening, route_timeout=0.1)
        timeouts = {"timeout": of(0.05, 0).filter(is_short)}
        names = [name for name in CALLS if name not in ("next_hop", "route")]

        @SETTINGS
        @given(st.one_of(calls(names), st.tuples(st.just("recv"), st.fixed_dictionaries(timeouts))))
        def drive(chosen):
            name, arguments = chosen
            with contextlib.suppress(*ALLOWED):
                if name == "stream":
                    with mesh.stream(**arguments) as replies:
                        list(replies)
                elif name == "request_many":
                    list(mesh.request_many(**arguments))
                else:
                    method(mesh, name)(**arguments)

        def run():
            nonlocal mesh
            mesh = zmesh.sync.Controller(config)
            with mesh:
                mesh.wait_for("far", WITHIN)
                drive()
                left = asyncio.run_coroutine_threadsafe(settled(mesh._mesh), mesh._mesh.loop).result()
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("zmesh ctl")]
            return left

        mesh = None
        assert await asyncio.to_thread(run) == {}


async def test_no_argument_of_a_call_does_harm_before_the_node_is_open():
    @SETTINGS
    @given(st.lists(calls(), max_size=3))
    def drive(chosen):
        async def example():
            mesh = zmesh.Controller(zmesh.Config(node_id="ctl", route_timeout=0.1))
            for each in chosen:
                await asyncio.wait_for(call(mesh, *each), WITHIN)
            async with asyncio.timeout(WITHIN):
                async with mesh:
                    return await settled(mesh)

        assert asyncio.run(example()) == {}

    await asyncio.to_thread(drive)


SETTING = st.sampled_from([name for name in zmesh.Config.__dataclass_fields__ if not name.startswith("_")])
VALUE = st.one_of(ODD, BAD, st.lists(ODD, max_size=2), st.dictionaries(st.text(max_size=4), ODD, max_size=2))


@SETTINGS
@given(st.dictionaries(SETTING, VALUE, max_size=3))
def test_a_configuration_is_refused_or_opens(values):
    async def open_and_close():
        with contextlib.suppress(*ALLOWED):
            async with asyncio.timeout(WITHIN):
                async with zmesh.Controller(config) as mesh:
                    assert (await mesh.request(mesh.node_id, "echo:echo", "x", timeout=WITHIN)).text() == "x"

    try:
        config = zmesh.Config(**values)
    except zmesh.ConfigError:
        return
    asyncio.run(open_and_close())


@SETTINGS
@given(VALUE, VALUE, st.dictionaries(st.one_of(SETTING, st.text(max_size=5)), VALUE, max_size=2))
def test_a_configuration_is_refused_or_loaded(path, environ, flags):
    with contextlib.suppress(*ALLOWED):
        zmesh.Config.load(path if isinstance(path, (str, bytes, float)) else None, environ, **flags)


@SETTINGS
@given(st.one_of(st.none(), FUNCTION), of("action"), BOOL, BOOL, ODD, ODD)
def test_a_mark_is_refused_or_made(function, name, stream, isolate, memory, seconds):
    options = {"name": name, "stream": stream, "isolate": isolate}
    with contextlib.suppress(*ALLOWED):
        made = zmesh.directive(**options, max_memory_bytes=memory, max_cpu_seconds=seconds)
        made(function)
    with contextlib.suppress(*ALLOWED):
        zmesh.directive(function)


@SETTINGS
@given(PAYLOAD, CONTENT_TYPE, METADATA)
def test_a_response_is_refused_or_made(payload, content_type, metadata):
    with contextlib.suppress(*ALLOWED):
        repr(zmesh.Response(payload, content_type=content_type, metadata=metadata))


@pytest.mark.parametrize("make", [zmesh.Controller, zmesh.sync.Controller])
@SETTINGS
@given(ODD, ODD)
def test_a_controller_is_refused_or_made(make, config, loop):
    with contextlib.suppress(*ALLOWED):
        make(config)
    with contextlib.suppress(*ALLOWED):
        zmesh.Controller(config, loop)


# --- what each refusal says -----------------------------------------------------------------------------------------


def short(value):
    """The name of a case."""
    return f"int of {value.bit_length()} bits" if isinstance(value, int) else repr(value)


@pytest.mark.parametrize("timeout", [math.inf, math.nan, -1, -0.001, 10**30, 10**5000], ids=short)
def test_a_timeout_out_of_its_limits_is_named(timeout):
    mesh = zmesh.Controller(zmesh.Config(node_id="ctl"))
    with pytest.raises(zmesh.ConfigError, match="timeout is from 0 to 1e[+]09 seconds, or None for no limit, not") as e:
        mesh.send("x", "far", "echo:echo", timeout=timeout)
    assert isinstance(e.value, ValueError)
    assert len(mesh.node.requests) == 0


@pytest.mark.parametrize("timeout", ["1", True, [1], 1j, decimal.Decimal(1)])
def test_a_timeout_that_is_no_number_is_a_type_error(timeout):
    mesh = zmesh.Controller(zmesh.Config(node_id="ctl"))
    with pytest.raises(TypeError, match="timeout is a number of seconds or None, not"):
        mesh.send("x", "far", "echo:echo", timeout=timeout)


@pytest.mark.parametrize("directive", ["x:\udcff", "", "a", "a:", ":a", "a:b:c", "a b:c", "a:b\n", f"a:{LONG}"])
def test_a_directive_that_none_can_be_called_is_named_before_anything_is_kept(directive):
    mesh = zmesh.Controller(zmesh.Config(node_id="ctl"))
    with pytest.raises(zmesh.ConfigError, match="is no directive; it must look like namespace:action"):
        mesh.send("x", "far", directive)
    assert len(mesh.node.requests) == 0


@pytest.mark.parametrize("function", [lambda: 1, lambda a, b: 1, lambda *, work: 1, Odd().__eq__.__func__])
def test_a_function_that_can_not_be_called_with_the_work_is_found_when_it_is_registered(function):
    mesh = zmesh.Controller(zmesh.Config(node_id="ctl"))
    with pytest.raises(
        TypeError, match="the directive 'foo:x' is called with one argument, the Work, but its function"
    ):
        mesh.register("foo:x", function)
    assert "foo:x" not in mesh.node.directives.capabilities()
    for right in (lambda work: 1, lambda work, more=None: 1, lambda *works: 1, len):
        mesh.register(f"foo:{id(right)}", right)


@pytest.mark.parametrize("message_id", ["zz", "", "f" * 33, "f" * 31, -1, 1 << 128, 10**5000], ids=short)
async def test_what_is_no_message_id_is_named(message_id):
    async with Mesh("ctl") as mesh:
        with pytest.raises(zmesh.ConfigError, match="is no message id: 32 hex digits"):
            mesh["ctl"].cancel(message_id)
        with pytest.raises(zmesh.ConfigError, match="is no message id: 32 hex digits"):
            await mesh["ctl"].cancel_at("ctl", message_id)
