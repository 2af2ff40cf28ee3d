"""Every error says which node, which limit, and what can be done; programs read the same from its attributes."""

import asyncio
import re

import pytest

import zmesh
from zmesh import errors
from zmesh.testing import Mesh, eventually


@pytest.fixture
async def mesh():
    async with Mesh.chain("ctl", "hub", "far", max_payload_bytes=65_536, max_work=1, route_timeout=0.3) as chain:

        async def fails(work):
            raise ValueError("no good")

        async def stops(work):
            raise zmesh.NotAllowed("not for you; ask for a key")

        async def big(work):
            return bytes(200_000)

        for function in (fails, stops, big):
            chain["far"].register(f"far:{function.__name__}", function)
        yield chain


TOO_LARGE = (
    "the payload is larger than the 65536 bytes that max_payload_bytes allows here; set it higher, or take the payload "
    "as a stream"
)
CASES = {
    "raises": ("far", "far:fails", None, None, zmesh.RemoteError, "node 'far': ValueError: no good"),
    "refuses": ("far", "far:stops", None, None, zmesh.NotAllowed, "node 'far': not for you; ask for a key"),
    "directive": (
        "far",
        "far:fail",
        None,
        None,
        zmesh.UnknownDirective,
        "node 'far': no directive 'far:fail' here (did you mean 'far:fails'?)",
    ),
    "payload": (
        "far",
        "echo:echo",
        bytes(200_000),
        None,
        zmesh.NodeOverloaded,
        f"node 'far': {TOO_LARGE}",
    ),
    "reply": (
        "far",
        "far:big",
        None,
        None,
        zmesh.NodeOverloaded,
        f"a reply of 'far' could not be kept: {TOO_LARGE}",
    ),
    "nobody": (
        "fat",
        "echo:echo",
        None,
        None,
        zmesh.Unreachable,
        (
            "no route to 'fat' after 0.3 s; the request has not left 'ctl'; 'fat' was never known to 'ctl'; "
            "known nodes: far, hub (did you mean 'far'?)"
        ),
    ),
    "late": (
        "far",
        "sleep:execute",
        60,
        3.0,
        zmesh.TimedOut,
        "no final reply from 'far' within 3 s; the request had reached 'far'",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_an_error_tells_which_node_which_limit_and_what_can_be_done(mesh, case):
    node, directive, payload, timeout, kind, text = CASES[case]
    request = mesh["ctl"].stream(node, directive, payload, timeout=timeout).send()
    with pytest.raises(zmesh.MeshError) as raised:
        await request.only_payload()
    error = raised.value
    assert type(error) is kind
    timed = re.compile(r"(after|within) [\d.]+ s;")
    assert timed.sub(r"\1 a while;", str(error)) == timed.sub(r"\1 a while;", text)
    assert (error.code, error.node, error.message_id) == (kind.code, node, request.message_id)


async def test_a_node_that_runs_all_it_may_says_so(mesh):
    running = mesh["ctl"].stream("far", "sleep:execute", 60).send()
    await eventually(lambda: mesh["far"].node.serving.runner.active())
    text = r"node 'far': the node runs 1 requests already \(max_work\); try again later, or set it higher there"
    with pytest.raises(zmesh.Overloaded, match=text) as raised:
        await mesh["ctl"].request("far", "echo:echo")
    assert isinstance(raised.value, zmesh.RemoteError)
    assert raised.value.code == "overloaded"
    await running.cancel()


async def test_a_request_that_is_cancelled_by_hand_or_by_closing_says_where(mesh):
    request = mesh["ctl"].stream("far", "sleep:execute", 60).send()
    await eventually(lambda: mesh["far"].node.serving.runner.active())
    assert str(await request.cancel()) == "node 'far': sleep:execute was cancelled"
    request = mesh["ctl"].stream("far", "sleep:execute", 60).send()
    await eventually(lambda: mesh["far"].node.serving.runner.active())
    await mesh.remove("ctl")
    with pytest.raises(zmesh.Cancelled, match="node 'ctl' was closed before the final reply of 'far' came") as raised:
        await request.only_payload()
    assert raised.value.node == "far"


async def test_a_payload_that_can_not_be_read_says_whose_it_was(mesh):
    def breaks():
        yield b"x"
        raise OSError("the disk is gone")

    with pytest.raises(zmesh.Cancelled, match="the payload for 'far' could not be read: OSError: the disk is gone"):
        await mesh["ctl"].request("far", "digest:sha256", breaks())


async def test_what_is_wrong_before_it_is_sent_is_reported_with_what_would_be_right(mesh):
    ask = mesh["ctl"].request
    with pytest.raises(zmesh.ConfigError, match="'far fails' is no directive; it must look like namespace:action"):
        await ask("far", "far fails")
    with pytest.raises(zmesh.ConfigError, match="'far away' is no node id: 1 to 64 characters") as raised:
        await ask("far away", "far:fails")
    assert (raised.value.code, raised.value.node, raised.value.message_id) == ("config", "far away", None)


async def test_a_closed_node_says_so(mesh):
    node = mesh["ctl"]
    await mesh.remove("ctl")
    with pytest.raises(zmesh.Closed, match="node 'ctl' is closed; open another Controller to send") as raised:
        await node.request("far", "echo:echo")
    assert (raised.value.code, raised.value.node) == ("closed", "ctl")
    assert len(raised.value.message_id) == 32


def kinds(root):
    """The class and those below it that zmesh has, whatever a test of this process has made of its own."""
    yield root
    for kind in root.__subclasses__():
        if kind.__module__.partition(".")[0] == "zmesh":
            yield from kinds(kind)


def test_every_error_has_a_code_of_its_own_and_carries_a_node_and_a_message_id():
    everywhere = {kind for kind in kinds(zmesh.MeshError) if kind.__module__ == errors.__name__}
    shared = (zmesh.NodeOverloaded, zmesh.KeysRefused)  # each has that of its other parent
    codes = [kind.code for kind in everywhere if kind not in shared]
    assert len(codes) == len(set(codes))
    for kind in everywhere:
        error = kind("text", node="far", message_id="0" * 32)
        assert (str(error), error.node, error.message_id) == ("text", "far", "0" * 32)
        assert (kind("text").node, kind("text").message_id) == (None, None)


def test_an_error_of_another_module_is_one_of_those_that_a_program_catches():
    elsewhere = {kind for kind in kinds(zmesh.MeshError) if kind.__module__ != errors.__name__}
    packages = {kind.__module__.rpartition(".")[0] for kind in elsewhere}
    assert packages <= {"zmesh.files", "zmesh.identity", "zmesh.jobs", "zmesh.serving"}
    codes = {kind.code for kind in kinds(zmesh.MeshError) if kind.__module__ == errors.__name__}
    assert {kind.code for kind in elsewhere} <= codes


def test_a_header_and_the_exception_for_it_have_the_same_code():
    for kind in kinds(zmesh.ExchangeError):
        if kind.__module__ == errors.__name__ and kind.code in errors._BY_REASON and "code" in vars(kind):
            error = errors.exchange_error(kind.code, "it broke", node="far", message_id="0" * 32)
            assert (type(error), str(error)) == (kind, "node 'far': it broke")
    unknown = errors.exchange_error("of a later version", "it broke at 'far'", node="far", message_id="0" * 32)
    assert (type(unknown), str(unknown)) == (zmesh.RemoteError, "it broke at 'far'")


async def test_awaiting_what_has_failed_may_be_left_to_a_gathering(mesh):
    outcomes = await asyncio.gather(
        mesh["ctl"].request("far", "far:fails"), mesh["ctl"].request("nobody", "echo:echo"), return_exceptions=True
    )
    assert [outcome.node for outcome in outcomes] == ["far", "nobody"]
