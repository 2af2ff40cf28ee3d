"""The guide: what may be sent as a payload. It arrives as the same bytes, whichever way it is sent."""

import asyncio
import io
import json
import subprocess
import sys
import tempfile
from array import array

import pytest

import zmesh as receptor
from zmesh.testing import Mesh, eventually

LARGE = bytes(range(251)) * 4_000  # about a megabyte: several chunks, and more than the window
TEXT = "zwölf Kisten – двенадцать ящиков"


@pytest.fixture
async def ctl():
    """A controller two links away from the node `depot`, which keeps what it gets."""
    async with Mesh.chain("ctl", "hub", "depot") as mesh:
        controller = mesh["ctl"]
        controller.stored = stored = []

        async def store(work):
            stored.append(work.payload.readall())

        mesh["depot"].register("depot:store", store)
        yield controller


async def arrives_as(ctl, payload):
    """What is stored at the depot when this payload is sent the way of the guide."""
    ends = []
    await ctl.send(payload=payload, recipient="depot", directive="depot:store", response_handler=ends.append)
    await eventually(lambda: ends)
    assert ends[0].header["code"] == 0, ends[0].header
    return ctl.stored.pop()


def pieces():
    yield b"iterated "
    yield b""
    yield bytearray(b"piece ")
    yield memoryview(b"by piece")


async def async_pieces():
    for piece in pieces():
        await asyncio.sleep(0)
        yield piece


class Own:
    """An iterable of a program's own."""

    def __iter__(self):
        return pieces()


class OwnAsync:
    def __aiter__(self):
        return async_pieces()


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        (b"bytes \x00\xff", b"bytes \x00\xff"),
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"a memoryview")[2:], b"memoryview"),
        (TEXT, TEXT.encode()),
        ("", b""),
        (b"", b""),
        (None, b""),
        (LARGE, LARGE),
        (LARGE.hex(), LARGE.hex().encode()),
    ],
    ids=["bytes", "bytearray", "memoryview", "str", "empty str", "empty bytes", "None", "large bytes", "large str"],
)
async def test_bytes_and_text(ctl, payload, content):
    assert await arrives_as(ctl, payload) == content


@pytest.mark.parametrize(
    "payload",
    [
        {"url": "http://depot.example/stock", "method": "GET", "deep": [{"a": None}, True, 1.5, TEXT]},
        {},
        ["a list", 2, [3], {"four": 5}],
        [],
        {"large": "x" * 200_000},
        ("a", "tuple"),
        17,
        2.5,
        True,
    ],
    ids=["dict", "empty dict", "list", "empty list", "large dict", "tuple", "int", "float", "bool"],
)
async def test_a_dict_or_a_list_arrives_as_json(ctl, payload):
    expected = list(payload) if isinstance(payload, tuple) else payload
    assert json.loads(await arrives_as(ctl, payload)) == expected


@pytest.mark.parametrize("content", [b"", b"short", LARGE], ids=["empty", "short", "large"])
async def test_a_path_arrives_as_what_is_in_the_file(ctl, tmp_path, content):
    path = tmp_path / "a file"
    path.write_bytes(content)
    assert await arrives_as(ctl, path) == content
    assert path.read_bytes() == content


async def test_text_is_text_also_when_a_file_is_called_like_that(ctl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "stock.txt"
    path.write_text("what is in the file")
    for name in (str(path), path.name, f"./{path.name}", path.as_uri(), f"@{path.name}"):
        assert await arrives_as(ctl, name) == name.encode()


async def test_a_path_that_is_not_there_is_reported_at_once(ctl, tmp_path):
    with pytest.raises(FileNotFoundError):
        ctl.send(tmp_path / "nothing", "depot", "depot:store")


@pytest.mark.parametrize("content", [b"", b"short", LARGE], ids=["empty", "short", "large"])
async def test_a_file_object_arrives_from_where_it_stands_and_stays_open(ctl, tmp_path, content):
    path = tmp_path / "a file"
    path.write_bytes(b"read before " + content)
    with path.open("rb") as file:
        file.read(12)
        assert await arrives_as(ctl, file) == content
        assert not file.closed
        assert file.tell() == 12 + len(content)


async def test_other_kinds_of_file_objects_arrive_as_well(ctl, tmp_path):
    path = tmp_path / "text"
    path.write_text(TEXT, encoding="utf-8")
    with path.open(encoding="utf-8") as text, path.open("rb", buffering=0) as raw:
        assert await arrives_as(ctl, text) == TEXT.encode()
        assert await arrives_as(ctl, raw) == TEXT.encode()
    assert await arrives_as(ctl, io.BytesIO(LARGE)) == LARGE
    assert await arrives_as(ctl, io.StringIO(TEXT)) == TEXT.encode()
    with tempfile.TemporaryFile() as temporary:
        temporary.write(LARGE)
        temporary.seek(0)
        assert await arrives_as(ctl, temporary) == LARGE


async def test_a_pipe_arrives_as_it_is_written_and_ends_with_it(ctl):
    writer = "import sys, time\nfor part in 'abc': print(part, flush=True)"
    with subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE) as process:
        assert await arrives_as(ctl, process.stdout) == b"a\nb\nc\n"


