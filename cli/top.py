"""`zmesh top`: what all nodes do, again and again: a screen that is drawn anew, or tables one after the other.

Each node is asked for a few counters once an interval, and rates are made of two of them here. All requests together
are at most ASKED a second, whatever the number of nodes: with more nodes the interval grows. So neither a node nor the
one that the command joins at spends more than a hundredth of a core on it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from zmesh import Member, NodeLoad, Target
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.keys import Keys
from zmesh_cli.local_sockets import Place
from zmesh_cli.nodes import chosen
from zmesh_cli.quantities import delay, rate, size
from zmesh_cli.session import Session
from zmesh_cli.status import DEFAULT_TIMEOUT, unless_too_old
from zmesh_cli.tables import table, width_of_stdout, wrapped
from zmesh_cli.terminal import STDOUT, Output, is_terminal, record

ASKED = 15.0
"""Nodes that are asked in a second, at most."""
FIRST = 1.0
"""Seconds between the first two samples, at least: what is shown then is a rate already."""
REFRESH = 10
"""Samples after which the list of nodes is asked for again."""
CLEAR, ERASE_LINE, ERASE_REST = "\x1b[H", "\x1b[K", "\x1b[J"
SCREEN, NO_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of a node between two samples, per second, and its gauges; None where it has not answered."""

    node: str
    requests: float | None = None
    bytes_in: float | None = None
    bytes_out: float | None = None
    queued_bytes: int | None = None
    lag: float | None = None
    running: int | None = None
    cpu: float | None = None


SORTS = {
    "name": ("n", "node"),
    "requests": ("r", "requests"),
    "in": ("i", "bytes_in"),
    "out": ("o", "bytes_out"),
    "queue": ("u", "queued_bytes"),
    "lag": ("l", "lag"),
    "work": ("w", "running"),
    "cpu": ("c", "cpu"),
}
"""Sort orders: the key to press, and the field."""
QUIT = ("q", "\x04")
KEYS = f"sort by {' '.join(f'{key}:{name}' for name, (key, _) in SORTS.items())} q:quit"


def checked_sort(name: str) -> str:
    """The column that a command is given to sort by. Raises Failure for one that there is not."""
    if name not in SORTS:
        raise Failure(f"--sort takes one of {', '.join(SORTS)}, not {name!r}", USAGE)
    return name


def rates(node: str, before: NodeLoad | None, now: NodeLoad | None) -> Rates:
    """The rates of a node between two samples. One that was restarted meanwhile counts from its start."""
    if now is None:
        return Rates(node)
    if before is not None and now.uptime > before.uptime:
        seconds, base = now.uptime - before.uptime, before
    else:
        seconds, base = max(now.uptime, 1e-6), NodeLoad(node, now.uptime, 0, 0, 0, 0, 0, now.lag, type(now.cpu)(0.0), 0)
    return Rates(
        node,
        (now.served - base.served) / seconds,
        (now.bytes_in - base.bytes_in) / seconds,
        (now.bytes_out - base.bytes_out) / seconds,
        now.queued_bytes,
        now.lag,
        now.running,
        (now.cpu - base.cpu) / seconds,
    )


def interval_for(nodes: int, wanted: float) -> float:
    """Seconds between two samples of so many nodes."""
    return max(wanted, nodes / ASKED)


async def top(place: Place, target: Target, *, interval: float, sort: str, count: int | None, as_json: bool) -> int:
    """Show what the nodes of a target do until Ctrl-C, or for `count` samples."""
    output = Output()
    on_screen = is_terminal(STDOUT) and not as_json and count is None
    async with Session(place, None) as session:
        view = _View(session, target, output, sort, as_json=as_json, on_screen=on_screen)
        with Keys(view.on_key) if on_screen else nullcontext():
            await view.run(interval, count)
    return DONE


