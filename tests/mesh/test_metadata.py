"""Content types and metadata, over real sockets: as they were given, on both sides and in every way of sending."""

import asyncio

import pytest

import zmesh
import zmesh.sync
from tests.waiting import WITHIN
from zmesh.testing import Mesh

METADATA = {"trace": "4f2a", "é": "ü", "": ""}


def seen(work):
    """What a directive sees of a request."""
    return [work.payload.content_type, dict(work.metadata), repr(work.payload.value())]


async def seen_async(work):
    return zmesh.Response(seen(work), metadata={**work.metadata, "from": "far"})


def seen_as_stream(work):
    content = b"".join(work.payload)
    yield zmesh.Response(content, content_type=work.payload.content_type, metadata=work.metadata)
    yield {"bytes": len(content)}
    yield None
    yield zmesh.Response(metadata={"last": "one"})


async def chunks():
    yield b"chunk"


@pytest.fixture
async def mesh():
    async with Mesh.chain("ctl", "hub", "far") as mesh:
        mesh["far"].register("seen:plain", seen)
        mesh["far"].register("seen:async", seen_async)
        mesh["far"].register("seen:stream", seen_as_stream, stream=True)
        mesh["far"].register("seen:isolated", seen_async, isolate=True)
        mesh["far"].register("seen:generator", seen_as_stream, isolate=True)
        yield mesh


EVERY_KIND = [
    ({"a": [1, None]}, "application/json"),
    ([1, 2.5, "x", True], "application/json"),
    (7, "application/json"),
    ("text é", "text/plain"),
    ("", "text/plain"),
    (b"\xff\x00", "application/octet-stream"),
    (b"", "application/octet-stream"),
]


@pytest.mark.parametrize("directive", ["echo:echo", "seen:plain", "seen:async", "seen:isolated"])
async def test_a_value_comes_back_as_it_was_sent(mesh, directive):
    for payload, content_type in EVERY_KIND:
        reply = await mesh["ctl"].request("far", directive, payload, metadata=METADATA, timeout=WITHIN)
        if directive == "echo:echo":
            assert reply.metadata == METADATA
            assert (reply.content_type, reply.value()) == (content_type, payload)
            continue
        assert reply.content_type == "application/json"
        assert reply.value() == [content_type, METADATA, repr(payload)]
        assert reply.metadata == ({} if directive == "seen:plain" else {**METADATA, "from": "far"})


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("directive", ["seen:stream", "seen:generator"])
async def test_each_reply_of_a_stream_has_its_own_metadata_and_content_type(mesh, directive, buffered):
    found = []
    stream = mesh["ctl"].stream(
        "far", directive, chunks(), content_type="image/png", metadata=METADATA, buffered=buffered, timeout=WITHIN
    )
    async with stream as replies:
        async for reply in replies:
            content = b"".join([chunk async for chunk in reply.payload])
            assert reply.metadata is reply.payload.metadata
            found.append((content, reply.payload.content_type, dict(reply.metadata)))
        assert dict(replies.final.metadata) == {}
    assert found == [
        (b"chunk", "image/png", METADATA),
        (b'{"bytes":5}', "application/json", {}),
        (b"", "application/octet-stream", {"last": "one"}),
    ]


@pytest.mark.parametrize("directive", ["echo:echo", "seen:isolated"])
async def test_a_content_type_that_zmesh_does_not_know_passes_unchanged(mesh, directive):
    strange = "x-strange/x; a=b"
    reply = await mesh["ctl"].request("far", directive, b"{", content_type=strange, timeout=WITHIN)
    assert reply.value() == (b"{" if directive == "echo:echo" else [strange, {}, "b'{'"])


async def test_a_large_reply_from_a_file_keeps_its_description(mesh, tmp_path):
    file = tmp_path / "image"
    file.write_bytes(b"x" * 300_000)
    mesh["far"].register("get:file", lambda work: zmesh.Response(file, content_type="image/png", metadata=METADATA))
    reply = await mesh["ctl"].request("far", "get:file", timeout=WITHIN)
    assert (len(reply), reply.content_type, reply.metadata) == (300_000, "image/png", METADATA)
    assert len(reply.value()) == 300_000


async def test_metadata_goes_with_every_way_to_send(mesh):
    ctl, got = mesh["ctl"], asyncio.get_running_loop().create_future()

    def handler(message):
        if not message.eof:
            got.set_result(message)

    ctl.send("x", "far", "seen:async", handler, metadata=METADATA)
    message = await asyncio.wait_for(got, WITHIN)
    assert message.metadata == {**METADATA, "from": "far"}
    assert message.payload.value() == ["text/plain", METADATA, "'x'"]
    assert "metadata" not in message.header  # which is as Receptor has it

    ctl.send({"a": 1}, "far", "seen:async", content_type="a/b", metadata=METADATA)
    message = await asyncio.wait_for(ctl.recv(), WITHIN)
    assert message.payload.value() == ["a/b", METADATA, repr(b'{"a":1}')]

    nodes = ["far", "hub"]
    mesh["hub"].register("seen:async", seen_async)
    async for answer in ctl.request_many(nodes, "seen:async", {"a": 1}, metadata=METADATA, timeout=WITHIN):
        assert answer.payload.value() == ["application/json", METADATA, "{'a': 1}"]
        assert answer.payload.metadata == {**METADATA, "from": "far"}


async def test_without_asyncio_it_is_the_same(mesh):
    config = zmesh.Config(node_id="sync", peers=mesh["far"].listening)

    def run():
        with zmesh.sync.Controller(config) as sync:
            sync.wait_for("far", WITHIN)
            reply = sync.request("far", "seen:async", "x", content_type="a/b", metadata=METADATA, timeout=WITHIN)
            assert reply.value() == ["a/b", METADATA, "b'x'"]
            with sync.stream("far", "seen:async", "x", metadata=METADATA, timeout=WITHIN) as replies:
                assert [reply.metadata for reply in replies] == [{**METADATA, "from": "far"}]
            (answer,) = sync.request_many(["far"], "seen:async", [1], metadata=METADATA, timeout=WITHIN)
            assert answer.payload.value() == ["application/json", METADATA, "[1]"]
            sync.send("x", "far", "seen:async", metadata=METADATA, content_type="a/b")
            assert sync.recv(WITHIN).payload.value() == ["a/b", METADATA, "b'x'"]

    await asyncio.to_thread(run)


@pytest.mark.parametrize(
    "options",
    [{"metadata": {"k": "v" * 8192}}, {"metadata": {"k": 1}}, {"content_type": "json"}, {"content_type": 7}],
    ids=str,
)
async def test_what_can_not_be_sent_is_refused_before_anything_is_kept(mesh, options):
    ctl = mesh["ctl"]
    with pytest.raises((TypeError, ValueError)):
        ctl.send("x", "far", "echo:echo", **options)
    with pytest.raises((TypeError, ValueError)):
        ctl.stream("far", "echo:echo", **options)
    with pytest.raises((TypeError, ValueError)):
        ctl.request_many(["far"], "echo:echo", **options)
    with pytest.raises((TypeError, ValueError)):
        await ctl.request("far", "echo:echo", **options)
    assert len(ctl.node.requests) == 0


async def test_malformed_json_is_an_error_at_the_other_node_too(mesh):
    with pytest.raises(zmesh.RemoteError, match="InvalidPayload: the payload came as application/json, but is none"):
        await mesh["ctl"].request("far", "seen:plain", b"{", content_type="application/json", timeout=WITHIN)


async def test_metadata_of_the_most_bytes_arrives(mesh):
    most = {"k": "v" * 8191}
    reply = await mesh["ctl"].request("far", "seen:plain", b"", metadata=most, timeout=WITHIN)
    assert reply.value()[1] == most


async def test_a_directive_whose_metadata_is_too_long_fails_with_the_limit(mesh):
    mesh["far"].register("too:much", lambda work: zmesh.Response(metadata={"k": "v" * 8192}))
    with pytest.raises(zmesh.RemoteError, match="metadata is up to 8192 bytes in all, not 8193"):
        await mesh["ctl"].request("far", "too:much", timeout=WITHIN)


async def test_built_ins_answer_in_json(mesh):
    reply = await mesh["ctl"].request("far", "zmesh:ping", {"initial_time": None}, timeout=WITHIN)
    assert reply.value()["active_work"] == []
