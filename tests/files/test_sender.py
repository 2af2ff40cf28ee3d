"""The sending end of a copy: what it lists, and what it does with answers that no receiver gives."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from zmesh.errors import RemoteError
from zmesh.files import beneath
from zmesh.files.listing import Fault, Top, listed
from zmesh.files.partial import name_for
from zmesh.files.places import name_of
from zmesh.files.progress import Progress
from zmesh.files.records import WINDOW, EndedEarly, Entry, Kind, RecordReader, numbered, position_of, positioned, record
from zmesh.files.sender import Sender


def top_of(path: Path, *, follow: bool = False) -> Top:
    return Top(beneath.find([b"/"], bytes(path), follow=follow), bytes(path), name_of(bytes(path)))


class Bench:
    """A sender, and a receiver that answers as a test says."""

    def __init__(self, *paths: Path, recursive: bool = True) -> None:
        self.progress = Progress()
        self.sent: list[tuple[int, bytes]] = []
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._tops = [top_of(path, follow=not recursive) for path in paths]
        self._recursive = recursive
        self._files = 0

    async def send(self, answer: Callable[[int, bytes], bytes]) -> None:
        """Send all of it; `answer` gives what the receiver answers to each record, b"" for nothing."""

        async def answers() -> AsyncIterator[bytes]:
            while data := await self._answers.get():
                yield data

        async def take(data: bytes) -> None:
            async def one() -> AsyncIterator[bytes]:
                yield data

            reader = RecordReader(one())
            while (each := await reader.next()) is not None:
                self.sent.append((each.kind, each.body))
                if reply := answer(each.kind, each.body):
                    self._answers.put_nowait(b"" if reply == END else reply)

        sender = Sender(
            self._tops, recursive=self._recursive, records=RecordReader(answers()), send=take, progress=self.progress
        )
        await sender.run()

    def kinds(self) -> list[int]:
        return [kind for kind, _ in self.sent]


END = b"the end"


class Receiver:
    """Wants each file from an offset on, and says that it is done."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.entries: list[Entry] = []

    def __call__(self, kind: int, body: bytes) -> bytes:
        match kind:
            case Kind.ENTRY:
                self.entries.append(Entry.of(body))
                if self.entries[-1].type == 1:
                    return positioned(Kind.WANT, len(self.entries) - 1, self.offset)
            case Kind.CONTENT:
                self.index = position_of(body)[0]
            case Kind.END:
                return numbered(Kind.DONE, self.index)
            case Kind.FINISH:
                return record(Kind.FINISHED)
        return b""


async def test_a_tree_is_announced_and_then_sent_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "tree" / "d").mkdir(parents=True)
    (tmp_path / "tree" / "d" / "f").write_bytes(b"content")
    (tmp_path / "tree" / os.fsdecode(name_for(bytes(16)))).write_bytes(b"what is left of another copy")
    os.mkfifo(tmp_path / "tree" / "fifo")
    (tmp_path / "tree" / "link").symlink_to("/nowhere")
    bench, receiver = Bench(tmp_path / "tree"), Receiver()
    await bench.send(receiver)
    assert {entry.names for entry in receiver.entries} == {
        (b"tree",), (b"tree", b"d"), (b"tree", b"d", b"f"), (b"tree", b"link")
    }  # fmt: skip
    assert bench.kinds().count(Kind.LEAVE) == 2
    assert bench.progress.failures == [f"'{tmp_path}/tree/fifo' is a device, socket or FIFO, which is not copied"]
    assert (bench.progress.files, bench.progress.directories, bench.progress.links) == (1, 2, 1)


async def test_many_small_files_are_announced_ahead_and_no_more_than_the_window(tmp_path: Path) -> None:
    count = WINDOW + 200
    for number in range(count):
        (tmp_path / f"{number}").write_bytes(b"x")
    bench, receiver = Bench(tmp_path), Receiver()
    await bench.send(receiver)
    assert bench.progress.files == count
    ahead = most = 0
    for kind in bench.kinds():
        ahead += (kind == Kind.ENTRY) - (kind == Kind.END)
        most = max(most, ahead)
    assert 500 < most <= WINDOW + 1


