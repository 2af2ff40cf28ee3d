"""Ctrl-C (SIGINT) before a command's event loop runs: exit at once, from the handler of the signal."""

from __future__ import annotations

import os
import signal

from zmesh_cli.exit_codes import INTERRUPTED


def exit_at_once() -> None:
    """Have SIGINT end the process with INTERRUPTED, unless the process was started to ignore it.

    Nothing is open yet that would have to be closed, and nothing is printed that would have to be flushed.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def raise_again() -> None:
    """Have SIGINT raise KeyboardInterrupt again, which is where asyncio sets its own handler."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, frame: object) -> None:
    os._exit(INTERRUPTED)