@pytest.mark.parametrize(
    ("make", "content"),
    [
        (pieces, b"iterated piece by piece"),
        (async_pieces, b"iterated piece by piece"),
        (Own, b"iterated piece by piece"),
        (OwnAsync, b"iterated piece by piece"),
        (lambda: iter([LARGE]), LARGE),
        (lambda: iter(()), b""),
        (lambda: (LARGE[i : i + 1000] for i in range(0, len(LARGE), 1000)), LARGE),
        (lambda: map(str.encode, "characters"), b"characters"),
    ],
    ids=["generator", "async generator", "iterable", "async iterable", "large", "none", "many", "map"],
)
async def test_an_iterator_arrives_as_all_that_it_gives(ctl, make, content):
    assert await arrives_as(ctl, make()) == content


async def test_an_endless_iterator_is_read_no_faster_than_it_is_wanted(ctl):
    given = 0

    def endless():
        nonlocal given
        while True:
            given += 1
            yield bytes(64 * 1024)

    async def wait(work):
        async for _ in work.payload:
            break
        await asyncio.Event().wait()

    ctl.register("here:wait", wait, stream=True)
    request = ctl.stream("ctl", "here:wait", endless()).send()
    await eventually(lambda: given >= 16)
    for _ in range(20):
        await ctl.ping_once("depot")
    assert given < 64
    request.cancel()
    with pytest.raises(receptor.Cancelled):
        await request.only_payload()


async def test_an_iterator_that_lets_a_cancellation_out_ends_the_request_too(ctl):
    async def broken():
        yield b"beginning"
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        yield await task

    with pytest.raises(receptor.Cancelled, match="could not be read"):
        await ctl.request("depot", "depot:store", broken())


async def test_an_iterator_that_fails_ends_the_request_with_its_reason(ctl):
    def broken():
        yield LARGE
        raise OSError("the tape is torn")

    ends = []
    await ctl.send(broken(), "depot", "depot:store", response_handler=ends.append)
    await eventually(lambda: ends)
    assert ends[0].header["eof"]
    assert ends[0].header["code"] == 1
    assert "OSError: the tape is torn" in ends[0].header["error"]
    assert ctl.stored == []


async def test_the_payload_of_a_message_that_came_in_can_be_sent_on(ctl):
    replies = []
    await ctl.send(LARGE * 10, "depot", "echo:echo", response_handler=replies.append)
    await eventually(lambda: len(replies) == 2)
    assert await arrives_as(ctl, replies[0].payload) == LARGE * 10


@pytest.mark.parametrize("payload", [object(), 1 + 2j, {"a": {1, 2}}, [object()], {1: 2}.keys, array])
async def test_what_can_not_be_sent_is_reported_at_once(ctl, payload):
    with pytest.raises(TypeError):
        ctl.send(payload, "depot", "depot:store")
    assert await arrives_as(ctl, "unharmed") == b"unharmed"


@pytest.mark.parametrize("isolate", [False, True], ids=["on the node", "isolated"])
@pytest.mark.parametrize("way", ["async", "async generator", "function", "generator"])
async def test_what_a_directive_gives_is_held_to_the_same(ctl, way, isolate):
    async def asynchronous(work):
        return eval(work.payload.text())

    async def asynchronous_generator(work):
        yield eval(work.payload.text())

    def plain(work):
        return eval(work.payload.text())

    def generator(work):
        yield eval(work.payload.text())

    ways = {
        "async": asynchronous,
        "async generator": asynchronous_generator,
        "function": plain,
        "generator": generator,
    }
    ctl.register("here:gives", ways[way], isolate=isolate)
    mapping = "__import__('collections').UserDict(a=1, b=2)"
    assert (await ctl.request("ctl", "here:gives", mapping)).json() == {"a": 1, "b": 2}
    for wrong in ("{'a', 'b'}", "{'a': 1}.keys()", "range(3)", "__import__('array').array('d', [1.0])"):
        with pytest.raises(receptor.RemoteError, match="TypeError: a payload can't be .*; send"):
            await ctl.request("ctl", "here:gives", wrong)


@pytest.mark.parametrize("payload", ["a path", "a file", "an iterator", "an async iterator"])
def test_every_kind_can_be_sent_before_run_and_nothing_of_it_is_lost(depot, tmp_path, payload):
    path = tmp_path / "content"
    path.write_bytes(LARGE)
    controller = receptor.Controller(receptor.ReceptorConfig(), loop=None)
    controller.add_peer(depot.url)

    async def chunks():
        yield LARGE

    async def main():
        pass

    with path.open("rb") as file:
        kinds = {"a path": path, "a file": file, "an iterator": iter([LARGE]), "an async iterator": chunks()}
        controller.send(kinds[payload], "depot", "depot:store", timeout=90)
        controller.run(main)
    assert depot.kept(1) == [LARGE]
