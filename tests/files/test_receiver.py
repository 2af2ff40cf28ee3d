"""The receiving end of a copy, record by record: what a sender that means harm, or makes mistakes, can do."""

import asyncio
import contextlib
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128

from zmesh.errors import CopyFailed, RemoteError
from zmesh.files.partial import WORTH_KEEPING, Partial, key_of, name_for
from zmesh.files.progress import Progress
from zmesh.files.receiver import Receiver
from zmesh.files.records import (
    DATA_BYTES,
    HOLE_BYTES,
    MAX_BODY,
    WINDOW,
    EndedEarly,
    Entry,
    Kind,
    RecordReader,
    Type,
    numbered,
    position_of,
    positioned,
    record,
)
from zmesh.files.target import Rules, Target

TIME = 1_500_000_000_123_456_789


def file(*names: bytes, size: int = 0, mode: int = 0o644) -> bytes:
    return Entry(Type.FILE, names, mode, TIME, size).packed()


def directory(*names: bytes, mode: int = 0o755) -> bytes:
    return Entry(Type.DIRECTORY, names, mode, TIME).packed()


def link(target: bytes, *names: bytes) -> bytes:
    return Entry(Type.LINK, names, 0o777, TIME, 0, target).packed()


def content(index: int, data: bytes, offset: int = 0, digest: bytes | None = None) -> bytes:
    end = record(Kind.END, xxh3_128(data).digest() if digest is None else digest)
    return positioned(Kind.CONTENT, index, offset) + record(Kind.DATA, data[offset:]) + end


class Bench:
    """A receiver into a directory, beneath which all is allowed and nothing else."""

    def __init__(self, top: Path, **rules: int) -> None:
        self.top = top
        self.rules = Rules(**rules)
        self.progress = Progress()
        self.answers: list[tuple[int, bytes]] = []

    async def receive(self, *records: bytes, path: str = "", chunk: int = 7919) -> list[int]:
        """Receive records, in chunks of an odd size; the kinds of the answers."""
        data, top = b"".join(records), self.top

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), chunk):
                yield data[start : start + chunk]

        sent: list[bytes] = []

        async def send(answer: bytes) -> None:
            sent.append(answer)

        target = Target.find([bytes(top)], os.fsencode(f"{top}/{path}"), into=False, contents=False)
        receiver = Receiver(
            target, self.rules, sender=b"@desk", records=RecordReader(chunks()), send=send, progress=self.progress
        )
        try:
            await receiver.run()
        finally:

            async def again() -> AsyncIterator[bytes]:
                yield b"".join(sent)

            reader = RecordReader(again())
            self.answers = []
            while (answer := await reader.next()) is not None:
                self.answers.append((answer.kind, answer.body))
        return [kind for kind, _ in self.answers]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "secret").mkdir()
    (tmp_path / "in").mkdir()
    return Bench(tmp_path / "in")


FINISH = record(Kind.FINISH)


def outside(bench: Bench) -> list[str]:
    return [*os.listdir(bench.top.parent / "secret"), *(set(os.listdir(bench.top.parent)) - {"in", "secret"})]


async def test_a_file_arrives_whole_with_its_mode_and_time(bench: Bench) -> None:
    data = os.urandom(300_000)
    answers = await bench.receive(file(b"a", size=len(data), mode=0o640), content(0, data), FINISH)
    assert answers == [Kind.READY, Kind.WANT, Kind.DONE, Kind.FINISHED]
    found = (bench.top / "a").stat()
    assert ((bench.top / "a").read_bytes(), stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (data, 0o640, TIME)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o7777])
async def test_no_file_and_no_directory_gets_more_than_permissions(bench: Bench, mode: int) -> None:
    await bench.receive(
        file(b"a", size=1, mode=mode), directory(b"d", mode=mode), content(0, b"x"), numbered(Kind.LEAVE, 1), FINISH
    )
    assert stat.S_IMODE((bench.top / "a").stat().st_mode) == mode & 0o777
    assert stat.S_IMODE((bench.top / "d").stat().st_mode) == mode & 0o777


@pytest.mark.parametrize(
    "names", [(b"..",), (b".",), (b"",), (b"a/b",), (b"/etc",), (b"a\0b",), (b"a", b"..", b"b"), (b"x" * 256,), ("a",)]
)
async def test_no_name_is_a_path(bench: Bench, names: tuple[bytes, ...]) -> None:
    packed = record(Kind.ENTRY, msgpack.packb((1, names, 0o644, 0, 0, b""), use_bin_type=True))
    with pytest.raises(RemoteError, match="no file has"):
        await bench.receive(packed, FINISH)
    assert not outside(bench)


