"""KeyboardInterrupt on an event loop: it is raised between any two instructions, also where it can't be caught."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from zmesh.runtime.exceptions import log_exception, must_propagate
from zmesh.runtime.forks import ProcessOrigin

logger = logging.getLogger(__name__)


@contextmanager
def raise_lost_interrupts(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have the loop raise a KeyboardInterrupt that was lost in a destructor or a weak reference's callback."""
    before = sys.unraisablehook
    origin = ProcessOrigin()

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt and origin.is_here:  # in a fork the loop does not run
            loop.call_soon_threadsafe(raise_in_loop)
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


def raise_in_loop(end: BaseException | None = None) -> None:
    """Raise KeyboardInterrupt, or what else is to end the program, out of whatever runs the loop."""
    raise KeyboardInterrupt if end is None else end


async def supervised(coroutine: Coroutine[object, object, None], name: str) -> None:
    """Run one of a node's tasks, whose failure is logged and ends nothing else.

    KeyboardInterrupt and SystemExit are raised out of the loop.
    """
    try:
        await coroutine
    except (KeyboardInterrupt, SystemExit) as end:
        asyncio.get_running_loop().call_soon(raise_in_loop, end)
    except GeneratorExit:  # the task is abandoned, or collected as garbage with its loop
        raise
    except BaseException as error:
        if must_propagate(error):
            raise
        log_exception(logger, "the task %r failed", name, error=error, level=logging.ERROR)


def ignore_exit(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing of the task that ran when Ctrl-C came, or that called `sys.exit`: `run` raises that already."""
    if not isinstance(context.get("exception"), (KeyboardInterrupt, SystemExit)):
        loop.default_exception_handler(context)


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left in a loop of our own, and close it."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
