"""A progress bar on stderr for a long transfer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from zmesh_cli.input import Input
from zmesh_cli.terminal import STDERR

AFTER = 0.5
"""Seconds after which a transfer is shown."""

EVERY = 0.2
BAR = 30
MIB = 1024 * 1024


class Progress:
    """A line that is redrawn every EVERY seconds until `hide`; none for a transfer that ends before AFTER.

    It shows how much of `source` has been sent, where its size is known, and then how much has been `received`.
    """

    def __init__(self, source: Input | None, received: Callable[[], int] = lambda: 0) -> None:
        self._source = source if source is not None and source.size else None
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._shown = False
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(AFTER, self._show)

    def hide(self) -> None:
        """Erase the line, and draw no other."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._shown:
                _write("\r\x1b[K")

    def _show(self) -> None:
        elapsed = self._loop.time() - self._started
        source, received = self._source, self._received()
        if received or source is None:
            line = f"{received / MIB:.1f} MiB received  {received / MIB / elapsed:.1f} MiB/s"
        else:
            line = _bar(source.size_read, source.size, elapsed)
        _write(f"\r\x1b[K  {line}")
        self._shown = True
        self._timer = self._loop.call_later(EVERY, self._show)


def _bar(sent: int, size: int, elapsed: float) -> str:
    share = min(1.0, sent / size)
    speed = sent / elapsed
    full = round(BAR * share)
    left = (size - sent) / speed if speed else 0.0
    return (
        f"[{'#' * full}{'.' * (BAR - full)}] {share:4.0%}  {sent / MIB:.1f} of {size / MIB:.1f} MiB  "
        f"{speed / MIB:.1f} MiB/s  {left:.0f} s left"
    )


def _write(text: str) -> None:
    try:
        os.write(STDERR, text.encode())
    except OSError:
        pass
