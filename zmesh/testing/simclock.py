"""The clock of one simulated node, which is not that of the others.

A node measures with two clocks. The monotonic one starts anywhere (at the boot of its machine), runs some parts per
million too fast or too slow, stands still while the machine is suspended, and is set forward when a virtual machine is
resumed or moved; it never runs backwards. The wall clock is that plus an offset, which an operator or NTP sets to any
value at any time. An engine knows of nothing but these, so that all its deadlines are in the time of its own node.
"""

from __future__ import annotations

import math
from collections.abc import Callable


class Clock:
    """A node's two clocks; `real` is the simulator's time, `changed` is called after each step and change of rate.

    `offset`: what the monotonic clock shows at time 0, in seconds; `drift`: the share by which it is too fast;
    `epoch`: the wall clock minus the monotonic one, in seconds.
    """

    def __init__(
        self,
        real: Callable[[], float],
        changed: Callable[[], None],
        *,
        offset: float = 0.0,
        drift: float = 0.0,
        epoch: float = 0.0,
    ) -> None:
        if drift <= -1.0:
            raise ValueError(f"a clock with a drift of {drift} would not run forwards")
        self._real = real
        self._changed = changed
        self._since = 0.0
        self._shown = offset
        self._rate = 1.0 + drift
        self._stopped = False
        self.epoch = epoch

    def now(self) -> float:
        """The time of the monotonic clock, in seconds."""
        return self._at(self._real())

    def wall(self) -> float:
        """The time of the wall clock, in seconds since 1970."""
        return self.epoch + self.now()

    def when(self, shown: float) -> float:
        """The simulator's time at which the monotonic clock shows at least that; infinite while it stands still."""
        real = self._real()
        if shown <= self._at(real):
            return real
        if self._stopped:
            return math.inf
        when = self._since + (shown - self._shown) / self._rate
        step = 1e-9
        while self._at(when) < shown:  # what was lost to rounding
            when += step
            step *= 2
        return when

    def stop(self) -> None:
        """Stand still: the machine is suspended."""
        self._set(self.now(), stopped=True)

    def go(self) -> None:
        """Run again."""
        self._set(self.now(), stopped=False)

    def jump(self, seconds: float) -> None:
        """Set the monotonic clock forward by `seconds`, and the wall clock with it. Raises ValueError if negative."""
        if seconds < 0:
            raise ValueError("a monotonic clock never runs backwards")
        self._set(self.now() + seconds, stopped=self._stopped)

    def drift(self, share: float) -> None:
        """Run too fast by that share from now on."""
        shown = self.now()
        self._rate = 1.0 + share
        self._set(shown, stopped=self._stopped)

    def _at(self, real: float) -> float:
        return self._shown if self._stopped else self._shown + (real - self._since) * self._rate

    def _set(self, shown: float, *, stopped: bool) -> None:
        self._since, self._shown, self._stopped = self._real(), shown, stopped
        self._changed()
