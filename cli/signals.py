"""Running a command's coroutine, so that a signal lets it end in good order; which signals there are for that."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

from zmesh_cli.exit_codes import INTERRUPTED

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What ends a program, beside SIGINT, which asyncio sees to."""


def heeded(*signals: signal.Signals) -> list[signal.Signals]:
    """Those of the signals that this process was not started to ignore, as by nohup, or in a script's background."""
    return [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, whatever its standard streams are."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run a command that gives its exit code. Every ending signal is to it what Ctrl-C is: a cancellation to see to."""
    return asyncio.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)
    for number in heeded(*ENDING):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED
