"""`zmesh trace`: the hops to a node, each as soon as it has answered, and the path back where it differs."""

from __future__ import annotations

from zmesh import Hop, TraceStep
from zmesh_cli.exit_codes import DONE, UNREACHABLE
from zmesh_cli.local_sockets import Place
from zmesh_cli.quantities import age, milliseconds, size
from zmesh_cli.session import Session, check_node_id
from zmesh_cli.tables import INDENT, width_of_stdout, wrapped
from zmesh_cli.terminal import Output, print_error, printable, record

DEFAULT_TIMEOUT = 5.0
"""Seconds to wait for the answer of each hop, unless --timeout is given."""


async def trace(place: Place, node: str, at: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Print the path from the node `at`, or (None) from the node where the command joins, to a node."""
    check_node_id(node)
    output, width = Output(), width_of_stdout()
    last: TraceStep | None = None
    returning: list[str] = []
    async with Session(place, at) as session:
        if not as_json:
            await output.text(f"from {session.target} to {node}\n")
        async for step in session.controller.trace(node, session.target, timeout=timeout or DEFAULT_TIMEOUT):
            if as_json:
                await output.text(record("zmesh.trace/1", **step.to_json()))
            elif step.back and not returning:
                await output.text("and back over another path\n")
            if not as_json:
                await output.text("".join(f"{line}\n" for line in _lines(step, width)))
            if step.back:
                returning.append(step.node)
            else:
                last = step
    if last is None or not last.arrived:
        if last is not None:
            print_error(f"no path to {node!r}: {last.error}")
        return UNREACHABLE
    if not as_json and not returning:
        await output.text("and back over the same path\n")
    return DONE


def _lines(step: TraceStep, width: int) -> list[str]:
    """A hop, and below it the link that it sends on over."""
    number = f"{step.number:2}"
    if step.reply is None or step.hop is None:
        return [f"{number}  {printable(step.node)}  no answer"]
    lines = [f"{number}  {printable(step.node)}  answers in {milliseconds(step.reply)}"]
    if step.hop.next_hop is not None:
        lines += wrapped(printable(_link(step.hop)).split(" "), width, first=f"  {INDENT}", rest=f"  {INDENT * 2}")
    return lines


def _link(hop: Hop) -> str:
    queue = f"{size(hop.queued_bytes)}B queued" if hop.queued_bytes else "nothing queued"
    parts = [f"| {milliseconds(hop.rtt)}", f"cost {hop.link_cost}", queue, hop.where]
    if hop.suspect and hop.heard is not None:
        parts.append(f"silent for {age(hop.heard)}")
    return ", ".join(parts)