@pytest.mark.parametrize(
    "fields",
    [
        (1, [b"a"] * 257, 0, 0, 0, b""),
        (4, [b"a"], 0, 0, 0, b""),
        (1, [b"a"], 0o10000, 0, 0, b""),
        (1, [b"a"], 0, 1 << 63, 0, b""),
        (1, [b"a"], 0, 0, -1, b""),
        (1, [b"a"], 0, 0, True, b""),
        (3, [b"a"], 0, 0, 0, b""),
        (3, [b"a"], 0, 0, 0, b"x" * 4097),
        (3, [b"a"], 0, 0, 0, b"a\0b"),
        (1, 7, 0, 0, 0, b""),
        (1, [b"a"]),
        7,
    ],
)
async def test_no_entry_has_a_field_that_no_file_has(bench: Bench, fields: object) -> None:
    with pytest.raises(RemoteError, match="no entry|no file has"):
        await bench.receive(record(Kind.ENTRY, msgpack.packb(fields, use_bin_type=True)), FINISH)


async def test_nothing_is_written_through_a_link_that_the_sender_has_made(bench: Bench) -> None:
    answers = await bench.receive(
        directory(b"d"), link(b"d", b"x"), file(b"x", b"file", size=1), directory(b"x", b"sub"), link(b"y", b"x", b"l"),
        FINISH,
    )  # fmt: skip
    assert answers == [Kind.READY, Kind.FAILED, Kind.FAILED, Kind.FAILED, Kind.FINISHED]
    assert os.listdir(bench.top / "d") == []
    assert bench.progress.failed == 3


@pytest.mark.parametrize("target", [b"/etc", b"..", b"../secret", b"a/../../secret", b"d/../../secret"])
async def test_no_link_that_leads_out_is_made(bench: Bench, target: bytes) -> None:
    answers = await bench.receive(directory(b"d"), link(target, b"x"), FINISH)
    assert answers == [Kind.READY, Kind.FAILED, Kind.FINISHED]
    assert b"would lead out of the directories of [file] write" in bench.answers[1][1]
    assert sorted(os.listdir(bench.top)) == ["d"]


async def test_links_that_were_there_before_lead_nowhere_either(bench: Bench) -> None:
    secret = bench.top.parent / "secret"
    (secret / "file").write_text("secret")
    (bench.top / "out").symlink_to(secret)
    (bench.top / "file").symlink_to(secret / "file")
    answers = await bench.receive(
        file(b"out", b"new", size=1), directory(b"out"), file(b"out", b"new", size=1), file(b"file", size=1),
        content(2, b"x"), content(3, b"y"), numbered(Kind.LEAVE, 1), FINISH,
    )  # fmt: skip
    assert answers == [
        Kind.READY, Kind.FAILED, Kind.WANT, Kind.WANT, Kind.DONE, Kind.DONE, Kind.FINISHED
    ]  # fmt: skip
    assert (secret / "file").read_text() == "secret"
    assert os.listdir(secret) == ["file"]
    assert not (bench.top / "out").is_symlink()  # as with rsync -a
    assert (bench.top / "file").read_text() == "y"


async def test_a_directory_is_not_replaced_by_a_file_nor_a_file_by_a_directory(bench: Bench) -> None:
    (bench.top / "d").mkdir()
    (bench.top / "f").write_text("kept")
    answers = await bench.receive(file(b"d", size=1), directory(b"f"), link(b"f", b"d"), FINISH)
    assert answers == [Kind.READY, Kind.FAILED, Kind.FAILED, Kind.FAILED, Kind.FINISHED]
    assert (bench.top / "f").read_text() == "kept"
    assert sorted(os.listdir(bench.top)) == ["d", "f"]


async def test_a_hard_link_to_another_file_is_replaced_and_not_written_through(bench: Bench) -> None:
    secret = bench.top.parent / "secret" / "file"
    secret.write_text("secret")
    os.link(secret, bench.top / "a")
    os.link(secret, bench.top / os.fsdecode(name_for(key_of(b"b", 1, TIME, b"@desk"))))
    await bench.receive(file(b"a", size=1), file(b"b", size=1), content(0, b"x"), content(1, b"y"), FINISH)
    assert secret.read_text() == "secret"
    assert (bench.top / "b").read_text() == "y"


async def test_a_link_in_the_place_of_a_temporary_is_not_followed(bench: Bench) -> None:
    secret = bench.top.parent / "secret" / "file"
    temporary = bench.top / os.fsdecode(name_for(key_of(b"a", 1, TIME, b"@desk")))
    temporary.symlink_to(secret)
    await bench.receive(file(b"a", size=1), content(0, b"x"), FINISH)
    assert (bench.top / "a").read_text() == "x"
    assert not secret.exists()


async def test_nobody_writes_a_temporary_by_its_name(bench: Bench) -> None:
    answers = await bench.receive(file(name_for(bytes(16)), size=1), FINISH)
    assert answers == [Kind.READY, Kind.FAILED, Kind.FINISHED]


