"""`zmesh ping --all` and `zmesh ping tag:gpu`: a line for each node, also for those that are missing."""

from __future__ import annotations

from zmesh import PingResult
from zmesh_cli.exit_codes import DONE, UNREACHABLE, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.nodes import EVERYONE, target_of
from zmesh_cli.quantities import age, milliseconds
from zmesh_cli.session import Session
from zmesh_cli.status import SKEWED, unless_too_old
from zmesh_cli.terminal import Output, printable, record

DEFAULT_TIMEOUT = 5.0
"""Seconds to wait for each answer, unless --timeout is given."""


async def ping_many(place: Place, target: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Ping the nodes of a target, and print a line for each as it is known; DONE if all that should be there answer."""
    target_of(target)
    output = Output()
    results: list[PingResult] = []
    async with Session(place, None) as session:
        asked = session.controller.ping_many(target or EVERYONE, session.target, timeout=timeout or DEFAULT_TIMEOUT)
        async with await unless_too_old(session.target, asked) as pings:
            async for result in pings:
                results.append(result)
                await output.text(_line(result, as_json=as_json))
    if not results:
        raise Failure("no node is meant: 'zmesh nodes' lists them, with their tags", USAGE)
    missing = [each for each in results if each.rtt is None and not each.left]
    if as_json:
        counts = {"nodes": len(results), "answered": sum(each.rtt is not None for each in results)}
        await output.text(record("zmesh.ping-all-summary/1", **counts, missing=len(missing)))
    else:
        await output.text(_summary(results, missing))
    return UNREACHABLE if missing else DONE


def _line(result: PingResult, *, as_json: bool) -> str:
    if as_json:
        return record("zmesh.ping-all/1", **result.to_json())
    if result.rtt is None:
        last = f"; last hop that answers: {result.last_hop}" if result.last_hop is not None else ""
        return f"{printable(result.node)}: no answer: {printable(result.error)}{printable(last)}\n"
    skew = ""
    if result.skew is not None and abs(result.skew) >= SKEWED + result.rtt:
        skew = f" its clock is {age(abs(result.skew))} {'ahead' if result.skew > 0 else 'behind'}"
    return f"{printable(result.node)}: hops={result.hops} time={milliseconds(result.rtt)}{skew}\n"


def _summary(results: list[PingResult], missing: list[PingResult]) -> str:
    times = sorted(each.rtt for each in results if each.rtt is not None)
    left = sum(each.left for each in results)
    text = f"{len(times)} of {len(results) - left} nodes answer"
    text += f", {left} have left" if left else ""
    if times:
        middle = times[len(times) // 2]
        text += (
            f"\nround trip min {milliseconds(times[0])}, median {milliseconds(middle)}, max {milliseconds(times[-1])}"
        )
    return f"--- {text}\n"
