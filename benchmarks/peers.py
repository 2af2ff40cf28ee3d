"""Round trips and rates of zmesh beside its peers, each over chains of the same shape.

    python -m benchmarks.peers [--json] [--check] [--hops 0,1,2,4] [--rounds 20] [--requests 100] [--kind KIND ...]

| kind | forwarders | client and server |
| --- | --- | --- |
| `zmesh` | zmesh nodes | zmesh nodes; the server is an async directive |
| `bare` | loops of `zmq.asyncio` that await `recv_multipart` and `send_multipart`, on three parts | the same |
| `floor` | the loops of `benchmarks.floor`, on one part | the same |
| `zenoh` | Zenoh sessions in router mode | Zenoh's Python API (eclipse-zenoh): `get` and a queryable |
| `nats` | `nats-server`s joined as leaf nodes, at least one | nats-py: `request` and a subscription |
| `c` | a C program of libzmq with `zmq_poll` | C programs of libzmq; needs `cc` and libzmq's header |

Every node is a process of its own on TCP loopback; the client is this process, but for `c`. The kinds take turns, round
by round, and what is compared are medians of one run. A kind that is not installed is left out, and named. Zenoh and
NATS acknowledge nothing end to end and route by other rules; what is compared is what a program waits for.

With `--check` the exit status is 1 if a ratio of GOALS is missed whose two kinds were measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
from typing import NamedTuple, TypedDict

from benchmarks.chains import (
    Machine,
    add_serving,
    at_least,
    machine,
    machine_line,
    serve,
)
from benchmarks.latency import OUTSTANDING, WARM_UP, Client
from benchmarks.peer_programs import KINDS, NODES

SCHEMA = "zmesh.bench.peers/1"
RATE_REQUESTS = 2000
RATE_ROUNDS = 5


class Goal(NamedTuple):
    """zmesh's p50 is at most `value` times that of `peer`; with `rate` set, its requests a second at least."""

    peer: str
    hops: int
    value: float
    rate: bool = False


GOALS = (
    *(Goal("bare", hops, value) for hops, value in ((0, 1.0), (1, 0.85), (2, 0.75), (4, 0.70))),
    *(Goal("floor", hops, value) for hops, value in ((0, 1.3), (1, 1.2), (2, 1.15), (4, 1.15))),
    Goal("floor", 0, 0.4, rate=True),
    Goal("nats", 1, 0.6, rate=True),
)


class Row(TypedDict):
    """What was measured of one kind over `hops` forwarders; `rate` is requests a second with OUTSTANDING in flight."""

    kind: str
    hops: int
    p50_us: float
    p99_us: float
    rate: float


class Result(TypedDict):
    """What `--json` prints. `missing` has the kinds that were left out, and why."""

    schema: str
    size_bytes: int
    rows: list[Row]
    missing: dict[str, str]
    machine: Machine


# -- measuring --------------------------------------------------------------------------------------------------------


async def measure_hops(hops: int, kinds: list[str], options: argparse.Namespace) -> list[Row]:
    """All kinds over chains of that length, in turn."""
    rows: list[Row] = []
    async with contextlib.AsyncExitStack() as stack:
        clients: dict[str, Client] = {}
        for kind in kinds:
            if hops >= KINDS[kind].least_hops:
                clients[kind] = await stack.enter_async_context(KINDS[kind].client(hops, options.size))
                await clients[kind].ask(WARM_UP)
        took: dict[str, list[float]] = {kind: [] for kind in clients}
        rates: dict[str, list[float]] = {kind: [] for kind in clients}
        order = list(clients)
        for turn in range(options.rounds):
            for kind in order[turn % len(order) :] + order[: turn % len(order)]:
                took[kind] += await clients[kind].ask(options.requests)
        for turn in range(RATE_ROUNDS):
            for kind in order[turn % len(order) :] + order[: turn % len(order)]:
                rates[kind].append(await clients[kind].flood(RATE_REQUESTS))
        for kind in order:
            rows.append(
                {
                    "kind": kind,
                    "hops": hops,
                    "p50_us": round(1e6 * statistics.median(took[kind]), 1),
                    "p99_us": round(1e6 * statistics.quantiles(took[kind], n=100)[98], 1),
                    "rate": round(statistics.median(rates[kind])),
                }
            )
    return rows