async def test_a_wrong_digest_leaves_the_old_file_and_nothing_else(bench: Bench) -> None:
    (bench.top / "a").write_text("old")
    answers = await bench.receive(file(b"a", size=3), content(0, b"new", digest=bytes(16)), FINISH)
    assert answers == [Kind.READY, Kind.WANT, Kind.FAILED, Kind.FINISHED]
    assert (bench.top / "a").read_text() == "old"
    assert os.listdir(bench.top) == ["a"]


async def test_what_was_broken_off_is_resumed_and_sent_again_if_it_was_something_else(bench: Bench) -> None:
    data = os.urandom(3 * WORTH_KEEPING)
    half = 2 * WORTH_KEEPING
    with pytest.raises(EndedEarly):
        await bench.receive(file(b"a", size=len(data)), positioned(Kind.CONTENT, 0, 0), record(Kind.DATA, data[:half]))
    left = os.listdir(bench.top)
    assert len(left) == 1
    assert (bench.top / left[0]).read_bytes() == data[:half]
    assert await bench.receive(file(b"a", size=len(data)), content(0, data, half), FINISH) == [
        Kind.READY, Kind.WANT, Kind.DONE, Kind.FINISHED
    ]  # fmt: skip
    assert position_of(bench.answers[1][1]) == (0, half)
    assert (bench.top / "a").read_bytes() == data
    assert bench.progress.resumed == 1
    with pytest.raises(EndedEarly):
        await bench.receive(file(b"b", size=len(data)), positioned(Kind.CONTENT, 0, 0), record(Kind.DATA, bytes(half)))
    answers = await bench.receive(file(b"b", size=len(data)), content(0, data, half), content(0, data), FINISH)
    assert answers == [Kind.READY, Kind.WANT, Kind.AGAIN, Kind.DONE, Kind.FINISHED]
    assert (bench.top / "b").read_bytes() == data
    assert sorted(os.listdir(bench.top)) == ["a", "b"]


async def test_a_temporary_of_an_attempt_that_ends_soon_is_waited_for(bench: Bench) -> None:
    data = os.urandom(2 * WORTH_KEEPING)
    other = Partial.open(os.open(bench.top, os.O_PATH), key_of(b"a", len(data), TIME, b"@desk"))
    other.write([data[:WORTH_KEEPING]])
    asyncio.get_running_loop().call_later(0.2, other.keep)
    answers = await bench.receive(file(b"a", size=len(data)), content(0, data, WORTH_KEEPING), FINISH)
    assert answers == [Kind.READY, Kind.WANT, Kind.DONE, Kind.FINISHED]
    assert bench.progress.resumed == 1
    assert os.listdir(bench.top) == ["a"]


async def test_a_temporary_that_is_in_use_is_not_shared(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.files.receiver.IN_USE_WITHIN", 0.1)
    data = os.urandom(2 * WORTH_KEEPING)
    key = key_of(b"a", len(data), TIME, b"@desk")
    other = Partial.open(os.open(bench.top, os.O_PATH), key)
    other.write([data[:WORTH_KEEPING]])
    answers = await bench.receive(file(b"a", size=len(data)), content(0, data, WORTH_KEEPING), content(0, data), FINISH)
    assert answers == [Kind.READY, Kind.WANT, Kind.AGAIN, Kind.DONE, Kind.FINISHED]
    assert (bench.top / "a").read_bytes() == data
    other.keep()
    assert (bench.top / os.fsdecode(name_for(key))).read_bytes() == data[:WORTH_KEEPING]


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([record(Kind.DATA, b"x")], "not announced"),
        ([record(Kind.END, bytes(16))], "not announced"),
        ([positioned(Kind.CONTENT, 0, 0)], "not announced"),
        ([numbered(Kind.LEAVE, 0)], "not announced"),
        ([file(b"a", size=1), FINISH], "not announced"),
        ([file(b"a", size=1), positioned(Kind.CONTENT, 0, 0), FINISH], "not announced"),
        ([file(b"a", size=1), file(b"b"), *[positioned(Kind.CONTENT, n, 0) for n in (0, 1)]], "not announced"),
        ([file(b"a", size=1), content(0, b"xy")], "more of a file was sent"),
        ([file(b"a", size=1), positioned(Kind.CONTENT, 0, 0), record(Kind.HOLE, b"\2")], "more of a file was sent"),
        ([file(b"a", size=1), record(Kind.HOLE, (HOLE_BYTES + 1).to_bytes(8, "big"))], "is longer than"),
        ([record(Kind.DATA, bytes(DATA_BYTES + 1))], "is too long"),
        ([record(Kind.FAULT, bytes(MAX_BODY + 1))], "is too long"),
        ([record(Kind.CONTENT, b"short")], "no number"),
        ([record(Kind.ABORT, b"short")], "no number"),
        ([], "before its end"),
        ([b"\1"], "within a record"),
    ],
)
async def test_what_no_sender_sends_ends_the_copy(bench: Bench, records: list[bytes], text: str) -> None:
    with pytest.raises(RemoteError, match=text):
        await bench.receive(*records)
    assert os.listdir(bench.top) == []


