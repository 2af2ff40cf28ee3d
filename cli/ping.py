"""`zmesh ping`: whether a node can be reached, its round-trip time, and the work that runs there."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from zmesh import ActiveWork, Pong
from zmesh.errors import MeshError, Unreachable
from zmesh_cli.exit_codes import DONE, INTERRUPTED, TIMED_OUT, UNREACHABLE, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.terminal import Output, printable, record

DEFAULT_TIMEOUT = 5.0
"""Seconds to wait for each answer, unless --timeout is given."""


@dataclass(slots=True)
class Statistics:
    """Counts of pings and the round-trip times of those that were answered, in milliseconds."""

    sent: int = 0
    times: list[float] = field(default_factory=list)
    unreachable: bool = False

    def figures(self) -> dict[str, float | int | None]:
        """The summary. A percentile is by nearest rank: the smallest time that this share of them do not exceed."""
        times = sorted(self.times)
        count = len(times)

        def percentile(share: float) -> float | None:
            return round(times[max(0, math.ceil(share * count) - 1)], 3) if times else None

        return {
            "sent": self.sent,
            "received": count,
            "loss": round(1 - count / self.sent, 6) if self.sent else 0.0,
            "min_ms": percentile(0.0),
            "avg_ms": round(sum(times) / count, 3) if times else None,
            "p50_ms": percentile(0.50),
            "p99_ms": percentile(0.99),
            "max_ms": percentile(1.0),
        }


def single(target: str | None, *, all_nodes: bool) -> str | None:
    """The one node that is to be pinged; None for several. Raises Failure for neither, or both."""
    if (target is None) != all_nodes:
        raise Failure("give either a TARGET, such as edge-7 or tag:gpu, or --all", USAGE)
    is_single = target is not None and not any(mark in target for mark in ":,!*")
    return target if is_single else None


async def ping(
    place: Place,
    node: str,
    *,
    count: int,
    interval: float,
    timeout: float | None,
    route_timeout: float | None,
    as_json: bool,
) -> int:
    """Ping a node `count` times, every `interval` seconds, and print each answer as it comes; the exit code."""
    output = Output()
    statistics = Statistics()
    pings: set[asyncio.Task[None]] = set()
    try:
        async with Session(place, node, timeout, route_timeout=route_timeout) as session:
            series = _Series(session, output, statistics, timeout or DEFAULT_TIMEOUT, as_json)
            try:
                await session.unless_not_found(series.run(count, interval, pings))
            finally:
                for task in pings:
                    task.cancel()
                await asyncio.gather(*pings, return_exceptions=True)
    except asyncio.CancelledError:
        if not (statistics.sent or as_json):
            return INTERRUPTED
        await _summarize(output, node, statistics, as_json, interrupted=True)
        return INTERRUPTED
    except Failure:
        if as_json and statistics.sent:
            await _summarize(output, node, statistics, as_json)
        raise
    await _summarize(output, node, statistics, as_json)
    if statistics.times:
        return DONE
    return UNREACHABLE if statistics.unreachable else TIMED_OUT


class _Series:
    """The pings of one command."""

    def __init__(self, session: Session, output: Output, statistics: Statistics, timeout: float, as_json: bool) -> None:
        self._session = session
        self._output = output
        self._statistics = statistics
        self._timeout = timeout
        self._as_json = as_json

    async def run(self, count: int, interval: float, pings: set[asyncio.Task[None]]) -> None:
        """Send them all, each in time whether or not the ones before it were answered, and wait for the last answer.

        With an interval of 0, each is sent when the one before is done.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        for index in range(count):
            if index:
                await asyncio.wait(pings, timeout=start + index * interval - loop.time() if interval else None)
                _raise_failures(pings)
                if interval:
                    await asyncio.sleep(start + index * interval - loop.time())
            self._statistics.sent += 1
            pings.add(loop.create_task(self._one(index + 1)))
        while pings:
            await asyncio.wait(pings, return_when=asyncio.FIRST_COMPLETED)
            _raise_failures(pings)

    async def _one(self, seq: int) -> None:
        try:
            pong = await self._ping(first=seq == 1)
        except MeshError as error:
            if isinstance(error, Unreachable):
                self._statistics.unreachable = True
            if not self._as_json:
                await self._output.text(f"no answer from {self._session.target}: seq={seq} {printable(str(error))}\n")
            return
        rtt_ms = round(1000 * pong.rtt, 3)
        self._statistics.times.append(rtt_ms)
        work = pong.active_work
        node = self._session.target
        if self._as_json:
            shown = [_shown(each) for each in work]
            line = record("zmesh.ping/1", node=node, seq=seq, rtt_ms=rtt_ms, hops=pong.hops, active_work=shown)
        else:
            busy = f" working on {len(work)}" if work else ""
            line = f"answer from {node}: seq={seq} hops={pong.hops} time={rtt_ms:.3f} ms{busy}\n"
        await self._output.text(line)

    async def _ping(self, first: bool) -> Pong:
        """One ping. The first one is sent again after the target has answered one, since discovery takes time."""
        session = self._session
        if not first:
            return await session.ping(self._timeout)
        ping = asyncio.ensure_future(session.ping(self._timeout))
        try:
            await asyncio.wait((ping, session.answered), return_when=asyncio.FIRST_COMPLETED)
            if ping.done():
                await ping
            return await session.ping(self._timeout)
        finally:
            ping.cancel()
            await asyncio.gather(ping, return_exceptions=True)


def _shown(work: ActiveWork) -> dict[str, str | None]:
    """Work that runs at a node. Its id is text, because readers of JSON round numbers of that size."""
    return {"id": work.message_id, "directive": work.directive, "sender": work.sender}


def _raise_failures(pings: set[asyncio.Task[None]]) -> None:
    """Remove the pings that are done, and raise what one of them could not handle, such as a BrokenPipeError."""
    for task in [task for task in pings if task.done()]:
        pings.discard(task)
        task.result()


async def _summarize(
    output: Output, node: str, statistics: Statistics, as_json: bool, interrupted: bool = False
) -> None:
    figures = statistics.figures()
    if as_json:
        await output.text(record("zmesh.ping-summary/1", node=node, **figures))
        return
    lines = ["" if interrupted and output.is_terminal else None, f"--- {node}"]
    lines.append(f"{figures['sent']} sent, {figures['received']} received, {100 * (figures['loss'] or 0):.3g} % lost")
    if statistics.times:
        named = ("min", "avg", "p50", "p99", "max")
        times = "/".join(f"{figures[f'{name}_ms']:.3f}" for name in named)
        lines.append(f"round trip {'/'.join(named)} = {times} ms")
    await output.text("".join(f"{line}\n" for line in lines if line is not None))
