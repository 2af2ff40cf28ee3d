"""What a node counts of what happens to it, and logs in detail; the lines for operators are in `zmesh.journal`."""

from __future__ import annotations

import logging
from collections import Counter

from zmesh.core.effects import Report

log = logging.getLogger(__name__)

_LEVELS = {
    "link_doubted": logging.INFO,
    "link_held": logging.INFO,
}


class Telemetry:
    """Counters by event (and reason), and a line in the log for who looks into what happens."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.counts: Counter[str] = Counter()

    def note(self, report: Report) -> None:
        """Count a report, and log it at the level of its event."""
        event = report.event
        if event in ("frame_dropped", "overloaded", "unreachable"):
            self.counts[f"{event}:{report.detail.partition(':')[0]}"] += 1
        else:
            self.counts[event] += 1
        level = _LEVELS.get(event, logging.DEBUG)
        if log.isEnabledFor(level):
            what = f" {report.node}" if report.node else ""
            link = f" (link {report.link})" if report.link else ""
            log.log(level, "%s: %s%s%s%s", self._node, event.replace("_", " "), what, link,
                    f": {report.detail}" if report.detail else "")  # fmt: skip
