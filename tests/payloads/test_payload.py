import asyncio
import gc
import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import Overloaded
from zmesh.payloads import buffered as arriving_module
from zmesh.payloads import spool
from zmesh.payloads.buffered import SPOOL_AFTER, BufferedPayload
from zmesh.payloads.payload import CHUNK, Payload
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


# --- incoming, complete -------------------------------------------------------------------------------------------


def test_a_payload_reads_like_a_file():
    payload = Payload(b"0123456789")
    assert (payload.read(3), payload.tell(), payload.read(), payload.read(), payload.read(5)) == (
        b"012",
        3,
        b"3456789",
        b"",
        b"",
    )
    assert payload.readall() == b"0123456789"
    assert payload.tell() == 10
    assert payload.seek(2) == 2
    assert payload.read(None) == b"23456789"
    assert payload.seek(-1, os.SEEK_END) == 9
    assert payload.read(1) == b"9"
    with pytest.raises(ValueError, match="seek"):
        payload.seek(-1)
    assert payload.readable()
    assert len(payload) == 10
    assert payload


def test_an_empty_payload_is_false_and_reads_as_nothing():
    for payload in (Payload(), Payload(b""), arrived(), arrived(b"", b"")):
        assert not payload
        assert (len(payload), payload.read(), payload.readall(), list(payload)) == (0, b"", b"", [])


def test_a_payload_tells_its_text_and_its_json():
    assert Payload('{"a": "\u00e9"}'.encode()).json() == {"a": "\u00e9"}
    assert Payload("\u00e9".encode()).text() == "\u00e9"
    with pytest.raises(ValueError, match="utf-8"):
        Payload(b"\xff").text()
    with pytest.raises(ValueError, match="Expecting value"):
        Payload(b"no").json()


async def test_iteration_of_both_kinds_gives_chunks_of_64_kib():
    content = bytes(range(256)) * 600
    expected = [content[:CHUNK], content[CHUNK : 2 * CHUNK], content[2 * CHUNK :]]
    for payload in (Payload(content), arrived(*[content[i : i + 100] for i in range(0, len(content), 100)])):
        assert list(payload) == expected
        payload.seek(0)
        assert [chunk async for chunk in payload] == expected


@pytest.mark.parametrize("large", [False, True])
def test_the_name_is_that_of_a_real_file_which_closing_deletes(tmp_path, large):
    content = b"line\n" * (2 * MIB if large else 3)
    payload = arrived(content, spool_dir=str(tmp_path))
    payload.read(2)
    path = Path(payload.name)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o077 == 0
    assert payload.name == str(path)
    assert payload.read(3) == b"ne\n"
    payload.close()
    payload.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        payload.read()


def test_a_small_payload_has_a_name_too():
    with Payload(b"small") as payload:
        path = Path(payload.name)
        assert path.read_bytes() == b"small"
    assert not path.exists()


def test_a_forgotten_payload_deletes_its_file(tmp_path):
    payload = arrived(b"x" * 10, spool_dir=str(tmp_path))
    assert Path(payload.name).exists()
    del payload
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_user_moved_away_is_no_trouble(tmp_path):
    payload = Payload(b"mine", spool_dir=str(tmp_path))
    os.rename(payload.name, tmp_path / "kept")
    payload.close()
    assert (tmp_path / "kept").read_bytes() == b"mine"


def test_a_large_payload_has_no_name_on_disk_until_it_is_asked_for(tmp_path):
    payload = arrived(*[b"x" * CHUNK] * 200, spool_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert len(payload) == 200 * CHUNK
    assert payload.readall() == b"x" * 200 * CHUNK
    payload.close()


@pytest.mark.parametrize("missing", ["open", "link", "linkat"])
def test_large_payloads_work_where_the_system_knows_no_unnamed_files(tmp_path, monkeypatch, missing):
    opened = os.open

    def fail(path, *arguments, **options):
        raise OSError("not here")

    def open_named(path, flags, *arguments, **options):
        return (fail if flags & os.O_TMPFILE == os.O_TMPFILE else opened)(path, flags, *arguments, **options)

    if missing == "open":
        monkeypatch.setattr(os, "open", open_named)
    else:
        monkeypatch.setattr(os, "link", fail)
        monkeypatch.setattr(spool, "HAS_LINKAT", missing == "link")
    payload = arrived(b"a" * SPOOL_AFTER, b"b", spool_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert Path(payload.name).read_bytes() == b"a" * SPOOL_AFTER + b"b"
    payload.seek(SPOOL_AFTER - 1)
    assert payload.read() == b"ab"
    payload.close()
    assert list(tmp_path.iterdir()) == []


operations = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-2, 40)),
        st.tuples(st.just("seek"), st.integers(0, 60)),
        st.tuples(st.just("readall"), st.none()),
        st.tuples(st.just("name"), st.none()),
    ),
    max_size=12,
)


