"""How time, entries and bytes of finding routes grow with the number of nodes: the picture in docs/routing.md.

    python -m benchmarks.convergence_plot [--measure] [--data FILE] [--out FILE]

`--measure` runs benchmarks.convergence for every size, shape and event, one process each (some ten minutes), and
writes what they print to `--data`, a line of JSON each. Without it the numbers are taken from there. Then the picture
is drawn, which needs matplotlib (the extra `bench`), and the exponents are printed: the slope of a straight line
through the medians on logarithmic scales, so that 2 means "twice the nodes, four times as much".
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "convergence.jsonl"
PICTURE = ROOT / "docs" / "convergence.svg"
SIZES = {10: 5, 32: 5, 100: 3, 316: 1, 1000: 1}
"""How many seeds of each number of nodes."""
SHAPES = ("random", "grid")
EVENTS = ("cold", "link", "node")
NAMES = {"cold": "cold start", "link": "a link lost", "node": "a node lost"}
QUANTITIES = {"converged_s": "seconds", "updates": "entries sent", "update_bytes": "bytes sent"}

Point = tuple[int, float]
Series = dict[tuple[str, str], list[Point]]


def measure(data: Path) -> None:
    """Run all, the small ones first."""
    runs = [(n, shape, event, seed) for n in SIZES for shape in SHAPES for event in EVENTS for seed in range(SIZES[n])]
    with data.open("w", encoding="utf-8") as file:
        for nodes, shape, event, seed in runs:
            words = ["--nodes", str(nodes), "--shape", shape, "--event", event, "--seed", str(seed + 1), "--json"]
            command = [sys.executable, "-m", "benchmarks.convergence", *words]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            file.write(done.stdout)
            file.flush()
            print(done.stdout, end="", file=sys.stderr)


def series(data: Path, quantity: str) -> Series:
    """For each shape and event the medians by number of nodes."""
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in data.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        found[one["shape"], one["event"]][one["nodes"]].append(one[quantity])
    return {
        key: [(nodes, statistics.median(values)) for nodes, values in sorted(sizes.items())]
        for key, sizes in sorted(found.items())
    }


def exponent(points: list[Point]) -> float:
    """The slope of a straight line through the points on logarithmic scales."""
    logs = [(math.log(nodes), math.log(value)) for nodes, value in points]
    return statistics.linear_regression([x for x, _ in logs], [y for _, y in logs]).slope


def draw(data: Path, picture: Path) -> None:
    """Draw the picture."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "zmesh", "font.size": 9})
    figure, axes = pyplot.subplots(1, len(QUANTITIES), figsize=(11, 4.2), layout="constrained")
    for axis, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
        for (shape, event), points in series(data, quantity).items():
            style = {"random": "-", "grid": "--"}[shape]
            colour = {"cold": "C0", "link": "C1", "node": "C3"}[event]
            name = f"{NAMES[event]}, {shape}: N^{exponent(points):.2f}"
            axis.loglog(*zip(*points, strict=True), style, color=colour, marker=".", label=name)
        axis.set(xlabel="nodes", title=label)
        axis.grid(which="major", alpha=0.3)
        axis.legend(fontsize=7, loc="upper left")
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.45)  # room for the legend
    figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})


def main() -> int:
    """Measure if asked to, draw, and print the exponents."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convergence_plot", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--measure", action="store_true", help="run the benchmark first")
    parser.add_argument("--data", type=Path, default=DATA, help="the measurements (%(default)s)")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture (%(default)s)")
    options = parser.parse_args()
    if options.measure:
        measure(options.data)
    draw(options.data, options.out)
    print("| | " + " | ".join(QUANTITIES.values()) + " |")
    print("| --- " * (1 + len(QUANTITIES)) + "|")
    by_quantity = [series(options.data, quantity) for quantity in QUANTITIES]
    for shape in SHAPES:
        for event in EVENTS:
            found = [exponent(each[shape, event]) for each in by_quantity]
            print(f"| {NAMES[event]}, {shape} | " + " | ".join(f"{value:.2f}" for value in found) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
