"""Clocks of nodes that are set while these run."""

import time
from typing import Any


def turn_clock(controller: Any, ahead: float) -> None:
    """Have the clock of a node's machine be ahead by so many seconds from now on."""
    controller._node.driver.wall_clock = lambda: time.time() + ahead


async def set_clock(controller: Any, ahead: float, eventually: Any) -> None:
    """The same, and wait until the node follows: it has a link, so it need not wait for one."""
    turn_clock(controller, ahead)
    await eventually(lambda: abs(controller._node.engine.epoch + time.monotonic() - time.time() - ahead) < 1)
