"""What is wrong with nodes, for a program: what a Controller inherits beside `Operating`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zmesh.operate.operating import Operating

if TYPE_CHECKING:
    from zmesh.operate.diagnosis import Diagnosis

EXAMINED_WITHIN = 30.0
"""Seconds to wait for the result of an examination, unless a time-out is given."""


class Diagnosing(Operating):
    """The part of a Controller that finds out what is wrong with nodes."""

    async def doctor(self, node: str | None = None, *, timeout: float | None = EXAMINED_WITHIN) -> Diagnosis:
        """What is wrong with a node, and what mends it; the node takes up to some seconds to find out."""
        from zmesh.operate.diagnosis import DOCTOR, Diagnosis, compared

        diagnosis = await self._shown(Diagnosis, DOCTOR, node, None, timeout)
        return compared(diagnosis, time.time())
