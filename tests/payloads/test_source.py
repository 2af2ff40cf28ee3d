import asyncio
import ctypes
import dataclasses
import gc
import io
import mmap
import os
import pickle
import sqlite3
import threading
from array import array
from collections import ChainMap, OrderedDict, UserDict, deque
from pathlib import Path
from types import MappingProxyType

import numpy
import pytest

from tests.waiting import WITHIN
from zmesh.payloads import spool
from zmesh.payloads.buffered import BufferedPayload
from zmesh.payloads.payload import CHUNK, Payload, encode
from zmesh.payloads.source import Source
from zmesh.payloads.streamed import StreamedPayload

MIB = 1024 * 1024


def held():
    return spool.memory.charge(0)


def arrived(*chunks, **options):
    payload = BufferedPayload(**options)
    for chunk in chunks:
        payload.feed(chunk)
    payload.finish()
    return payload


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"bytes", b"bytes"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view")[1:], b"iew"),
        ("text \u00e9", "text \u00e9".encode()),
        ({"a": [1, None], "\u00e9": True}, '{"a":[1,null],"\u00e9":true}'.encode()),
        ([1, "two"], b'[1,"two"]'),
        ((1, 2), b"[1,2]"),
        (7, b"7"),
        (1.5, b"1.5"),
        (True, b"true"),
        (None, b""),
        (Payload(b"in memory"), b"in memory"),
        (UserDict(a=1, b=2), b'{"a":1,"b":2}'),
        (MappingProxyType({"a": UserDict(b=ChainMap({"c": 3}))}), b'{"a":{"b":{"c":3}}}'),
        ([UserDict(a=1)], b'[{"a":1}]'),
        (OrderedDict(a=1), b'{"a":1}'),
        (array("B", b"bytes"), b"bytes"),
        ((ctypes.c_char * 3)(*b"abc"), b"abc"),
        (pickle.PickleBuffer(b"buffer"), b"buffer"),
        (numpy.frombuffer(b"bytes", dtype="uint8"), b"bytes"),
    ],
)
def test_a_small_payload_is_encoded_at_once(payload, expected):
    assert encode(payload) == expected


def test_a_string_is_text_also_when_a_file_of_that_name_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("hosts").write_bytes(b"the file")
    assert encode("hosts") == b"hosts"


@pytest.mark.parametrize("payload", [object(), len, {"when": object()}, [b"bytes in a list"]])
def test_what_cannot_be_sent_is_a_type_error_that_names_it(payload):
    with pytest.raises(TypeError, match=r"object|builtin_function_or_method|bytes"):
        encode(payload)


class Row:
    """As those of databases are: its values by place and by name."""

    def __len__(self):
        return 2

    def __iter__(self):
        return iter(("edge", b"7"))

    def keys(self):
        return ["name", "number"]


class Frame:
    """As pandas has them; iterating gives the names of the columns."""

    def __iter__(self):
        return iter(["a", "b"])

    def to_dict(self):
        return {}


class Model:
    def __iter__(self):
        return iter([("name", "edge")])

    def model_dump(self):
        return {}


@dataclasses.dataclass
class Record:
    name: str = "edge"


def sqlite_row():
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("SELECT 'edge' AS name, 7 AS number").fetchone()
    finally:
        connection.close()


WRONG = [
    ({"a", "b"}, "set; send list"),
    ({b"a"}, "set; send list"),
    (frozenset("ab"), "frozenset; send list"),
    (set(), "set; send list"),
    ({"a": 1}.keys(), r"dict_keys; send list"),
    ({"a": b"1"}.values(), r"dict_values; send list"),
    ({"a": 1}.items(), r"dict_items; send list"),
    (UserDict(a=1).keys(), "KeysView; send list"),
    (range(3), "range; send list"),
    (range(0), "range; send list"),
    (deque(["a"]), r"deque; send list\(...\) of it as JSON; only pieces that are bytes"),
    (array("d", [1.0]), r"array; send its tobytes\(\) for the bytes, or its tolist\(\) as JSON"),
    (array("B", b"x").tolist, "builtin_function_or_method; send bytes, str"),
    (numpy.arange(3), r"ndarray; send its tobytes\(\)"),
    (numpy.zeros((2, 2), dtype="uint8"), r"ndarray; send its tobytes\(\)"),
    (numpy.int64(5), r"int64; send its tobytes\(\)"),
    (sqlite_row(), r"Row; send dict\(...\) of it as JSON"),
    (Row(), r"Row; send dict\(...\) of it as JSON"),
    (Frame(), r"Frame; its to_dict\(\) is sent as JSON"),
    (Model(), r"Model; its model_dump\(\) is sent as JSON"),
    (Record(), r"Record; its dataclasses.asdict\(\) is sent as JSON"),
    (array, "the class array"),
]


@pytest.mark.parametrize(("payload", "advice"), WRONG, ids=[str(type(payload).__name__) for payload, _ in WRONG])
def test_what_is_made_of_something_else_than_bytes_is_a_type_error_that_says_what_to_do(payload, advice):
    with pytest.raises(TypeError, match=f"^a payload can't be {advice}"):
        encode(payload)


def test_what_is_nested_too_deeply_for_json_is_a_value_error():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        encode(deep)
    while deep:
        deep = deep.pop()


async def test_a_mapped_file_is_sent_whole_and_can_be_closed_afterwards(tmp_path):
    content = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        mapped.read(10)
        reading = encode(mapped)
        parts = []
        while part := await reading.read(100_000):
            parts.append(part)
        reading.close()
        reading.close()
        reading._threads.join(WITHIN)
    assert b"".join(parts) == content


async def test_a_container_of_bytes_is_sent_piece_by_piece():
    reading = encode(deque([b"one", bytearray(b"two")]))
    assert [await reading.read(100) for _ in range(3)] == [b"one", b"two", b""]
    reading.close()


def test_a_path_that_cannot_be_opened_fails_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        encode(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        encode(tmp_path)


async def test_a_path_is_read_in_pieces_and_closed_with_its_source(tmp_path, eventually):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    source = encode(path)
    pieces = []
    while piece := await source.read(CHUNK):
        pieces.append(piece)
    assert b"".join(pieces) == path.read_bytes()
    assert max(map(len, pieces)) <= CHUNK
    source.close()
    await eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("zmesh-source")])
    gc.collect()  # a file left open would be a ResourceWarning


async def test_a_source_may_be_closed_unread_twice_or_not_at_all(tmp_path, eventually):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    source = encode(path)
    source.close()
    source.close()
    forgotten = encode(io.BytesIO(b"content"))
    assert await forgotten.read(3) == b"con"
    del forgotten
    await eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("zmesh-source")])


async def test_a_file_is_read_from_where_it_stands_and_stays_open(collect):
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    assert await collect(file) == b"456789"
    assert not file.closed


async def test_a_text_file_is_sent_as_utf_8(tmp_path, collect):
    path = tmp_path / "text"
    path.write_text("\u00e9" * 100_000, encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        assert await collect(file) == path.read_bytes()


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


async def test_a_pipe_gives_what_is_there_without_waiting_for_more(pipe):
    reader, writer = pipe
    source = encode(reader)
    writer.write(b"early")
    assert await source.read(CHUNK) == b"early"
    source.close()


async def test_a_read_that_is_cancelled_holds_nobody_and_its_thread_ends_with_the_read(pipe, eventually):
    reader, writer = pipe
    source = encode(reader)
    read = asyncio.ensure_future(source.read(CHUNK))
    await eventually(lambda: [t for t in threading.enumerate() if t.name.startswith("zmesh-source")])
    read.cancel()
    await asyncio.wait([read])
    assert read.cancelled()
    source.close()
    writer.write(b"late")
    await eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("zmesh-source")])


async def test_iterators_of_both_kinds_are_sent_piece_by_piece(collect):
    async def asynchronous():
        for piece in pieces:
            yield piece

    pieces = [b"one", b"", bytearray(b"two"), "three", b"x" * (3 * CHUNK + 1)]
    expected = b"onetwothree" + pieces[-1]
    assert await collect(iter(pieces)) == expected
    assert await collect(piece for piece in pieces) == expected
    assert await collect(asynchronous()) == expected


async def test_a_long_piece_is_split_and_a_short_one_goes_out_at_once():
    source = encode(iter([b"abc", b"x" * 25]))
    assert [await source.read(10) for _ in range(5)] == [b"abc", b"x" * 10, b"x" * 10, b"x" * 5, b""]
    source.close()


@pytest.mark.parametrize("error", [ValueError("boom"), OSError("gone"), SystemExit(3), asyncio.CancelledError()])
async def test_an_iterator_that_fails_raises_in_the_reader_and_never_ends_the_loop(error, collect):
    def plain():
        yield b"first"
        raise error

    async def asynchronous():
        yield b"first"
        raise error

    expected = type(error) if isinstance(error, Exception) else RuntimeError
    for source in (encode(plain()), encode(asynchronous())):
        assert await source.read(CHUNK) == b"first"
        with pytest.raises(expected, match=r"boom|gone|SystemExit|CancelledError"):
            await source.read(CHUNK)
        source.close()


async def test_an_async_iterator_whose_reader_is_cancelled_is_cancelled_with_it():
    seen = []

    async def waits():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            seen.append(error)
            raise
        yield b"never"

    reading = asyncio.create_task(encode(waits()).read(CHUNK))
    asyncio.get_running_loop().call_soon(reading.cancel)
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(seen) == 1


async def test_an_iterator_of_something_else_is_a_type_error(collect):
    with pytest.raises(TypeError, match="its source gave int"):
        await collect(iter([b"fine", 5]))


async def test_a_reader_that_raises_stop_iteration_fails_cleanly():
    class Odd:
        def read(self, size):
            raise StopIteration

    source = encode(Odd())
    with pytest.raises(RuntimeError, match="StopIteration"):
        await source.read(CHUNK)
    source.close()


def test_a_source_is_encoded_to_itself():
    source = encode(iter([b"x"]))
    assert encode(source) is source
    source.close()


async def test_a_large_payload_is_sent_whole_also_after_reads(collect):
    payload = arrived(*[b"x" * CHUNK] * 129, b"end")
    payload.read(1000)
    assert isinstance(encode(payload), Source)
    assert await collect(payload) == b"x" * CHUNK * 129 + b"end"
    payload.close()
    with pytest.raises(ValueError, match="closed"):
        encode(payload)


async def test_a_streaming_payload_is_sent_on_as_it_arrives():
    payload = StreamedPayload()
    source = encode(payload)
    payload.feed(b"one")
    assert await source.read(CHUNK) == b"one"
    payload.feed(b"two")
    payload.finish()
    assert [await source.read(CHUNK), await source.read(CHUNK)] == [b"two", b""]
