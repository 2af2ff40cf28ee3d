"""Durations in the texts of errors and log lines."""

from __future__ import annotations


def span(seconds: float) -> str:
    """A duration in the largest unit of which there are two: `12 s`, `5 min`, `3 h`, `4 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def exact(seconds: float) -> str:
    """A duration in seconds, to three digits: `0.25 s`, `31.5 s`, `3600 s`."""
    return f"{seconds:.0f} s" if seconds >= 999.5 else f"{seconds:.3g} s"


def milliseconds(seconds: float) -> str:
    """A short duration, to three digits: `0.412 ms`, `1250 ms`."""
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.9995 else f"{1000 * seconds:.3g} ms"
