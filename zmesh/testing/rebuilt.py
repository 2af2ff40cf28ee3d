"""The mesh of a bundle in the simulator: its nodes, links, costs, round-trip times and clocks, for experiments.

Links are those of the statuses of the bundle's nodes, and between other nodes those of the graphs that these know. A
link has half its round-trip time as the delay of each direction, and the cost of each end without the penalty for that
time, so that the simulated nodes have the costs, and so the routes, of the real ones. A node that has left is there and
does not run (`sim.nodes[id].start()`); a peer that is dialled in vain is a wire that is down (`wire.bring_up()`).
"""

from __future__ import annotations

from collections import defaultdict
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from zmesh.core.limits import DEFAULT_COST
from zmesh.core.neighbours import COST_STEP, rtt_penalty
from zmesh.operate import Bundle, LinkReport, NodeReport, read_bundle
from zmesh.testing.simulator import Simulator

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

UNKNOWN_DELAY = 0.002
"""Seconds from end to end of a link whose round-trip time is not known; so short that it has no penalty."""


class _Link(NamedTuple):
    """One link: its dialler and listener, its round-trip time if known, the costs of both ends, whether it is up."""

    dialler: str
    listener: str
    rtt: float | None
    costs: tuple[int | None, int | None]
    up: bool = True


def load_bundle(path: str | os.PathLike[str], seed: int = 0, *, checked: bool = True) -> Simulator:
    """The mesh of a bundle that `zmesh bundle` has written, at its start: `settle` lets it find its routes.

    `checked` as for Simulator. Raises ValueError for a file that is none, and OSError.
    """
    return rebuild(read_bundle(path), seed, checked=checked)


def rebuild(bundle: Bundle, seed: int = 0, *, checked: bool = True) -> Simulator:
    """The mesh of a bundle, as `load_bundle`."""
    sim = Simulator(seed, checked=checked)
    reports = bundle.reports
    running, left = _nodes(reports.values())
    links = list(_links(reports, running | left))
    for id in sorted(running | left):
        report = reports.get(id)
        sim.add(id, **(_options(bundle, report) if report is not None else {}))
    for id in left - running:
        sim.nodes[id].kill()
    for link in links:
        delay = link.rtt / 2 if link.rtt is not None else UNKNOWN_DELAY
        penalty = rtt_penalty(2 * delay)
        penalty = penalty if penalty >= COST_STEP else 0  # a smaller one changes no cost
        there, back = ((DEFAULT_COST if cost is None else max(1, cost - penalty)) for cost in link.costs)
        wire = sim.connect(link.dialler, link.listener, delay=delay, cost=(there, back))
        if not link.up:
            wire.take_down()
    return sim


def _nodes(reports: Iterable[NodeReport]) -> tuple[set[str], set[str]]:
    """The nodes that can be reached by any of the bundle, and those that have left."""
    running: set[str] = set()
    left: set[str] = set()
    for report in reports:
        running.add(report.node)
        running |= {node.node for node in report.graph.nodes} if report.graph is not None else set()
        for member in report.members.members if report.members is not None else ():
            (running if member.reachable else left).add(member.node)
    return running, left - running


def _options(bundle: Bundle, report: NodeReport) -> dict[str, object]:
    """The options of a simulated node: its clock, and the settings that the core has."""
    found: dict[str, object] = {}
    if report.status is not None:
        found["epoch"] = bundle.summary.time + (report.status.skew or 0.0)
    for setting in report.settings.settings if report.settings is not None else ():
        if setting.name in ("heartbeat", "route_timeout") and isinstance(setting.value, (int, float)):
            found[setting.name] = float(setting.value)
    return found


def _links(reports: Mapping[str, NodeReport], known: set[str]) -> Iterator[_Link]:
    """The links of the mesh, those that the ends show and those of the other nodes, and the peers dialled in vain."""
    shown: defaultdict[tuple[str, str, bool], list[LinkReport]] = defaultdict(list)
    down: set[tuple[str, str]] = set()
    listed: dict[tuple[str, str], int] = {}
    for report in reports.values():
        for link in report.graph.links if report.graph is not None else ():
            for a, b, cost in ((link.a, link.b, link.cost), (link.b, link.a, link.cost_back)):
                if cost is not None:
                    listed[a, b] = cost
        for each in report.status.links if report.status is not None else ():
            if each.node in known and each.state != "down":
                shown[report.node, each.node, each.dialled].append(each)
            elif each.node in known and each.dialled:
                down.add((report.node, each.node))
    linked = set()
    for dialler, listener in sorted({(a, b) if dialled else (b, a) for a, b, dialled in shown}):
        linked |= {(dialler, listener), (listener, dialler)}
        at_dialler, at_listener = shown[dialler, listener, True], shown[listener, dialler, False]
        for there, back in zip_longest(at_dialler, at_listener):
            rtts = [end.rtt for end in (there, back) if end is not None and end.rtt is not None]
            costs = (
                there.cost if there is not None else listed.get((dialler, listener), back.cost),
                back.cost if back is not None else listed.get((listener, dialler), there.cost),
            )
            yield _Link(dialler, listener, min(rtts, default=None), costs)
    shows = {report.node for report in reports.values() if report.status is not None}
    for a, b in sorted({(min(pair), max(pair)) for pair in listed} - linked):
        if a in known and b in known and not shows & {a, b}:
            yield _Link(a, b, None, (listed.get((a, b), listed.get((b, a))), listed.get((b, a), listed.get((a, b)))))
    for dialler, listener in sorted(down - linked):
        yield _Link(dialler, listener, None, (None, None), up=False)