class _View:
    """The samples of one command, and how they are shown."""

    def __init__(
        self, session: Session, target: Target, output: Output, sort: str, *, as_json: bool, on_screen: bool
    ) -> None:
        self._session = session
        self._target = target
        self._output = output
        self._sort = sort
        self._as_json = as_json
        self._on_screen = on_screen
        self._loads: dict[str, NodeLoad | None] = {}
        self._rates: list[Rates] = []
        self._pause = 0.0
        self._quit = asyncio.Event()
        self._pressed = asyncio.Event()

    def on_key(self, key: str) -> None:
        """A key was pressed: sort by another column, or end."""
        if key in QUIT:
            self._quit.set()
        for name, (each, _) in SORTS.items():
            if key == each:
                self._sort = name
        self._pressed.set()

    async def run(self, interval: float, count: int | None) -> None:
        """Take samples and show them."""
        loop, shown, samples = asyncio.get_running_loop(), 0, 0
        nodes: list[str] = []
        if self._on_screen:
            await self._output.text(SCREEN)
        try:
            while not self._quit.is_set() and (count is None or shown < count):
                began = loop.time()
                if samples % REFRESH == 0:
                    nodes = await self._nodes()
                self._pause = interval_for(len(nodes), FIRST if samples == 0 else interval)
                await self._sample(nodes)
                samples += 1
                if samples > 1:
                    await self._show()
                    shown += 1
                if count is None or shown < count:
                    await self._wait(began + self._pause - loop.time())
        finally:
            if self._on_screen:
                await self._output.text(NO_SCREEN)

    async def _nodes(self) -> list[str]:
        session = self._session
        asked = session.controller.members(session.target, timeout=DEFAULT_TIMEOUT)
        found: list[Member] = chosen(await unless_too_old(session.target, asked), self._target)
        return [member.node for member in found if member.reachable]

    async def _sample(self, nodes: list[str]) -> None:
        """Ask all nodes once, spread over the interval."""
        before, now = self._loads, dict[str, NodeLoad | None]()
        async with self._session.controller.loads(nodes, timeout=max(self._pause, 2.0)) as loads:
            async for node, load in loads:
                now[node] = load
                if self._quit.is_set():
                    return
                if len(nodes) > ASKED:
                    await asyncio.sleep(0.9 / ASKED)
        self._loads = now
        self._rates = [rates(node, before.get(node), now.get(node)) for node in nodes]

    async def _wait(self, seconds: float) -> None:
        """Wait until the next sample is due, and show the last one in another order when a key is pressed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 and not self._quit.is_set():
            self._pressed.clear()
            try:
                await asyncio.wait_for(self._pressed.wait(), left)
            except TimeoutError:
                return
            if not self._quit.is_set() and self._rates:
                await self._show()

    async def _show(self) -> None:
        if self._as_json:
            text = "".join(record("zmesh.top/1", **_as_json(each)) for each in ordered(self._rates, self._sort))
        else:
            lines = list(render(self._rates, self._sort, self._pause, width_of_stdout()))
            if self._on_screen:
                rows = _rows()
                lines += wrapped(KEYS.split(), width_of_stdout(), first="", rest="")
                text = CLEAR + "".join(f"{line}{ERASE_LINE}\n" for line in lines[: rows - 1]) + ERASE_REST
            else:
                text = "".join(f"{line}\n" for line in lines) + "\n"
        await self._output.text(text)


def ordered(found: list[Rates], sort: str) -> list[Rates]:
    """The rows in the order of a column: names from the first, numbers from the largest, silent nodes at the end."""
    field = SORTS[sort][1]
    if field == "node":
        return sorted(found, key=lambda each: each.node)
    return sorted(found, key=lambda each: (each.cpu is None, -(getattr(each, field) or 0.0), each.node))


def render(found: list[Rates], sort: str, pause: float, width: int) -> Iterator[str]:
    """The lines of one sample."""
    silent = sum(each.cpu is None for each in found)
    yield f"{len(found)} nodes every {pause:g} s, by {sort}" + (f"; {silent} do not answer" if silent else "")
    head = ("NODE", "REQ/S", "IN/S", "OUT/S", "QUEUE", "LAG", "WORK", "CPU")
    yield from table(head, [_cells(each) for each in ordered(found, sort)] or [], width, names=1)


def _cells(each: Rates) -> tuple[str, ...]:
    if each.cpu is None:
        return (each.node, *("-" for _ in range(7)))
    return (
        each.node,
        rate(each.requests or 0.0),
        size(each.bytes_in or 0.0),
        size(each.bytes_out or 0.0),
        size(each.queued_bytes or 0),
        delay(each.lag or 0.0),
        str(each.running),
        f"{100 * each.cpu:.1f}%" if each.cpu < 0.0995 else f"{100 * each.cpu:.0f}%",
    )


def _as_json(each: Rates) -> dict[str, object]:
    def shown(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    return {
        "node": each.node,
        "requests_per_s": shown(each.requests),
        "bytes_in_per_s": shown(each.bytes_in),
        "bytes_out_per_s": shown(each.bytes_out),
        "queued_bytes": each.queued_bytes,
        "lag_s": shown(each.lag),
        "running": each.running,
        "cpu": shown(each.cpu),
    }


def _rows() -> int:
    try:
        return os.get_terminal_size(STDOUT).lines or 24
    except OSError:
        return 24
