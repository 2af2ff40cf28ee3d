"""What is left of copies that were broken off: found again, bounded in number, and deleted by age."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmesh.files.partial import MOST_KEPT, WORTH_KEEPING, Partial, clean, is_partial, key_of, name_for


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_PATH)
    yield descriptor
    os.close(descriptor)


def opened(folder: int, key: bytes) -> Partial:
    return Partial.open(os.dup(folder), key)


def left(tmp_path: Path, key: bytes, age: float) -> Path:
    path = tmp_path / os.fsdecode(name_for(key))
    path.write_bytes(b"x" * WORTH_KEEPING)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_the_key_differs_with_each_part_and_with_where_one_ends() -> None:
    keys = {key_of(b"a", 1, 2, b"c"), key_of(b"b", 1, 2, b"c"), key_of(b"a", 1, 3, b"c"), key_of(b"a", 1, 2, b"d"),
            key_of(b"a1", 2, b"c"), key_of(b"a", 12, b"c")}  # fmt: skip
    assert len(keys) == 6
    assert is_partial(name_for(key_of(b"a")))
    assert not is_partial(b".zmesh-notes.part")


def test_what_is_worth_it_is_kept_and_found_again_and_little_is_not(folder: int, tmp_path: Path) -> None:
    for size, kept in ((WORTH_KEEPING, True), (WORTH_KEEPING - 1, False)):
        partial = opened(folder, bytes(16))
        partial.write([b"x" * size])
        partial.keep()
        assert bool(os.listdir(tmp_path)) == kept
        again = opened(folder, bytes(16))
        assert again.size == (size if kept else 0)
        again.drop()
        assert os.listdir(tmp_path) == []


def test_it_is_for_this_user_alone_until_it_is_whole(folder: int, tmp_path: Path) -> None:
    partial = opened(folder, bytes(16))
    assert (tmp_path / os.fsdecode(name_for(bytes(16)))).stat().st_mode & 0o777 == 0o600
    partial.write([b"content"])
    partial.commit(b"name", 0o644, 1_500_000_000_000_000_000)
    found = (tmp_path / "name").stat()
    assert (found.st_mode & 0o777, found.st_mtime) == (0o644, 1_500_000_000)
    assert os.listdir(tmp_path) == ["name"]


def test_a_directory_in_the_place_of_the_name_leaves_no_temporary(folder: int, tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    partial = opened(folder, bytes(16))
    with pytest.raises(OSError, match="directory"):
        partial.commit(b"name", 0o644, 0)
    assert os.listdir(tmp_path) == ["name"]


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "hard link"])
def test_something_else_of_its_name_is_left_alone(folder: int, tmp_path: Path, kind: str) -> None:
    place = tmp_path / os.fsdecode(name_for(bytes(16)))
    (tmp_path / "other").write_bytes(b"other")
    match kind:
        case "directory":
            place.mkdir()
        case "fifo":
            os.mkfifo(place)
        case "link":
            place.symlink_to("other")
        case "hard link":
            os.link(tmp_path / "other", place)
    partial = opened(folder, bytes(16))
    partial.write([b"content"])
    partial.commit(b"name", 0o644, 0)
    assert (tmp_path / "name").read_bytes() == b"content"
    assert (tmp_path / "other").read_bytes() == b"other"
    assert os.path.lexists(place)


def test_what_is_old_is_deleted_unless_somebody_writes_it(folder: int, tmp_path: Path) -> None:
    old, young = left(tmp_path, b"o" * 16, 100), left(tmp_path, b"y" * 16, 10)
    used = opened(folder, b"u" * 16)
    used.write([b"x" * WORTH_KEEPING])
    in_use = tmp_path / os.fsdecode(name_for(b"u" * 16))
    os.utime(in_use, (0, 0))
    (tmp_path / ".zmesh-notes.part").write_text("not one of them")
    os.utime(tmp_path / ".zmesh-notes.part", (0, 0))
    assert clean(folder, 50) == (1, 2)
    assert not old.exists()
    assert young.exists()
    assert in_use.exists()
    assert (tmp_path / ".zmesh-notes.part").exists()
    used.drop()


def test_a_directory_keeps_no_more_than_so_many(folder: int, tmp_path: Path) -> None:
    for number in range(MOST_KEPT + 3):
        left(tmp_path, number.to_bytes(16, "big"), 1000 - number)
    assert clean(folder, 5000) == (3, MOST_KEPT)
    names = set(os.listdir(tmp_path))
    assert len(names) == MOST_KEPT
    assert not names & {os.fsdecode(name_for(number.to_bytes(16, "big"))) for number in range(3)}
