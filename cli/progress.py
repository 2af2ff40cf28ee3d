"""A progress bar on stderr for a long transfer."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable

from zmesh_cli.input import Input
from zmesh_cli.terminal import STDERR

AFTER = 0.5
"""Seconds after which a transfer is shown."""

EVERY = 0.2
BAR = 30
MIB = 1024 * 1024


class ProgressLine(ABC):
    """A line that is redrawn every EVERY seconds until `hide`; none for a transfer that ends before AFTER."""

    def __init__(self) -> None:
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

    @abstractmethod
    def _line(self, seconds: float) -> str:
        """The line after so many seconds."""

    def _show(self) -> None:
        _write(f"\r\x1b[K  {self._line(self._loop.time() - self._started)}")
        self._shown = True
        self._timer = self._loop.call_later(EVERY, self._show)


class Progress(ProgressLine):
    """How much of `source` has been sent, where its size is known, and then how much has been `received`."""

    def __init__(self, source: Input | None, received: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self._source = source if source is not None and source.size else None
        self._received = received

    def _line(self, seconds: float) -> str:
        source, received = self._source, self._received()
        if received or source is None:
            return f"{received / MIB:.1f} MiB received  {received / MIB / seconds:.1f} MiB/s"
        return bar(source.size_read, source.size, source.size_read / seconds)


def bar(done: int, size: int, rate: float, *, is_known: bool = True) -> str:
    """How much of so many bytes is done, and at that rate, in bytes a second, the time that is left if all is known."""
    share = min(1.0, done / size) if size else 1.0
    full = round(BAR * share)
    left = f"  {(size - done) / rate:.0f} s left" if rate and is_known else ""
    return (
        f"[{'#' * full}{'.' * (BAR - full)}] {share:4.0%}  {done / MIB:.1f} of {size / MIB:.1f} MiB  "
        f"{rate / MIB:.1f} MiB/s{left}"
    )


def _write(text: str) -> None:
    try:
        os.write(STDERR, text.encode())
    except OSError:
        pass