async def test_entries_far_ahead_of_their_content_end_the_copy(bench: Bench) -> None:
    entries = [file(b"%d" % number, size=1) for number in range(2 * WINDOW + 1)]
    await bench.receive(*entries[: 2 * WINDOW], *[numbered(Kind.ABORT, n, "gone") for n in range(2 * WINDOW)], FINISH)
    assert (bench.progress.failed, len(bench.progress.failures)) == (2 * WINDOW, 100)
    with pytest.raises(RemoteError, match="ahead of their content"):
        await bench.receive(*entries)


async def test_a_file_that_is_too_large_is_refused_before_it_is_sent(bench: Bench) -> None:
    bench.rules = Rules(max_file_bytes=10)
    answers = await bench.receive(file(b"a", size=11), file(b"b", size=10), content(1, bytes(10)), FINISH)
    assert answers == [Kind.READY, Kind.FAILED, Kind.WANT, Kind.DONE, Kind.FINISHED]
    assert b"[file] max_file_bytes" in bench.answers[1][1]


async def test_holes_stay_holes(bench: Bench) -> None:
    size = 40_000_000
    digest = xxh3_128(bytes(size - 4096) + b"x" * 4096).digest()
    await bench.receive(
        file(b"a", size=size), positioned(Kind.CONTENT, 0, 0), record(Kind.HOLE, (size - 4096).to_bytes(8, "big")),
        record(Kind.DATA, b"x" * 4096), record(Kind.END, digest), FINISH,
    )  # fmt: skip
    found = (bench.top / "a").stat()
    assert (found.st_size, found.st_blocks * 512 < size // 10) == (size, True)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "full"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", folder], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_ends_the_copy_and_leaves_nothing(full: Path) -> None:
    data, bench = os.urandom(4_000_000), Bench(full)
    records = [record(Kind.DATA, data[start : start + 500_000]) for start in range(0, len(data), 500_000)]
    with pytest.raises(CopyFailed, match="/a': no space left on device"):
        await bench.receive(file(b"a", size=len(data)), positioned(Kind.CONTENT, 0, 0), *records)
    assert os.listdir(full) == []


names = st.lists(st.sampled_from([b"a", b"b", b"l", b"..", b"", b"x/y"]), max_size=3).map(tuple)
entries = st.builds(
    lambda kind, names, size, target: Entry(kind, names, 0o644, TIME, size, target).packed(),
    st.sampled_from(Type), names, st.integers(0, 3), st.sampled_from([b"", b"a", b"..", b"/", b"../secret", b"l"]),
)  # fmt: skip
numbers = st.integers(0, 3)
anything = st.one_of(
    entries,
    st.builds(positioned, st.just(Kind.CONTENT), numbers, numbers),
    st.builds(numbered, st.sampled_from([Kind.ABORT, Kind.LEAVE]), numbers),
    st.builds(record, st.just(Kind.DATA), st.binary(max_size=3)),
    st.builds(lambda size: record(Kind.HOLE, size.to_bytes(8, "big")), numbers),
    st.just(record(Kind.END, xxh3_128(b"").digest())),
    st.just(record(Kind.END, xxh3_128(b"x").digest())),
    st.builds(record, st.sampled_from(Kind), st.binary(max_size=20)),
    st.binary(max_size=20),
)


def leading_out(top: Path) -> list[Path]:
    """What lies beneath a directory and leads out of it."""
    return [
        path for path in top.rglob("*") if top not in (real := Path(os.path.realpath(path))).parents and real != top
    ]


@given(st.lists(anything, max_size=12))
async def test_whatever_is_sent_is_written_inside_or_refused(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "secret").mkdir()
    (folder / "in").mkdir()
    bench = Bench(folder / "in")
    with contextlib.suppress(RemoteError):
        await bench.receive(*records, FINISH)
    assert not outside(bench)
    assert not [name for name in os.listdir(bench.top) if name.startswith(".zmesh-")]
    assert leading_out(bench.top) == []


async def test_directories_that_can_not_be_made_are_kept_no_more_of_than_others(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    bench = Bench(tmp_path)
    announced = [directory(b"taken", b"%d" % number) for number in range(10 * WINDOW)]
    with pytest.raises(RemoteError, match="announced ahead of their content"):
        await bench.receive(*announced)
    assert bench.progress.failed <= 2 * WINDOW + 1
