"""Running a command's coroutine, so that a signal lets it end in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from zmesh_cli.exits import INTERRUPTED


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run a command that gives its exit code. SIGTERM is to it what Ctrl-C is: a cancellation that it may see to."""
    return asyncio.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED
