"""What docs/performance.md says: each ratio that zmesh is meant to reach, measured, in a table and a picture.

    python -m benchmarks.report [--measure [NAME ...]] [--check]

`--measure` runs the programs of PROGRAMS, or those named, with `--json`, and keeps what they print in
docs/performance.json; all of them take half an hour on an idle machine. Without it the numbers are taken from there.
Then the table in docs/performance.md is written anew and docs/performance.svg drawn, which needs matplotlib (the extra
`bench`).

With `--check` the exit status is 1 if a ratio exceeds what zmesh holds (Row.held). A goal that is not reached yet fails
nothing, and says so in the table; one that was not measured (its peer is not installed) is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- ratios: begin -->\n", "<!-- ratios: end -->\n"
HOPS = (0, 1, 2, 4)
PAIRS = (100, 1000, 10_000)
PROGRAMS: dict[str, list[str]] = {
    "instructions": ["instructions"],
    "rates": ["latency", "--hops", "0"],
    "peers": ["peers"],
    "oneway": ["oneway"],
    "bulk": ["bulk", "--pings"],
    **{f"pairs-{many}": ["pairs", "--many", str(many)] for many in PAIRS},
    "memory": ["memory"],
}
"""By name: the program of this package that measures it, and its options."""

Results = dict[str, Any]


class Row(NamedTuple):
    """A ratio of zmesh to something else: what it is meant to be at most (or `least`), and what is held.

    None as goal: it is reported only. None as held: too far from it, or too dependent on the machine, to be held.
    """

    name: str
    ratio: Callable[[Results], float]
    goal: float | None = None
    held: float | None = None
    least: bool = False

    def exceeds(self, value: float, bound: float | None) -> bool:
        """Whether a ratio is on the wrong side of a bound."""
        return bound is not None and (value < bound if self.least else value > bound)


def of_peer(peer: str, hops: int, quantity: str = "p50_us") -> Callable[[Results], float]:
    """A quantity over so many forwarders, of that of a kind of `benchmarks.peers`."""

    def ratio(results: Results) -> float:
        by = {(row["kind"], row["hops"]): row for row in results["peers"]["rows"]}
        return float(by["zmesh", hops][quantity] / by[peer, hops][quantity])

    return ratio


def many(count: int) -> str:
    """So many forwarders, in words."""
    return {0: "direct", 1: "one forwarder"}.get(count, f"{count} forwarders")


BARE_GOALS = {0: (1.0, 1.7), 1: (0.85, 1.35), 2: (0.75, 1.2), 4: (0.70, 1.2)}
FLOOR_GOALS = {0: 1.3, 1: 1.2, 2: 1.15, 4: 1.15}
ROWS = (
    Row("instructions a request, of bare zmq.asyncio's", lambda r: float(r["instructions"]["ratio"]), 0.45, 0.55),
    *(Row(f"p50 {many(hops)}, of bare zmq.asyncio", of_peer("bare", hops), *BARE_GOALS[hops]) for hops in HOPS),
    *(Row(f"p50 {many(hops)}, of the floor", of_peer("floor", hops), FLOOR_GOALS[hops]) for hops in HOPS),
    *(Row(f"p50 {many(hops)}, of Zenoh's Python API", of_peer("zenoh", hops)) for hops in HOPS),
    *(Row(f"p50 {many(hops)}, of NATS with nats-py", of_peer("nats", hops)) for hops in HOPS[1:]),
    Row("requests/s, 100 outstanding, direct, of the floor", of_peer("floor", 0, "rate"), 0.4, least=True),
    Row("requests/s, 100 outstanding, one forwarder, of NATS", of_peer("nats", 1, "rate"), 0.6, least=True),
    Row("messages/s one way, written to a stream", lambda r: float(r["oneway"]["ratios"]["stream"]), 1.0, 1.0, True),
    Row("messages/s one way, `mesh.send`", lambda r: float(r["oneway"]["ratios"]["send"]), 1.0, least=True),
    Row("bulk there, of bare forwarders, 64 KiB", lambda r: float(r["bulk"]["there"]["ratio"]), 1.4, 0.9, True),
    Row("bulk back, of bare forwarders, 64 KiB", lambda r: float(r["bulk"]["back"]["ratio"]), 1.4, 0.9, True),
    Row("p99 of pings beside it, of idle ones", lambda r: float(r["bulk"]["pings"]["ratio"]), 5.0, 5.0),
    Row("a forwarder with 10,000 pairs, of one with 10", lambda r: float(r["pairs-10000"]["ratio"]), 1.1, 1.7),
    Row("memory of `zmesh node`, of `import asyncio, zmq`", lambda r: float(r["memory"]["ratio"]), 2.0, 2.0),
)


def measure(names: list[str], results: Results) -> None:
    """Run the programs of these names, and keep what they print."""
    for name in names:
        program, *options = PROGRAMS[name]
        command = [sys.executable, "-m", f"benchmarks.{program}", *options, "--json"]
        print(f"{' '.join(command[1:])} ...", file=sys.stderr)
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        results[name] = json.loads(done.stdout)
        DATA.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def measured(results: Results) -> list[tuple[Row, float]]:
    """The ratios that were measured."""
    found = []
    for row in ROWS:
        try:
            found.append((row, round(row.ratio(results), 2)))
        except KeyError:  # what was not measured, or a peer that was not installed
            continue
    return found


def table(ratios: list[tuple[Row, float]]) -> str:
    """The ratios as a table of Markdown."""
    lines = ["| what | measured | goal | held |", "| --- | --- | --- | --- |"]
    for row, value in ratios:
        bound = "at least" if row.least else "at most"
        reached = "" if row.goal is None else f"{bound} {row.goal:g}" + (": missed" * row.exceeds(value, row.goal))
        lines.append(f"| {row.name} | {value:g} | {reached} | {'' if row.held is None else f'{row.held:g}'} |")
    return "\n".join(lines) + "\n"


def write_page(text: str) -> None:
    """Put the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} has no place for the table")
    PAGE.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")


def draw(results: Results, path: Path) -> None:
    """Draw the results as a picture of six plots."""
    from matplotlib import pyplot as plt  # of the extra `bench`, which `--check` alone does without

    plt.rcParams.update({"svg.hashsalt": "zmesh", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), constrained_layout=True)
    latency, rates, bulk, instructions, pairs, memory = axes.flat
    rows = results["peers"]["rows"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        points = [(row["hops"], row["p50_us"] / 1000) for row in rows if row["kind"] == kind]
        latency.plot(*zip(*points, strict=True), marker="o", label=kind, linewidth=2.5 if kind == "zmesh" else 1)
    label(latency, "round trip of 64 bytes, p50", "forwarders", "ms")
    latency.legend()
    for kind in ("bare", "zmesh"):
        points = [(row["outstanding"], row[kind]) for row in results["rates"]["rates"]]
        rates.plot(*zip(*points, strict=True), marker="o", label=kind)
    rates.set_xscale("log")
    label(rates, "requests a second, direct", "requests under way", "")
    rates.legend()
    ways = ("there", "back")
    for shift, kind in enumerate(("bare", "zmesh")):
        places = [place + 0.4 * shift for place in range(len(ways))]
        bulk.bar(places, [results["bulk"][way][f"{kind}_mb_s"] for way in ways], 0.35, label=kind)
    bulk.set_xticks([0.2, 1.2], ways)
    label(bulk, "bulk over two forwarders", "", "MB/s")
    bulk.legend()
    counts = results["instructions"]["instructions"]
    instructions.barh(list(counts), [count / 1e6 for count in counts.values()])
    instructions.invert_yaxis()
    label(instructions, "instructions a request, one forwarder", "millions", "")
    measured_pairs = [results[f"pairs-{count}"] for count in PAIRS]
    pairs.plot(PAIRS, [one["ratio"] for one in measured_pairs], marker="o")
    pairs.set_xscale("log")
    pairs.set_ylim(bottom=0)
    label(pairs, "cost of a packet to a forwarder", "talking pairs", "of that with 10 pairs")
    sizes = results["memory"]["bytes"]
    memory.barh(list(sizes), [size / 1e6 for size in sizes.values()])
    memory.invert_yaxis()
    label(memory, "resident memory of a process", "MB", "")
    figure.savefig(path, metadata={"Date": None})


def label(axes: Any, title: str, x: str, y: str) -> None:
    """Title a plot and name its axes."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3)


def main() -> int:
    """Measure, draw, and check."""
    parser = argparse.ArgumentParser("python -m benchmarks.report", description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", nargs="*", choices=PROGRAMS, metavar="NAME", help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--check", action="store_true", help="change no file; status 1 if a ratio exceeds what is held")
    arguments = parser.parse_args()
    results: Results = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    if arguments.measure is not None:
        measure(arguments.measure or list(PROGRAMS), results)
    ratios = measured(results)
    text = table(ratios)
    print(text, end="")
    if not arguments.check:
        write_page(text)
        draw(results, PICTURE)
        return 0
    worse = [f"{row.name}: {value:g}, held is {row.held:g}" for row, value in ratios if row.exceeds(value, row.held)]
    for line in worse:
        print(line, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
