"""Pictures for the guides, drawn from what a test has measured, where ZMESH_SCREENSHOTS names a folder for them.

matplotlib (the extra `bench`) is imported only then.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = os.environ.get("ZMESH_SCREENSHOTS")
NO_BREAK = "\N{NO-BREAK SPACE}"


class Bar(NamedTuple):
    """A span of time: what and where, its depth in the tree, and seconds since the first one began."""

    name: str
    node: str
    depth: int
    start: float
    end: float


class Panel(NamedTuple):
    """A panel: its title, and lines by name, each of points (seconds, value)."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def waterfall(name: str, bars: Sequence[Bar]) -> None:
    """Write the spans of a trace, one below the other."""
    if FOLDER is None:
        return
    nodes = list(dict.fromkeys(bar.node for bar in bars))
    with _figure(name, 1, height=0.42 * len(bars) + 0.9) as axes:
        axis, last = axes[0], max(bar.end for bar in bars) * 1e3
        for row, bar in enumerate(bars):
            start, length = bar.start * 1e3, (bar.end - bar.start) * 1e3
            axis.barh(row, length, left=start, height=0.55, color=f"C{nodes.index(bar.node)}", label=bar.node)
            axis.text(start + length + last * 0.01, row, f"{length:.1f} ms", va="center", fontsize=8)
        axis.set_yticks(range(len(bars)), [f"{NO_BREAK * 3 * bar.depth}{bar.name}" for bar in bars], ha="left")
        axis.tick_params(axis="y", length=0, pad=max(len(bar.name) + 3 * bar.depth for bar in bars) * 5.2)
        axis.invert_yaxis()
        axis.set(xlabel="ms", xlim=(0, last * 1.12))
        axis.grid(axis="x", alpha=0.3)
        handles = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        axis.legend(handles.values(), handles.keys(), loc="lower left", fontsize=8, title="node", title_fontsize=8)


def panels(name: str, shown: Sequence[Panel], shaded: tuple[float, float], why: str) -> None:
    """Write panels over the same time, a part of which is shaded."""
    if FOLDER is None:
        return
    with _figure(name, len(shown), height=1.5 * len(shown) + 0.6) as axes:
        for axis, panel in zip(axes, shown, strict=True):
            for label, points in panel.lines.items():
                axis.plot(*zip(*points, strict=True), label=label, linewidth=1.4)
            axis.axvspan(*shaded, color="0.9", zorder=0, label=why if axis is axes[0] else None)
            axis.set_title(panel.title, fontsize=9, loc="left")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        axes[-1].set_xlabel("seconds")


@contextmanager
def _figure(name: str, rows: int, height: float) -> Iterator[Sequence[Any]]:
    """Rows of a picture on white, which can be read on a dark page as well."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "zmesh", "font.size": 9})
    figure, axes = pyplot.subplots(rows, 1, figsize=(9, height), layout="constrained", sharex=True, squeeze=False)
    yield list(axes[:, 0])
    assert FOLDER is not None
    figure.savefig(Path(FOLDER) / f"{name}.svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