@given(st.lists(st.binary(max_size=20), max_size=5), operations, st.booleans())
def test_a_payload_does_what_bytesio_does(chunks, operations, on_disk):
    content = b"".join(chunks)
    model = io.BytesIO(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arriving_module, "SPOOL_AFTER", 5 if on_disk else 1000)
        payload = arrived(*chunks)
    with payload:
        for operation, argument in operations:
            if operation == "read":
                assert payload.read(argument) == model.read(argument)
            elif operation == "seek":
                assert payload.seek(argument) == model.seek(argument)
            elif operation == "readall":
                assert payload.readall() == content
            else:
                assert Path(payload.name).read_bytes() == content
            assert payload.tell() == model.tell()
            assert len(payload) == len(content)
            assert bool(payload) == bool(content)


# --- incoming, arriving -------------------------------------------------------------------------------------------


def test_an_arriving_payload_can_be_read_when_it_is_complete():
    payload = BufferedPayload()
    payload.feed(b"one")
    assert not payload.complete
    assert len(payload) == 3
    with pytest.raises(BlockingIOError, match="still arriving"):
        payload.read()
    payload.feed(b"two")
    payload.finish()
    assert payload.complete
    payload.feed(b"too late")
    payload.finish()
    assert payload.readall() == b"onetwo"


def test_it_stays_in_memory_up_to_its_limit_and_goes_to_disk_one_byte_later():
    before = held()
    payload = BufferedPayload()
    payload.feed(b"x" * SPOOL_AFTER)
    assert held() - before == SPOOL_AFTER
    payload.feed(b"x")
    assert held() == before
    payload.finish()
    assert payload.readall() == b"x" * (SPOOL_AFTER + 1)
    payload.close()


def test_past_the_budget_of_the_process_every_payload_goes_to_disk_at_once(monkeypatch):
    monkeypatch.setattr(arriving_module, "MEMORY_BUDGET", held() + 100)
    before = held()
    first, second, third = BufferedPayload(), BufferedPayload(), BufferedPayload()
    first.feed(b"x" * 100)
    second.feed(b"y")
    assert held() - before == 100
    third.feed(b"z")
    third.feed(b"z")
    assert held() - before == 100
    first.close()
    assert held() == before
    for payload, content in ((second, b"y"), (third, b"zz")):
        payload.finish()
        assert payload.readall() == content
        payload.close()


def test_closing_failing_and_forgetting_give_the_memory_back():
    before = held()
    closed, failed, forgotten, kept = BufferedPayload(), BufferedPayload(), BufferedPayload(), BufferedPayload()
    for payload in (closed, failed, forgotten, kept):
        payload.feed(b"x" * 1000)
        if payload is not failed:
            payload.finish()
    assert held() - before == 4000
    closed.close()
    failed.fail(RuntimeError("lost"))
    del forgotten, payload
    gc.collect()
    assert held() - before == 1000
    assert kept.readall() == b"x" * 1000
    kept.close()
    assert held() == before


def test_a_payload_that_failed_raises_why():
    payload = BufferedPayload()
    payload.feed(b"half")
    payload.fail(ConnectionError("lost"))
    payload.fail(RuntimeError("later"))
    payload.feed(b"more")
    payload.finish()
    assert not payload.complete
    with pytest.raises(ConnectionError, match="lost"):
        payload.readall()


def test_the_largest_payload_that_is_allowed_fits_and_one_byte_more_does_not():
    assert len(arrived(b"x" * 10, max_bytes=10)) == 10
    payload = BufferedPayload(max_bytes=10)
    payload.feed(b"x" * 10)
    with pytest.raises(Overloaded, match="max_payload_bytes"):
        payload.feed(b"x")
    payload.feed(b"thrown away")
    with pytest.raises(Overloaded):
        payload.read()


def test_what_may_not_lie_in_a_file_is_not_written_to_one(tmp_path: Path) -> None:
    sizes: list[int] = []

    def admit(size_bytes: int) -> None:
        sizes.append(size_bytes)
        raise Overloaded("no more files")

    payload = BufferedPayload(spool_dir=str(tmp_path / "missing"), admit=admit)
    payload.feed(b"in memory")
    with pytest.raises(Overloaded, match="no more files"):
        payload.feed(bytes(SPOOL_AFTER))
    assert sizes == [len(b"in memory") + SPOOL_AFTER]
    payload.feed(b"thrown away")
    assert len(sizes) == 1


def test_a_spool_folder_that_cannot_be_written_fails_the_payload(tmp_path):
    before = held()
    payload = BufferedPayload(spool_dir=str(tmp_path / "missing"))
    payload.feed(b"x" * SPOOL_AFTER)
    with pytest.raises(OSError, match="missing"):
        payload.feed(b"x")
    with pytest.raises(OSError, match="missing"):
        payload.read()
    assert held() == before


# --- incoming, streaming ------------------------------------------------------------------------------------------


