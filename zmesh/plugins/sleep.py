"""`sleep:execute` waits; for trying out timeouts, cancelling and what a ping reports."""

from __future__ import annotations

import asyncio
import math

from zmesh.plugins import NoSettings
from zmesh.serving import Work, directive

settings = NoSettings


@directive
async def execute(work: Work) -> dict[str, float]:
    """Sleep for the seconds that the payload names, then reply `{"seconds": n}`.

    The payload is a number (as text or JSON) or `{"seconds": n}`. Raises ValueError for anything else.
    """
    seconds = _seconds(work)
    await asyncio.sleep(seconds)
    return {"seconds": seconds}


def _seconds(work: Work) -> float:
    try:
        value = work.payload.json()
    except ValueError:
        value = None
    if isinstance(value, dict):
        value = value.get("seconds")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError('sleep:execute takes seconds, such as 1.5 or {"seconds": 1.5}')
    return value
