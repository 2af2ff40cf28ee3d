"""Counters of the requests of a node by directive and ending, and histograms of how long they take.

The names of directives come from programs and from other nodes. MAX_DIRECTIVES of them are counted by name at each
side; further ones, and those that this node refuses or does not know, as `other`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from zmesh import errors
from zmesh.errors import MeshError, NotAllowed, UnknownDirective
from zmesh.observe import ClientRequest, Ended, ServerRequest

MAX_DIRECTIVES = 32
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The upper bounds of the histograms, in seconds."""
OTHER = "other"
OK = "ok"
ENDINGS = frozenset(
    each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MeshError)
)
"""The endings that are counted by name, besides `ok`; a plugin's own code is `other`."""
_NAMELESS = (UnknownDirective.code, NotAllowed.code)


class Durations:
    """A histogram: how many durations there were up to each of BUCKETS and above, and their sum in seconds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def note(self, seconds: float) -> None:
        """Count a duration in seconds."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds


class Side:
    """The requests of one side: `ended` by directive and ending, `durations` by directive."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()
        self.durations: dict[str, Durations] = {}

    def note(self, directive: str, began: float, clock: Callable[[], float], code: str, _: str) -> None:
        """Count a request that has ended with `code` ("": success), `began` at a time of `clock`."""
        name = self._name(directive, code)
        self.ended[name, OK if not code else code if code in ENDINGS else OTHER] += 1
        self.durations[name].note(clock() - began)

    def _name(self, directive: str, code: str) -> str:
        if directive in self.durations:
            return directive
        name = directive if len(self.durations) < MAX_DIRECTIVES and code not in _NAMELESS else OTHER
        self.durations.setdefault(name, Durations())
        return name

    def cumulated(self) -> Iterator[tuple[str, list[tuple[str, float]], float]]:
        """For each directive its histogram as Prometheus has it: counts up to each bound, and the sum."""
        bounds = [*map(str, BUCKETS), "+Inf"]
        for name, durations in self.durations.items():
            total, counts = 0, []
            for bound, count in zip(bounds, durations.counts, strict=True):
                total += count
                counts.append((bound, float(total)))
            yield name, counts, durations.sum


class RequestMeter:
    """Counts the requests of one node: those that it sends, as `client`, and those that it serves, as `server`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.client = Side()
        self.server = Side()

    def sending(self, request: ClientRequest, directive: str) -> Ended:
        """Count a request that this node sends, at its end."""
        return partial(self.client.note, directive, self._clock(), self._clock)

    def accepted(self, request: ServerRequest) -> Ended:
        """Count a request that has come in, at its end."""
        return partial(self.server.note, request.directive, self._clock(), self._clock)