async def test_an_async_reader_waits_for_chunks_and_tells_what_it_took():
    taken = []
    payload = StreamedPayload(taken.append)

    async def read():
        return [chunk async for chunk in payload]

    reading = asyncio.ensure_future(read())
    for chunk in (b"one", b"", b"three"):
        payload.feed(chunk)
        await asyncio.sleep(0)
    assert not payload.complete
    payload.finish()
    assert await reading == [b"one", b"three"]
    assert payload.complete
    assert taken == [3, 5]
    assert len(payload) == 8
    assert payload.tell() == 8


async def test_a_reader_in_a_thread_waits_for_chunks_and_tells_on_the_loop_what_it_took(eventually):
    taken = []
    payload = StreamedPayload(lambda size: taken.append((size, threading.get_ident())))
    reading = asyncio.ensure_future(asyncio.to_thread(list, payload))
    for chunk in (b"one", b"three"):
        payload.feed(chunk)
        await eventually(lambda: payload.tell() == len(payload))
    payload.finish()
    assert await reading == [b"one", b"three"]
    await eventually(lambda: taken == [(3, threading.get_ident()), (5, threading.get_ident())])


async def test_a_thread_reads_exact_sizes_across_chunks():
    payload = StreamedPayload()
    reading = asyncio.ensure_future(asyncio.to_thread(lambda: [payload.read(4), payload.read(2), payload.read()]))
    for chunk in (b"ab", b"cde", b"fg", b"hi"):
        payload.feed(chunk)
        await asyncio.sleep(0)
    payload.finish()
    assert await reading == [b"abcd", b"ef", b"ghi"]
    with pytest.raises(io.UnsupportedOperation, match="once"):
        payload.readall()


async def test_a_thread_can_take_it_all():
    payload = StreamedPayload()
    reading = asyncio.ensure_future(asyncio.to_thread(payload.json))
    payload.feed(b'{"a":')
    await asyncio.sleep(0)
    payload.feed(b"1}")
    payload.finish()
    assert await reading == {"a": 1}


async def test_a_read_that_would_block_the_loop_is_refused_and_takes_nothing():
    payload = StreamedPayload()
    with pytest.raises(BlockingIOError, match="async for"):
        payload.read()
    payload.feed(b"abcdef")
    assert payload.read(2) == b"ab"
    with pytest.raises(BlockingIOError):
        payload.read(10)
    with pytest.raises(BlockingIOError):
        payload.read()
    payload.finish()
    assert payload.read() == b"cdef"


async def test_the_async_reader_goes_on_after_a_partial_read():
    payload = StreamedPayload()
    payload.feed(b"abcdef")
    payload.finish()
    assert payload.read(2) == b"ab"
    assert [chunk async for chunk in payload] == [b"cdef"]


@pytest.mark.parametrize("end", ["fail", "close"])
async def test_failing_and_closing_release_readers_of_both_kinds_and_give_unread_bytes_back(end, eventually):
    taken = []

    def stop(payload):
        payload.fail(ConnectionError("lost")) if end == "fail" else payload.close()

    expected = ConnectionError if end == "fail" else ValueError
    for read in (lambda p: asyncio.to_thread(p.read), anext):
        payload = StreamedPayload(taken.append)
        reading = asyncio.ensure_future(read(payload))
        await asyncio.sleep(0)
        stop(payload)
        with pytest.raises(expected):
            await reading
    payload = StreamedPayload(taken.append)
    payload.feed(b"unread")
    stop(payload)
    payload.feed(b"late")
    assert taken == [6, 4]
    with pytest.raises(expected):
        await anext(payload)


async def test_a_thread_may_close_it_under_an_async_reader(eventually):
    taken = []
    payload = StreamedPayload(taken.append)
    reading = asyncio.ensure_future(anext(payload))
    await asyncio.sleep(0)
    await asyncio.to_thread(payload.close)
    with pytest.raises(ValueError, match="closed"):
        await reading
    payload.feed(b"late")
    assert taken == [4]


async def test_every_byte_is_consumed_once_whatever_is_read():
    taken = []
    payload = StreamedPayload(taken.append)
    for size in (10, 20, 30):
        payload.feed(b"x" * size)
    payload.read(15)
    payload.feed(b"y" * 40)
    payload.close()
    payload.feed(b"z" * 50)
    assert sum(taken) == 150


async def test_a_second_async_reader_is_refused():
    payload = StreamedPayload()
    reading = asyncio.ensure_future(anext(payload))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(payload)
    payload.feed(b"x")
    assert await reading == b"x"


async def test_a_reader_that_was_cancelled_leaves_the_payload_to_the_next_one():
    payload = StreamedPayload()
    reading = asyncio.ensure_future(anext(payload))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    payload.feed(b"x")
    assert await anext(payload) == b"x"


async def test_a_streaming_payload_is_true_until_it_is_known_to_be_empty():
    payload = StreamedPayload()
    assert payload
    payload.finish()
    assert not payload
    assert payload.readall() == b""
    with pytest.raises(io.UnsupportedOperation):
        payload.seek(0)
    with pytest.raises(io.UnsupportedOperation):
        _ = payload.name
