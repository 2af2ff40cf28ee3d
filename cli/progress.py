"""How far a long transfer has come, on stderr, while it lasts."""

from __future__ import annotations

import asyncio
import os

from zmesh_cli.intake import Input
from zmesh_cli.terminal import STDERR

AFTER = 0.5
"""Seconds that a transfer must last to be worth a word."""

EVERY = 0.2
BAR = 30
MIB = 1024 * 1024


class Progress:
    """A line that is written over again and again until it is hidden; none for a transfer that is over before AFTER."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._shown = False
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(AFTER, self._show)

    def hide(self) -> None:
        """Take the line away for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._shown:
                _write("\r\x1b[K")

    def _show(self) -> None:
        taken, size = self._source.taken, self._source.size
        share = min(1.0, taken / size)
        speed = taken / (self._loop.time() - self._started)
        full = round(BAR * share)
        left = (size - taken) / speed if speed else 0.0
        _write(
            f"\r\x1b[K  [{'#' * full}{'.' * (BAR - full)}] {share:4.0%}  {taken / MIB:.1f} of {size / MIB:.1f} MiB  "
            f"{speed / MIB:.1f} MiB/s  {left:.0f} s left"
        )
        self._shown = True
        self._timer = self._loop.call_later(EVERY, self._show)


def _write(text: str) -> None:
    try:
        os.write(STDERR, text.encode())
    except OSError:
        pass
