"""The counters of a node, and its detailed log; `zmesh.observe.journal` has the operator's log."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from zmesh.core.effects import Report
from zmesh.core.limits import Rate, TokenBucket
from zmesh.runtime import log_line

log = logging.getLogger(__name__)

MAX_KEYS = 256
"""Different counters; an event that would need another one is counted as `other` of its kind."""
LINES = Rate(1, 50)
"""Lines of one event in the log; the number of suppressed ones is added to the next."""

_BY_REASON = frozenset(
    ("frame_dropped", "overloaded", "unreachable", "route_refused", "record_refused", "stranger_refused")
)
_REMOTE_REASONS = frozenset(
    ("no_route", "left", "gone", "restarted", "full", "no_key", "no_grants", "not_trusted", "blocked", "queued")
)
"""The reasons of `unreachable`: that text is another node's, which may say whatever it likes."""
_LEVELS = {
    "link_suspect": logging.INFO,
    "link_quarantined": logging.INFO,
}


class Telemetry:
    """Counters by event (and reason), and a line of the log for each, limited by LINES."""

    def __init__(self, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._lines: dict[str, TokenBucket] = {}
        self._left_out: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def note(self, report: Report) -> None:
        """Count a report, and log it at the level of its event."""
        event = report.event
        self.counts[self._key(report)] += report.count
        level = _LEVELS.get(event, logging.DEBUG)
        if log.isEnabledFor(level) and self._may_log(event):
            what = f" {report.node}" if report.node else ""
            link = f" (link {report.link})" if report.link else ""
            more = f", and {count} more like it" if (count := self._left_out.pop(event, 0)) else ""
            why = f": {report.detail}" if report.detail else ""
            log_line(log, level, "%s: %s%s%s%s%s", self._node, event.replace("_", " "), what, link, why, more)

    def _key(self, report: Report) -> str:
        """The counter of a report. The number of counters is bounded, whatever others put into reports."""
        event = report.event
        if event not in _BY_REASON:
            return event
        reason = report.detail.partition(":")[0]
        key = f"{event}:{reason}"
        if event == "unreachable" and reason not in _REMOTE_REASONS:
            return f"{event}:other"
        return key if key in self.counts or len(self.counts) < MAX_KEYS else f"{event}:other"

    def _may_log(self, event: str) -> bool:
        """True if a line about that event may be logged; else it is counted for the next one."""
        now = self._clock()
        bucket = self._lines.get(event)
        if bucket is None:
            bucket = self._lines[event] = TokenBucket(LINES, now)
        if not bucket.has(now):
            self._left_out[event] += 1
            return False
        bucket.spend(1)
        return True
