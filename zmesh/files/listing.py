"""Lists the files, directories and links beneath the sources of a copy, in depth-first order.

A directory that is listed is never entered through a link, and what is no file, directory or link is left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from zmesh.files.beneath import MAX_DEPTH, Spot
from zmesh.files.partial import is_partial
from zmesh.files.places import name_of, written
from zmesh.files.progress import reason
from zmesh.files.records import Entry, Type


@dataclass(slots=True)
class Top:
    """A source: where it lies, the path that it was given as, and the name that it gets, None for its content alone."""

    spot: Spot
    path: bytes
    name: bytes | None


def find_tops(paths: Sequence[bytes], find: Callable[[bytes], Spot]) -> list[Top]:
    """Find all sources with `find`; none stays open if one of them raises. Raises as `find` does."""
    tops: list[Top] = []
    with ExitStack() as undo:
        undo.callback(close_tops, tops)
        for path in paths:
            tops.append(Top(find(path), path, name_of(path)))
        undo.pop_all()
    return tops


def close_tops(tops: Sequence[Top]) -> None:
    """Close the directories of the sources."""
    for top in tops:
        top.spot.close()


@dataclass(slots=True, eq=False)
class Item:
    """Something to be sent: `entry`, which lies at `inner` beneath the open directory `top`, and its path for errors.

    `index` is its number once it was announced.
    """

    entry: Entry
    top: int
    inner: tuple[bytes, ...]
    path: bytes
    index: int = field(default=-1)


@dataclass(frozen=True, slots=True)
class Leave:
    """All beneath a directory was listed."""

    item: Item


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that can't be read, or is left out: a line that names it."""

    text: str


def listed(tops: Sequence[Top], *, recursive: bool) -> Iterator[Item | Leave | Fault]:
    """All items beneath the sources, the end of each directory, and faults. To be read, and closed, in one thread."""
    for top in tops:
        parent, name = top.spot.parent, top.spot.name
        names = () if top.name is None else (top.name,)
        try:
            item = _item(parent, name or b".", names, parent, () if name is None else (name,), top.path)
        except OSError as error:
            yield Fault(reason(top.path, error))
            continue
        if not isinstance(item, Item):
            yield item or Fault(f"{written(top.path)} is what is left of a copy that was broken off")
        elif item.entry.type != Type.DIRECTORY:
            yield item
        elif recursive:
            yield from _tree(item, parent)
        else:
            yield Fault(f"{written(top.path)} is a directory: copy it with -r (recursive=True)")


def _tree(item: Item, parent: int) -> Iterator[Item | Leave | Fault]:
    """A directory, which lies in the open directory `parent`, and all beneath it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if len(item.entry.names) >= MAX_DEPTH:
            raise OSError(0, f"more than {MAX_DEPTH} directories deep")
        descriptor = os.open(item.inner[-1] if item.inner else b".", flags, dir_fd=parent)
    except OSError as error:
        yield Fault(reason(item.path, error))
        return
    yield item
    try:
        with os.scandir(descriptor) as entries:
            for each in entries:
                name = os.fsencode(each.name)
                path = item.path.rstrip(b"/") + b"/" + name
                try:
                    below = _item(descriptor, name, (*item.entry.names, name), item.top, (*item.inner, name), path)
                except OSError as error:
                    yield Fault(reason(path, error))
                    continue
                if isinstance(below, Item) and below.entry.type == Type.DIRECTORY:
                    yield from _tree(below, descriptor)
                elif below is not None:
                    yield below
    except OSError as error:
        yield Fault(reason(item.path, error))
    finally:
        os.close(descriptor)
    yield Leave(item)


def _item(
    parent: int, name: bytes, names: tuple[bytes, ...], top: int, inner: tuple[bytes, ...], path: bytes
) -> Item | Fault | None:
    """The entry at a path; None for a temporary file of a copy. Raises OSError."""
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    kind = _TYPES.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        return Fault(f"{written(path)} is a device, socket or FIFO, which is not copied")
    if is_partial(name):
        return None
    target = os.readlink(name, dir_fd=parent) if kind == Type.LINK else b""
    size = found.st_size if kind == Type.FILE else 0
    return Item(Entry(kind, names, stat.S_IMODE(found.st_mode), found.st_mtime_ns, size, target), top, inner, path)


_TYPES = {stat.S_IFREG: Type.FILE, stat.S_IFDIR: Type.DIRECTORY, stat.S_IFLNK: Type.LINK}
