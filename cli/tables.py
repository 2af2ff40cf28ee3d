"""Tables and lists for people, laid out to a width in columns.

The width is that of the terminal, and `COLUMNS` in the environment goes before it. Without either, as in a pipe or a
file, there is no limit: nothing is shortened there, since the reader may be a program.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from zmesh_cli.terminal import STDOUT, printable

MIN_WIDTH = 60
"""Columns that a layout needs; a terminal that is narrower wraps the lines."""

MIN_NAME = 8
"""Columns that a shortened name keeps."""

UNLIMITED = 1 << 30

INDENT = "  "
GAP = "  "
ELLIPSIS = "…"
NOTHING = "-"


def width_of_stdout() -> int:
    """The columns that a line may have."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return max(MIN_WIDTH, int(columns))
    try:
        columns_of_terminal = os.get_terminal_size(STDOUT).columns
    except OSError:
        return UNLIMITED
    return max(MIN_WIDTH, columns_of_terminal) if columns_of_terminal else UNLIMITED


def shortened(text: str, width: int) -> str:
    """The text in at most `width` columns: of a longer one the start, an ellipsis, and the end, where ids differ."""
    if len(text) <= width:
        return text
    start = (width - len(ELLIPSIS)) // 2
    return f"{text[:start]}{ELLIPSIS}{text[len(text) - (width - start - len(ELLIPSIS)) :]}"


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, names: int, note: bool = False
) -> Iterator[str]:
    """The lines of a table; columns of numbers are right-aligned.

    The first `names` columns hold names, which share what the other columns leave, and are shortened to that. With
    `note` the last column holds prose; where there is no room beside the others, it follows below each row (`-` does
    not).
    """
    cells = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    numbers = [all(row[column].isdigit() for row in cells[1:]) for column in range(len(head))]
    below = note and len(INDENT) + sum(widths) + len(GAP) * (len(widths) - 1) > width
    shown = len(head) - below
    rest = width - len(INDENT) - len(GAP) * (shown - 1) - sum(widths[names:shown])
    widths[:names] = _share(widths[:names], rest)
    for index, row in enumerate(cells):
        columns = [
            cell.rjust(size) if number else shortened(cell, size).ljust(size)
            for cell, size, number in zip(row[:shown], widths, numbers, strict=False)
        ]
        yield (INDENT + GAP.join(columns)).rstrip()
        if below and index and row[-1] != NOTHING:
            yield from wrapped(row[-1].split(), width, first=2 * INDENT, rest=2 * INDENT)


def groups(lists: Mapping[str, Sequence[str]], width: int) -> Iterator[str]:
    """The lines of a mapping from nodes to lists of words, with one paragraph for all nodes whose lists are equal.

    Where most of several nodes have the same list, they are "the other N nodes", after those that differ.
    """
    nodes: dict[tuple[str, ...], list[str]] = {}
    for node, words in lists.items():
        nodes.setdefault(tuple(words), []).append(node)
    by_size = sorted(nodes.items(), key=lambda group: len(group[1]))  # stable: the order of names within a size
    for index, (words, members) in enumerate(by_size):
        if len(members) == len(lists) > 1:
            who = [f"all {len(members)} nodes:"]
        elif index == len(by_size) - 1 and len(members) > max(2, len(lists) // 2):
            who = [f"the other {len(members)} nodes:"]
        else:
            who = [f"{name}," for name in members[:-1]] + [f"{members[-1]}:"]
        what = [f"{word}," for word in words[:-1]] + list(words[-1:]) if words else ["none"]
        yield from wrapped([printable(word) for word in (*who, *what)], width, first=INDENT, rest=2 * INDENT)


def wrapped(words: Sequence[str], width: int, *, first: str, rest: str) -> Iterator[str]:
    """Lines of words, the first one indented by `first`; a word that is longer than a line is shortened."""
    line = first
    for word in words:
        fitting = shortened(word, width - len(rest))
        if line.strip() and len(line) + len(fitting) > width:
            yield line.rstrip()
            line = rest
        line += f"{fitting} "
    yield line.rstrip()


def _share(wanted: Sequence[int], available: int) -> list[int]:
    """Widths that add up to at most `available`: for each column what it wants, or an equal share of what is left."""
    widths = list(wanted)
    order = sorted(range(len(widths)), key=widths.__getitem__)
    for left, index in zip(range(len(widths), 0, -1), order, strict=True):
        widths[index] = min(widths[index], max(MIN_NAME, available // left))
        available -= widths[index]
    return widths