async def test_a_file_is_sent_from_where_it_is_wanted(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(data)
    bench = Bench(tmp_path / "f")
    await bench.send(Receiver(offset=1_000_001))
    assert b"".join(body for kind, body in bench.sent if kind == Kind.DATA) == data[1_000_001:]
    assert (bench.progress.resumed, bench.progress.sent, bench.progress.done) == (1, 1_999_999, 3_000_000)


async def test_a_file_is_sent_again_if_its_beginning_was_something_else(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(data)
    bench, plain, again = Bench(tmp_path / "f"), Receiver(offset=2_000_000), []

    def answer(kind: int, body: bytes) -> bytes:
        if kind == Kind.END and not again:
            again.append(True)
            return numbered(Kind.AGAIN, 0)
        return plain(kind, body)

    await bench.send(answer)
    contents = [position_of(body)[1] for kind, body in bench.sent if kind == Kind.CONTENT]
    assert contents == [2_000_000, 0]
    assert (bench.progress.files, bench.progress.resumed) == (1, 0)


async def test_holes_are_sent_as_holes(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, b"x" * 4096, 10_000_000)
    os.truncate(descriptor, 20_000_000)
    os.close(descriptor)
    bench = Bench(tmp_path / "f")
    await bench.send(Receiver())
    holes = sum(int.from_bytes(body, "big") for kind, body in bench.sent if kind == Kind.HOLE)
    data = sum(len(body) for kind, body in bench.sent if kind == Kind.DATA)
    assert (holes + data, data < 1_000_000) == (20_000_000, True)


async def test_a_link_alone_is_followed_and_with_recursion_it_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    (tmp_path / "link").symlink_to("f")
    for recursive in (False, True):
        bench, receiver = Bench(tmp_path / "link", recursive=recursive), Receiver()
        await bench.send(receiver)
        assert [(entry.names, entry.target) for entry in receiver.entries] == [((b"link",), b"f" if recursive else b"")]


async def test_a_file_that_is_exchanged_for_a_link_is_not_read_through_it(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"open")
    (tmp_path / "secret").write_bytes(b"hush")
    bench, plain = Bench(tmp_path / "tree"), Receiver()

    def answer(kind: int, body: bytes) -> bytes:
        if kind == Kind.ENTRY and Entry.of(body).names[-1] == b"f":
            (tmp_path / "tree" / "f").unlink()
            (tmp_path / "tree" / "f").symlink_to("../secret")
        return plain(kind, body)

    await bench.send(answer)
    assert Kind.DATA not in bench.kinds()
    assert bench.progress.failed == 1


@pytest.mark.parametrize(
    "wrong",
    [
        positioned(Kind.WANT, 7, 0),
        positioned(Kind.WANT, 0, 8),
        positioned(Kind.WANT, 0, -2),
        numbered(Kind.DONE, 7),
        numbered(Kind.AGAIN, 7),
        record(Kind.FINISHED),
        record(Kind.WANT, b"short"),
        record(Kind.DONE),
    ],
)
async def test_answers_that_no_receiver_gives_end_the_copy(tmp_path: Path, wrong: bytes) -> None:
    (tmp_path / "f").write_bytes(b"content")
    with pytest.raises(RemoteError):
        await Bench(tmp_path / "f").send(lambda kind, _: wrong if kind == Kind.ENTRY else b"")


async def test_a_receiver_that_is_gone_ends_the_copy(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    with pytest.raises(EndedEarly):
        await Bench(tmp_path / "f").send(lambda kind, _: END if kind == Kind.ENTRY else b"")


def test_a_tree_is_not_entered_below_its_greatest_depth(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    found = [each for each in listed([top_of(tmp_path)], recursive=True) if isinstance(each, Fault)]
    assert len(found) == 1
    assert "more than 256 directories deep" in found[0].text
