"""Reads what a command writes to a terminal."""

import os
import select
from collections.abc import Callable


def read_until(ours: int, is_enough: Callable[[bytes], bool]) -> bytes:
    """What comes out of a terminal, by its other end, until that is enough."""
    shown = b""
    while not is_enough(shown):
        assert select.select([ours], [], [], 90)[0], shown
        shown += os.read(ours, 65536)
    return shown
