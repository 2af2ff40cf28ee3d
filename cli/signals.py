"""Runs the coroutine of a command, which a signal cancels so that it can clean up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

from zmesh_cli import interrupts
from zmesh_cli.exit_codes import INTERRUPTED

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The signals that end a program, beside SIGINT, which asyncio handles."""


def not_ignored(*signals: signal.Signals) -> list[signal.Signals]:
    """Those of the signals that this process was not started to ignore, as nohup does."""
    return [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, whatever its standard streams are."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine that returns an exit code. As Ctrl-C does, each signal of ENDING cancels it."""
    interrupts.raise_again()  # asyncio sets its own handler in the place of that one only
    return asyncio.run(_cancelled_by_signals(work))


async def _cancelled_by_signals(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)
    for number in not_ignored(*ENDING):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED
