"""Keys that are pressed while a command runs, if stdin is a terminal."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections.abc import Callable
from types import TracebackType

from zmesh_cli.terminal import STDIN


class Keys:
    """Calls a function with each key, without its echo and before Enter; the terminal is as before at the end."""

    def __init__(self, on_key: Callable[[str], None]) -> None:
        self._on_key = on_key
        self._before: list[int | list[bytes | int]] | None = None
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        if os.isatty(STDIN):
            self._before = termios.tcgetattr(STDIN)
            tty.setcbreak(STDIN)
            self._loop.add_reader(STDIN, self._read)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            self._loop.remove_reader(STDIN)
            termios.tcsetattr(STDIN, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        data = os.read(STDIN, 64)
        if not data:  # the terminal is gone
            self._loop.remove_reader(STDIN)
        for key in data.decode(errors="replace"):
            self._on_key(key)