async def measure(options: argparse.Namespace) -> Result:
    """All of it."""
    began = os.getloadavg()[0]
    wanted = options.kind or list(KINDS)
    missing = {kind: why for kind in wanted if (why := KINDS[kind].missing())}
    for kind, why in missing.items():
        print(f"{kind} is left out: {why}", file=sys.stderr)
    rows: list[Row] = []
    for hops in options.hops:
        print(f"{hops} forwarders ...", file=sys.stderr)
        rows += await measure_hops(hops, [kind for kind in wanted if kind not in missing], options)
    return {"schema": SCHEMA, "size_bytes": options.size, "rows": rows, "missing": missing, "machine": machine(began)}


def ratios(rows: list[Row]) -> list[tuple[Goal, float]]:
    """What each goal came to, of those whose kinds were measured."""
    by = {(row["kind"], row["hops"]): row for row in rows}
    found: list[tuple[Goal, float]] = []
    for goal in GOALS:
        ours, theirs = by.get(("zmesh", goal.hops)), by.get((goal.peer, goal.hops))
        if ours is not None and theirs is not None:
            what = "rate" if goal.rate else "p50_us"
            found.append((goal, ours[what] / theirs[what]))  # type: ignore[literal-required]
    return found


def is_missed(goal: Goal, ratio: float) -> bool:
    """Whether a ratio is on the wrong side of its goal."""
    return ratio < goal.value if goal.rate else ratio > goal.value


def print_result(result: Result) -> None:
    """The tables for people."""
    ours = {row["hops"]: row for row in result["rows"] if row["kind"] == "zmesh"}
    print(f"{result['size_bytes']} bytes there and back, each node a process; {OUTSTANDING} in flight for the rate")
    print(
        f"{'forwarders':>10} {'kind':<7} {'p50 us':>8} {'p99 us':>8} {'requests/s':>11}   zmesh's p50 and rate, of it"
    )
    for row in result["rows"]:
        mine = ours.get(row["hops"])
        share = f"   {mine['p50_us'] / row['p50_us']:.2f}  {mine['rate'] / row['rate']:.2f}" if mine is not None else ""
        times = f"{row['p50_us']:>8.0f} {row['p99_us']:>8.0f}"
        print(f"{row['hops']:>10} {row['kind']:<7} {times} {row['rate']:>11,.0f}{share}")
    for goal, ratio in ratios(result["rows"]):
        what = "rate" if goal.rate else "p50"
        bound = "at least" if goal.rate else "at most"
        verdict = "missed" if is_missed(goal, ratio) else "reached"
        print(f"{what} over {goal.hops}, of {goal.peer}: {ratio:.2f}, {bound} {goal.value}: {verdict}")
    print(machine_line(result["machine"]))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="zmesh beside its peers")
    parser.add_argument("--json", action="store_true", help=f"print one object of schema {SCHEMA}")
    parser.add_argument("--check", action="store_true", help="status 1 if a goal is missed")
    parser.add_argument(
        "--hops",
        type=lambda text: [int(one) for one in text.split(",")],
        default=[0, 1, 2, 4],
        help="forwarders, as 0,1,2,4",
    )
    parser.add_argument("--rounds", type=at_least(1), default=20, help="rounds of each kind (%(default)s)")
    parser.add_argument("--requests", type=at_least(1), default=100, help="requests a round (%(default)s)")
    parser.add_argument("--size", type=at_least(1), default=64, help="bytes of payload (%(default)s)")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="this one only; may be repeated")
    add_serving(parser)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(NODES[options.serve](options.name, options.peer), options.name))
        return 0
    result = asyncio.run(measure(options))
    if options.json:
        print(json.dumps(result))
    else:
        print_result(result)
    return 1 if options.check and any(is_missed(*found) for found in ratios(result["rows"])) else 0


if __name__ == "__main__":
    sys.exit(main())
