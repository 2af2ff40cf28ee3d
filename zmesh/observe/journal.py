"""Operator log of a node: linked, lost, recovered, refused, unreachable, joined, left.

They go to the logger `zmesh.observe.journal`, which `zmesh node` shows; other programs show it if they configure it. A
failure that lasts is logged at intervals that double, a neighbour that comes back with how long it was away. Of each
kind BURST are logged at once; those past it wait, and the last one stands for all with how many more there were. So
neither a link that flaps nor a thousand nodes that join fill a disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from zmesh.core.durations import milliseconds, span
from zmesh.core.effects import Report
from zmesh.core.message import LinkId
from zmesh.runtime import log_line

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # without it, a program that configures nothing would be shown the warnings

BURST = 10
"""Lines of one kind that are logged at once; one more every REFILL seconds in which none waits."""
BURST_REFUSED = 4
"""The same for links and connections that are refused: with those that follow, 9 lines in the first minute."""
REFILL = 30.0
PAUSE_FIRST = 1.0
"""Seconds until those that came after the burst are logged as one line; twice as long each time, up to PAUSE_LAST."""
PAUSE_LAST = 600.0
REPEAT_FIRST = 10.0
"""Seconds until a failure that lasts is logged again; twice as long each time, up to REPEAT_LAST."""
REPEAT_LAST = 3600.0
RTT_WITHIN = 1.0
"""Seconds that the line about a new link waits for its first round-trip time."""
MAX_REMEMBERED = 1024
"""Neighbours whose link was lost that are remembered."""
MAX_REASONS = 16
"""Different failures of one peer that are logged at once each."""

_REFUSED = ("refused", "stranger")
_LOGGED_STRANGERS = ("plaintext", "encrypted", "wrong_key", "not_admitted")
"""Those that are not are what port scanners and health checks do all the time; they are counted."""

Line = tuple[int, str]
"""The level of a line, and its text."""
LineOfKind = tuple[int, str, str]
"""The level of a line, its text, and its kind, such as `linked`, which is the `event` of its record."""


class Neighbour(NamedTuple):
    """The other end of a link: its address, whether this end dialled, and the round-trip time in seconds, if known."""

    where: str
    dialled: bool
    rtt: float | None


class Place(Protocol):
    """The node as the journal reads it."""

    def neighbour(self, link: LinkId) -> Neighbour:
        """The other end of a link that is up, or about to be closed."""

    def last_heard_by(self, node: str) -> str | None:
        """The other node that was linked last to one that has left; None if unknown."""


class _Kind:
    """The lines of one kind, of which the last of those that are too many waits to be logged for all of them."""

    __slots__ = ("_burst", "_more", "_pause", "_refilled", "_tokens", "_waiting", "due")

    def __init__(self, burst: int = BURST) -> None:
        self.due = float("inf")
        self._burst = float(burst)
        self._tokens = self._burst
        self._refilled = 0.0
        self._pause = PAUSE_FIRST
        self._waiting: Line | None = None
        self._more = 0

    def note(self, line: Line, now: float) -> Line | None:
        """The line, if it is to be logged now."""
        if self._waiting is not None:
            self._waiting, self._more = line, self._more + 1
            return None
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) / REFILL)
        self._refilled = now
        if self._tokens >= self._burst:
            self._pause = PAUSE_FIRST
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return line
        self._waiting, self.due = line, now + self._pause
        return None

    def take(self, now: float) -> Line | None:
        """The line that has waited, for itself and for those before it."""
        if self._waiting is None:
            return None
        (level, text), more = self._waiting, self._more
        self._waiting, self._more, self.due, self._refilled = None, 0, float("inf"), now
        self._pause = min(PAUSE_LAST, 2 * self._pause)
        return (level, f"{text}, and {more} more" if more else text)


class _Failing:
    """A peer that can't be dialled."""

    __slots__ = ("logged_at", "pause", "reasons", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.logged_at = now
        self.pause = REPEAT_FIRST
        self.reasons: set[str] = set()


class _Fresh(NamedTuple):
    """A link that came up just now; `again`: there was one before; `away`: the seconds that there was none."""

    node: str
    until: float
    again: bool
    away: float | None


class Lines:
    """Turns the reports of a node into lines of the log; `now` in seconds."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kinds: dict[str, _Kind] = {}
        self._leaves: set[LinkId] = set()
        self._ends: dict[LinkId, str] = {}
        self._fresh: dict[LinkId, _Fresh] = {}
        self._lost: dict[str, float] = {}
        self._failing: dict[str, _Failing] = {}

    def note(self, report: Report, now: float) -> Iterator[LineOfKind]:
        """The lines to log now for a report."""
        match report.event:
            case "link_up" if report.link is not None:
                yield from self._on_link_up(report, report.link, now)
            case "link_lost" if report.link is not None:
                yield from self._on_link_lost(report, report.link, now)
            case "link_refused" if report.link is not None:
                yield from self._on_link_refused(report, report.link, now)
            case "dial_failed":
                url, _, reason = report.detail.partition(": ")
                yield from self._on_dial_failed(url, reason, now)
            case "stranger_refused":
                code, _, text = report.detail.partition(": ")
                if code in _LOGGED_STRANGERS:
                    yield from self._emit("stranger", (logging.WARNING, f"refused a connection {text}"), now)
            case "node_joined":
                yield from self._linked(str(report.node), now)
                yield from self._emit("joined", (logging.INFO, f"{report.node} joined the mesh"), now)
            case "node_left":
                witness = self._place.last_heard_by(str(report.node))
                by = f", last heard by {witness}" if witness is not None else ""
                yield from self._emit("left", (logging.INFO, f"{report.node} left the mesh{by}"), now)
            case "route_changed":
                if self._fresh:
                    yield from self._linked(str(report.node), now)
            case "not_trusted" if report.link is None:  # the keys of a leaf
                text = f"refused a leaf of {report.node}: {report.detail}"
                yield from self._emit("refused", (logging.WARNING, text), now)
            case "duplicate_id" | "record_cut" if report.link is None:  # else the line of the refusal says it
                yield from self._emit(report.event, (logging.WARNING, report.detail), now)
            case "certificate_expiring" | "certificate_renewed" | "trust_changed" | "clock_set":
                level = logging.WARNING if report.event in ("certificate_expiring", "clock_set") else logging.INFO
                yield from self._emit(report.event, (level, report.detail), now)
            case "configuration_changed":
                later = f"; at the next start: {report.text}" if report.text else ""
                text = f"settings changed: {report.detail or 'none yet'}{later}"
                yield from self._emit(report.event, (logging.INFO, text), now)
            case "id_taken":
                text = f"the id {report.node} is taken: {report.detail}; this node was started later, and should end"
                yield from self._emit(report.event, (logging.WARNING, text), now)

    def tick(self, now: float) -> Iterator[LineOfKind]:
        """The lines that have waited for long enough."""
        for link in [link for link, fresh in self._fresh.items() if fresh.until <= now]:
            yield from self._emit("linked", self._linked_line(link), now)
        for name, kind in self._kinds.items():
            if kind.due <= now and (line := kind.take(now)) is not None:
                yield (*line, name)

    def close(self, now: float) -> Iterator[LineOfKind]:
        """All lines that wait."""
        for link in list(self._fresh):
            yield from self._emit("linked", self._linked_line(link), now)
        for name, kind in self._kinds.items():
            if (line := kind.take(now)) is not None:
                yield (*line, name)

    @property
    def due(self) -> float:
        """When `tick` has a line to log."""
        fresh = [fresh.until for fresh in self._fresh.values()]
        return min([*fresh, *(kind.due for kind in self._kinds.values())], default=float("inf"))

    def _emit(self, kind: str, line: Line, now: float) -> Iterator[LineOfKind]:
        kept = self._kinds.get(kind)
        if kept is None:
            kept = self._kinds[kind] = _Kind(BURST_REFUSED if kind in _REFUSED else BURST)
        ready = kept.note(line, now)
        if ready is not None:
            yield (*ready, kind)

    def _on_link_up(self, report: Report, link: LinkId, now: float) -> Iterator[LineOfKind]:
        if report.detail == "leaf":  # such as a command, which comes and goes
            self._leaves.add(link)
            return
        node, end = str(report.node), self._place.neighbour(link)
        self._ends[link] = f"at {end.where}" if end.dialled else f"from {end.where}"
        lost, failing = self._lost.pop(node, None), self._failing.pop(end.where, None)
        since = [lost] if lost is not None else []
        since += [failing.since] if failing is not None and end.dialled else []
        self._fresh[link] = _Fresh(node, now + RTT_WITHIN, lost is not None, now - min(since) if since else None)
        if end.rtt is not None:
            yield from self._emit("linked", self._linked_line(link), now)

    def _linked(self, node: str, now: float) -> Iterator[LineOfKind]:
        """Routes lead over the links to a neighbour as soon as their round-trip time is known."""
        for link in [link for link, fresh in self._fresh.items() if fresh.node == node]:
            if self._place.neighbour(link).rtt is not None:
                yield from self._emit("linked", self._linked_line(link), now)

    def _linked_line(self, link: LinkId) -> Line:
        fresh, rtt = self._fresh.pop(link), self._place.neighbour(link).rtt
        again = " again" if fresh.again else ""
        after = f" after {span(fresh.away)}" if fresh.away is not None else ""
        measured = f" ({milliseconds(rtt)})" if rtt is not None else ""
        return (logging.INFO, f"linked{again} with {fresh.node} {self._ends[link]}{after}{measured}")

    def _on_link_lost(self, report: Report, link: LinkId, now: float) -> Iterator[LineOfKind]:
        if link in self._leaves:
            self._leaves.discard(link)
            return
        if link in self._fresh:
            yield from self._emit("linked", self._linked_line(link), now)
        node, end = str(report.node), self._ends.pop(link, "")
        self._lost.setdefault(node, now)
        if len(self._lost) > MAX_REMEMBERED:
            del self._lost[next(iter(self._lost))]
        level = logging.INFO if report.detail.startswith("they left: ") else logging.WARNING
        yield from self._emit("lost", (level, f"lost the link with {node} {end}: {report.detail}"), now)

    def _on_link_refused(self, report: Report, link: LinkId, now: float) -> Iterator[LineOfKind]:
        end = self._place.neighbour(link)
        where = f"at {end.where}" if end.dialled else f"from {end.where}"
        who, text = report.node or "a node", report.detail
        if text.startswith("they refuse: "):
            text = f"refused by {report.node or 'the node'} {where}: {text.removeprefix('they refuse: ')}"
        else:
            text = f"refused {who} {where}: {text.removeprefix('we refuse: ')}"
        yield from self._emit("refused", (logging.WARNING, text), now)

    def _on_dial_failed(self, url: str, reason: str, now: float) -> Iterator[LineOfKind]:
        failing = self._failing.setdefault(url, _Failing(now))
        fresh = reason not in failing.reasons and len(failing.reasons) < MAX_REASONS
        if not fresh and now < failing.logged_at + failing.pause:
            return
        failing.reasons.add(reason)
        if not fresh:
            failing.pause = min(REPEAT_LAST, 2 * failing.pause)
        failing.logged_at = now
        lasts = f" for {span(now - failing.since)}" if not fresh else ""
        yield from self._emit(
            "unreachable", (logging.WARNING, f"can't reach {url}: {reason}{lasts}; still trying"), now
        )


class Journal:
    """Logs the lines of one node."""

    def __init__(self, node: str, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        self._node = node
        self._lines = Lines(place)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")

    def note(self, report: Report) -> None:
        """Log a report of the node, if it is one for operators."""
        if log.isEnabledFor(logging.WARNING):
            self._log(self._lines.note(report, time.monotonic()))
            self._arm()

    def close(self) -> None:
        """Log all pending lines; the node is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._log(self._lines.close(time.monotonic()))

    def _log(self, lines: Iterator[LineOfKind]) -> None:
        for level, text, kind in lines:
            log_line(log, level, "%s: %s", self._node, text, extra={"node": self._node, "event": kind})

    def _arm(self) -> None:
        due = self._lines.due
        if due >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer, self._due = None, float("inf")
        self._log(self._lines.tick(time.monotonic()))
        self._arm()
