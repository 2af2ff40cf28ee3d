"""When a certificate is to be renewed, and when its node warns that it ends; pure, as times come in as arguments."""

from __future__ import annotations

RETRY_FIRST = 60.0
"""Seconds until a renewal that failed is tried again; twice as long each time, up to RETRY_LAST."""
RETRY_LAST = 3600.0
LOOK_AGAIN = 600.0
"""Seconds until the clock is read again at the latest, since it may be set meanwhile."""
WARN_BELOW = (0.1, 1 / 3)
"""Parts of the validity that are left when a warning is due."""
DAY = 86400.0


class Schedule:
    """The renewal of one certificate; all times in seconds since 1970."""

    def __init__(self) -> None:
        self._retry_at = 0.0
        self._pause = RETRY_FIRST
        self._warned_at: float | None = None

    def is_due(self, renews_at: float, now: float) -> bool:
        """Whether to renew it now."""
        if self._retry_at - now > RETRY_LAST:  # the clock was set back
            self._retry_at = now
        return now >= renews_at and now >= self._retry_at

    def failed(self, now: float) -> None:
        """Note that a renewal has failed, which delays the next try."""
        self._retry_at = now + self._pause
        self._pause = min(2 * self._pause, RETRY_LAST)

    def renewed(self) -> None:
        """Note that there is a new certificate."""
        self._retry_at, self._pause, self._warned_at = 0.0, RETRY_FIRST, None

    def warns(self, remaining: float, now: float) -> bool:
        """Whether to warn now, of a certificate of whose validity that part (1 to 0) is left: once a day."""
        if remaining > WARN_BELOW[-1]:
            return False
        if self._warned_at is not None and 0 <= now - self._warned_at < DAY:
            return False
        self._warned_at = now
        return True

    def wait(self, renews_at: float, now: float) -> float:
        """Seconds until `is_due` or `warns` may be true, LOOK_AGAIN at most."""
        due = max(renews_at, self._retry_at)
        return min(LOOK_AGAIN, max(1.0, due - now))


def warning(node_id: str, remaining: float, left: float, reason: str = "") -> str:
    """The text about a certificate of which the part `remaining` is left, which is `left` seconds."""
    why = f" ({reason})" if reason else ""
    if left <= 0:
        return (
            f"the certificate of {node_id!r} has expired, and it could not be renewed{why}; it may still be, once a "
            f"node with the authority's key can be reached; else: zmesh invite {node_id} there, and zmesh join here"
        )
    part = "a tenth" if remaining <= WARN_BELOW[0] else "a third"
    days = f"{left / DAY:.0f} d" if left >= 2 * DAY else f"{left / 3600:.0f} h"
    return (
        f"less than {part} of the validity of the certificate of {node_id!r} is left, {days}, and it was not renewed"
        f"{why}; is the node with the authority's key up?"
    )
