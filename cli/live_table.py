"""A table on stderr of what a command does at several nodes, while it runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence

from zmesh import Outcome, Outcomes, State
from zmesh_cli.tables import shortened, table
from zmesh_cli.terminal import STDERR, is_terminal, printable

EVERY = 0.2
RUNNING = "running"


class LiveTable:
    """A table that is redrawn every EVERY seconds until `close`, if stderr is a terminal: node, state, time, last line.

    What runs comes first, then what went wrong, and what is done last; what does not fit the screen is left out.
    """

    def __init__(self, nodes: Sequence[str], outcomes: Outcomes, ended: Sequence[Outcome]) -> None:
        self._nodes = nodes
        self._outcomes = outcomes
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._since: dict[str, float] = {}
        self._height = 0
        self._timer: asyncio.TimerHandle | None = None
        if is_terminal(STDERR):
            self._timer = self._loop.call_later(EVERY, self._draw)

    def erase(self) -> None:
        """Erase it, for something else to be printed; it is drawn again below that."""
        if self._height:
            _write(f"\x1b[{self._height}A\r\x1b[J")
            self._height = 0

    def close(self) -> None:
        """Erase it, and draw it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.erase()

    def _draw(self) -> None:
        columns, rows = _size()
        lines = [line[:columns] for line in self._lines(columns, rows - 2)]
        self.erase()
        _write("".join(f"{line}\n" for line in lines))
        self._height = len(lines)
        self._timer = self._loop.call_later(EVERY, self._draw)

    def _lines(self, columns: int, rows: int) -> Iterator[str]:
        now = self._loop.time()
        running = self._outcomes.running
        self._since = {node: self._since.get(node, now) for node in running}
        count, ended = len(self._nodes), len(self._ended)
        waiting = count - ended - len(running)
        yield f"{ended} of {count} nodes have ended, {len(running)} running, {waiting} waiting"
        cells = [(node, RUNNING, f"{now - since:.0f} s", self._outcomes.last_line(node))
                 for node, since in self._since.items()]  # fmt: skip
        for each in sorted(self._ended, key=lambda outcome: outcome.state == State.DONE):
            last = (each.stderr or each.stdout).decode(errors="replace").rstrip().rpartition("\n")[2]
            cells.append((each.node, each.state, f"{each.seconds:.0f} s", last))
        names = max(len(node) for node in self._nodes)
        room = max(10, columns - names - 30)
        shown = [(*cell[:3], shortened(printable(cell[3]), room)) for cell in cells[: max(1, rows - 2)]]
        yield from table(("NODE", "STATE", "TIME", "LAST LINE"), shown, columns, names=1)


def _size() -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(STDERR)
    except OSError:
        return 80, 24
    return columns or 80, rows or 24


def _write(text: str) -> None:
    try:
        os.write(STDERR, text.encode(errors="backslashreplace"))
    except OSError:
        pass
