"""The lines on stderr that the page about the command line shows are those of the code."""

import re
from collections.abc import Iterator
from pathlib import Path

from zmesh.core.effects import Report
from zmesh.core.message import Address, LinkId, NodeId
from zmesh.core.routing.duplicates import describe_refused
from zmesh.core.wire import Refused
from zmesh.observe.journal import Lines, Neighbour
from zmesh.transport.listener import STRANGERS

PAGE = Path(__file__).parents[2] / "docs/reference/cli.md"
HUB = "tcp://hub:7323"
KEY = "?key=B6N8vBQgk8i3VdwbEOhstCa3StFqqFPtC9_AsrhtHHw"
TWIN = NodeId(Address("twin"))


class Place:
    """What a node looks up for its lines."""

    def __init__(self, end: Neighbour) -> None:
        self.end = end

    def neighbour(self, link: LinkId) -> Neighbour:
        return self.end

    def last_heard_by(self, node: str) -> str | None:
        return {"far": "hub"}.get(node)


def report(event: str, node: str | None = None, detail: str = "") -> Report:
    return Report(event, NodeId(Address(node)) if node is not None else None, LinkId(1), detail)


class Told:
    """The lines of one node."""

    def __init__(self, node: str, end: Neighbour) -> None:
        self.node, self.place = node, Place(end)
        self.lines = Lines(self.place)

    def note(self, now: float, event: str, node: str | None, detail: str = "") -> Iterator[str]:
        for _, text, _ in self.lines.note(report(event, node, detail), now):
            yield f"{self.node}: {text}"


def lines() -> Iterator[str]:
    edge = Told("edge", Neighbour(HUB, True, 0.0007))
    hub = Told("hub", Neighbour("10.0.0.7", False, 0.0009))
    yield from edge.note(0.0, "link_up", "hub")
    yield from hub.note(0.0, "link_up", "edge")
    yield from hub.note(0.0, "node_joined", "edge")
    yield from edge.note(100.0, "link_lost", "hub", "silent for 3 s")
    yield from edge.note(100.0, "node_left", "far")
    for second in range(12):
        yield from edge.note(102.0 + second, "dial_failed", None, f"{HUB}: connection refused")
    edge.place.end = Neighbour(HUB, True, 0.0008)
    yield from edge.note(115.0, "link_up", "hub")
    text = "another node called 'twin' is alive in the mesh, linked to hub"
    yield from Told("hub", Neighbour("10.0.0.9", False, None)).note(0.0, "link_refused", "twin", f"we refuse: {text}")
    twin = Told("twin", Neighbour(HUB, True, None))
    yield from twin.note(0.0, "link_refused", None, f"they refuse: {text}")
    yield f"twin: {describe_refused(Refused(TWIN, 7, 0.0, 'from 10.0.0.9'), NodeId(Address('hub')), TWIN)}"
    stranger = f"wrong_key: from 10.0.0.8: {STRANGERS['wrong_key'].format(key=KEY)}"
    yield from Told("hub", Neighbour("", False, None)).note(0.0, "stranger_refused", None, stranger)
    many = Told("hub", Neighbour("", False, None))
    for number in range(1000):
        list(many.note(0.0, "node_joined", f"n{number}"))
    yield from (f"hub: {text}" for _, text, _ in many.lines.tick(1.0))


def test_every_line_that_is_shown_is_one_of_the_code() -> None:
    block = re.search(r"### The log of a node.*?```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert block is not None
    shown = [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", "", line) for line in block[1].splitlines()]
    assert shown == list(lines())
