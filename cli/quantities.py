"""Numbers for people: times, round-trip times and sizes, short enough for a column."""

from __future__ import annotations

_PREFIXES = ("", "K", "M", "G", "T", "P")


def age(seconds: float) -> str:
    """A time in the largest unit of which there are two: `12 s`, `5 min`, `3 h`, `4 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def milliseconds(seconds: float | None) -> str:
    """A round-trip time: `0.412 ms`, `1250 ms`; `-` where none is known."""
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.9995 else f"{1000 * seconds:.3g} ms"


def delay(seconds: float) -> str:
    """A short time in at most five characters: `0.4ms`, `76ms`, `12s`."""
    if seconds >= 1:
        return f"{seconds:.0f}s"
    return f"{1000 * seconds:.1f}ms" if seconds < 0.00995 else f"{1000 * seconds:.0f}ms"


def rate(count: float) -> str:
    """A number of things in a second, in at most four characters: `0.5`, `12`, `1.4K`."""
    return f"{count:.1f}" if 0 < count < 9.95 else size(count, 1000)


def size(count: float, step: int = 1024) -> str:
    """A number of bytes in at most four characters: `512`, `12K`, `1.4M`."""
    for prefix in _PREFIXES:
        if count < 999.5 or prefix == _PREFIXES[-1]:
            break
        count /= step
    if not prefix:
        return f"{count:.0f}"
    return f"{count:.1f}{prefix}" if count < 9.95 else f"{count:.0f}{prefix}"
