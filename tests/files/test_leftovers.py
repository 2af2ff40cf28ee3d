"""The journal of what copies have left: deleted by age without another copy, also after a node was killed."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import zmesh
from zmesh.files import leftovers
from zmesh.files.leftovers import Leftovers
from zmesh.files.partial import WORTH_KEEPING, Partial, name_for
from zmesh.testing import eventually
from zmesh.trust import init

SIZE = 24_000_000
ALLOW = {"file:*": ["*"]}


def left_in(folder: Path, age: float = 1000.0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / os.fsdecode(name_for(os.urandom(16)))
    path.write_bytes(bytes(WORTH_KEEPING))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def use(journal: Leftovers, folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_PATH)
    try:
        path = journal.use(descriptor)
    finally:
        os.close(descriptor)
    assert path == os.fsencode(folder)
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Callable[[], Leftovers]:
    def again() -> Leftovers:
        read = Leftovers(tmp_path / "copies")
        read.load()
        return read

    return again


def test_what_a_copy_has_left_is_deleted_when_it_is_old(journal: Callable[[], Leftovers], tmp_path: Path) -> None:
    first = journal()
    first.release(use(first, tmp_path / "a"), left=True)
    first.release(use(first, tmp_path / "b"), left=False)
    old, young = left_in(tmp_path / "a"), left_in(tmp_path / "a", 10)
    again = journal()
    assert again.directories == [os.fsencode(tmp_path / "a")]
    assert again.sweep(100) == 1
    assert (old.exists(), young.exists()) == (False, True)
    assert journal().directories == [os.fsencode(tmp_path / "a")]
    assert again.sweep(5) == 1
    assert again.directories == journal().directories == []
    assert (tmp_path / "copies").stat().st_mode & 0o777 == 0o600


def test_what_a_killed_node_had_under_way_is_known_to_its_next_run(
    journal: Callable[[], Leftovers], tmp_path: Path
) -> None:
    use(journal(), tmp_path / "a")
    left_in(tmp_path / "a")
    assert journal().sweep(100) == 1


def test_one_that_is_being_written_is_not_deleted(journal: Callable[[], Leftovers], tmp_path: Path) -> None:
    first = journal()
    path = use(first, tmp_path / "a")
    partial = Partial.open(os.open(tmp_path / "a", os.O_PATH), bytes(16))
    partial.write([bytes(WORTH_KEEPING)])
    os.utime(tmp_path / "a" / os.fsdecode(name_for(bytes(16))), (0, 0))
    again = journal()
    assert again.sweep(0) == first.sweep(0) == 0
    assert again.directories == [path]
    assert partial.keep()
    first.release(path, left=True)
    assert again.sweep(0) == 1


def test_two_copies_into_a_directory_are_both_over_before_it_is_forgotten(
    journal: Callable[[], Leftovers], tmp_path: Path
) -> None:
    first = journal()
    paths = [use(first, tmp_path / "a") for _ in range(2)]
    first.release(paths[0], left=False)
    assert journal().directories == paths[:1]
    first.release(paths[1], left=False)
    assert journal().directories == []


def test_no_link_is_followed_and_what_is_gone_is_forgotten(journal: Callable[[], Leftovers], tmp_path: Path) -> None:
    first = journal()
    for name in ("a", "b"):
        first.release(use(first, tmp_path / name), left=True)
        (tmp_path / name).rmdir()
    elsewhere = left_in(tmp_path / "elsewhere")
    (tmp_path / "a").symlink_to("elsewhere")
    assert first.sweep(0) == 0
    assert elsewhere.exists()
    assert first.directories == journal().directories == []


def test_it_remembers_no_more_than_so_many_directories(
    journal: Callable[[], Leftovers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "MOST_DIRECTORIES", 10)
    monkeypatch.setattr(leftovers, "MAX_RECORDS", 20)
    first = journal()
    for number in range(100):
        first.release(use(first, tmp_path / f"d{number}"), left=True)
        assert (tmp_path / "copies").read_bytes().count(b"\0") <= 22
    assert first.directories == journal().directories == [os.fsencode(tmp_path / f"d{n}") for n in range(90, 100)]
    assert first.forgotten == 90


@pytest.mark.parametrize("content", [b"", b"\0\0", b"+/a", b"garbage\0-x\0+relative\0", os.urandom(4096)])
def test_whatever_is_in_its_file_it_is_read(journal: Callable[[], Leftovers], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "copies").write_bytes(content)
    first = journal()
    first.sweep(0)
    first.release(use(first, tmp_path / "a"), left=True)
    assert journal().directories == [os.fsencode(tmp_path / "a")]


async def test_a_node_deletes_at_its_start_what_a_broken_copy_has_left(tmp_path: Path) -> None:
    source, there, state = tmp_path / "source", tmp_path / "there", tmp_path / "state"
    source.write_bytes(os.urandom(SIZE))
    there.mkdir()
    init(name="lab", node_id="edge", state=state)
    async with zmesh.Controller(identity=state, allow=ALLOW) as node:

        def stop(progress: zmesh.Progress) -> None:
            if progress.sent > SIZE // 4:
                copying.cancel()

        copying = asyncio.ensure_future(node.copy(source, f"edge:{there}/", on_progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await copying
        await eventually(lambda: not node.stats().serving)
    (left,) = there.iterdir()
    assert (state / "copies").read_bytes() == b"+" + os.fsencode(there) + b"\0"
    async with zmesh.Controller(identity=state, allow=ALLOW):
        assert left.exists()  # it is young
    os.utime(left, (0, 0))
    async with zmesh.Controller(identity=state, allow=ALLOW):
        await eventually(lambda: not left.exists())
        await eventually(lambda: (state / "copies").read_bytes().endswith(b"\0-" + os.fsencode(there) + b"\0"))
