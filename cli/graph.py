"""`zmesh graph`: the nodes and links of the mesh, as a drawing (SVG), for Graphviz (DOT), or as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from zmesh import GraphLink, MeshGraph
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.graph_layout import Point, layout
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.status import DEFAULT_TIMEOUT, unless_too_old
from zmesh_cli.terminal import Output, printable, record

FORMATS = ("dot", "svg", "json")
MARGIN = 80
RADIUS = 6
_STYLE = (
    "line{stroke:#888}.half{stroke-dasharray:4}circle{fill:#fff;stroke:#222}.here{fill:#222}"
    "text{font:11px sans-serif;text-anchor:middle}.cost{fill:#888;font-size:9px}"
)


def checked_format(name: str) -> str:
    """The format that a command is given. Raises Failure for one that there is not."""
    if name not in FORMATS:
        raise Failure(f"--format takes one of {', '.join(FORMATS)}, not {name!r}", USAGE)
    return name


async def graph(place: Place, at: str | None, form: str, *, timeout: float | None) -> int:
    """Print the graph of the mesh, as the node `at`, or (None) the node where the command joins, knows it."""
    async with Session(place, at, timeout, join_timeout=timeout) as session:
        asked = session.controller.graph(session.target, timeout=timeout or DEFAULT_TIMEOUT)
        found = await session.unless_not_found(unless_too_old(session.target, asked))
    if form == "json":
        text = record("zmesh.graph/1", **found.to_json())
    else:
        lines = dot(found) if form == "dot" else svg(found)
        text = "".join(f"{line}\n" for line in lines)
    await Output().text(text)
    return DONE


def dot(found: MeshGraph) -> Iterator[str]:
    """The lines for Graphviz: `zmesh graph | dot -Tpng -o mesh.png`."""
    yield "graph mesh {"
    yield f"  {_quoted(found.node)} [style=bold]"
    for node in found.nodes:
        if node.node != found.node:
            yield f"  {_quoted(node.node)}"
    for link in found.links:
        style = ", style=dashed" if _is_half(link) else ""
        yield f"  {_quoted(link.a)} -- {_quoted(link.b)} [label={_quoted(_cost(link))}{style}]"
    yield "}"


def svg(found: MeshGraph) -> Iterator[str]:
    """The lines of a drawing: the node that has shown it in the middle, and on each ring those one hop further."""
    places = layout(found)
    wide = max((max(abs(x), abs(y)) for x, y in places.values()), default=0.0) + MARGIN
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-wide:.0f} {-wide:.0f} {2 * wide:.0f} {2 * wide:.0f}">'
    yield f"<style>{_STYLE}</style>"
    for link in found.links:
        yield from _drawn_link(link, places)
    for name, (x, y) in places.items():
        kind = ' class="here"' if name == found.node else ""
        yield f'<circle{kind} cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'
        yield f'<text x="{x:.1f}" y="{y + 18:.1f}">{_escaped(name)}</text>'
    yield "</svg>"


def _drawn_link(link: GraphLink, places: dict[str, Point]) -> Iterator[str]:
    if link.a not in places or link.b not in places:
        return
    (x, y), (u, v) = places[link.a], places[link.b]
    kind = ' class="half"' if _is_half(link) else ""
    yield f'<line{kind} x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}"/>'
    yield f'<text class="cost" x="{(x + u) / 2:.1f}" y="{(y + v) / 2:.1f}">{_escaped(_cost(link))}</text>'


def _is_half(link: GraphLink) -> bool:
    """Whether one end alone lists the link."""
    return link.cost is None or link.cost_back is None


def _cost(link: GraphLink) -> str:
    costs = [cost for cost in (link.cost, link.cost_back) if cost is not None]
    return "/".join(str(cost) for cost in dict.fromkeys(costs))


def _quoted(text: str) -> str:
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _escaped(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
