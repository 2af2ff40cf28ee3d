"""`zmesh job`: leave work at nodes, and find it again from anywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zmesh import Job, JobId, JobState, JobStatus, contact_lost
from zmesh.errors import ConfigError, MeshError, NotAllowed, TimedOut, UnknownDirective, Unreachable
from zmesh_cli.at_nodes import nodes_of
from zmesh_cli.exit_codes import DONE, FAILED, INTERRUPTED, UNREACHABLE, USAGE, Failure, exit_code
from zmesh_cli.input import NO_PAYLOAD, Input, mention_unread
from zmesh_cli.local_sockets import Place
from zmesh_cli.run import exit_code_of
from zmesh_cli.session import Session
from zmesh_cli.tables import table, width_of_stdout
from zmesh_cli.terminal import STDERR, STDOUT, Output, print_error, print_line, printable, record

T = TypeVar("T")

LIST_TIMEOUT = 10.0
"""Seconds that a node may take to list its jobs."""
ROUTE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """A job to submit: a directive with its payload, or a command with its stdin."""

    work: str | list[str]
    payload: bytes | Input | None
    options: dict[str, Any] = field(default_factory=dict)


def named(text: str) -> JobId:
    """The id of a job. Raises Failure for a malformed one."""
    try:
        return JobId.of(text)
    except ConfigError as error:
        raise Failure(str(error), USAGE) from None


# -- submit ------------------------------------------------------------------------------------------------------------


async def submit(place: Place, target: Any, order: Order, *, route_timeout: float | None, as_json: bool) -> int:
    """Leave a job at each node of a target, and print their ids; the exit code."""
    output = Output()
    node, within = target.node, route_timeout or (None if target.node else ROUTE_TIMEOUT)
    advice = NO_PAYLOAD if isinstance(order.work, str) else "as --stdin was not given: that sends it"
    with mention_unread(advice if order.payload is None else None):
        async with Session(place, node, route_timeout=within) as session:
            nodes = [node] if node is not None else await nodes_of(session, target)
            if len(nodes) > 1 and isinstance(order.payload, Input):
                raise Failure("standard input can be the payload of one job only; give a file to each node", USAGE)
            code = DONE
            for each in nodes:
                submitting = session.controller.submit(each, order.work, order.payload, **order.options)
                try:
                    job = await (session.unless_not_found(submitting) if node is not None else submitting)
                except ConfigError as error:
                    raise Failure(str(error), USAGE) from None
                except MeshError as error:
                    print_error(str(error))
                    code = exit_code(error)
                else:
                    assert job.last is not None
                    await output.text(_line(job.last) if as_json else f"{job.id}\n")
            return code


# -- ls, show ----------------------------------------------------------------------------------------------------------


async def ls(
    place: Place,
    target: Any,
    *,
    states: Sequence[str],
    owner: str | None,
    limit: int | None,
    route_timeout: float | None,
    as_json: bool,
) -> int:
    """Print the jobs that the nodes of a target keep; the exit code."""
    output = Output()
    failed: dict[str, MeshError] = {}
    async with Session(place, target.node, route_timeout=route_timeout or ROUTE_TIMEOUT) as session:

        async def of(node: str) -> list[JobStatus]:
            try:
                return await session.controller.jobs(
                    node, owner=owner, states=states, limit=limit, timeout=LIST_TIMEOUT
                )
            except MeshError as error:
                failed[node] = error
                return []

        asked = 1
        if target.node is not None:
            try:
                found = await session.unless_not_found(of(target.node))
            except Failure as failure:
                if failure.code != UNREACHABLE:
                    raise
                raise Failure(f"{target.node}: {contact_lost(str(failure))}", UNREACHABLE) from None
        else:
            nodes = await nodes_of(session, target)
            asked = len(nodes)
            found = [status for each in await asyncio.gather(*map(of, nodes)) for status in each]
    found.sort(key=lambda status: status.submitted, reverse=True)
    if as_json:
        await output.text("".join(map(_line, found)))
    else:
        lines = _table(found) if len(failed) < asked else []
        await output.text("".join(f"{line.removeprefix('  ')}\n" for line in lines))
    return _report(failed, named=target.names_nodes)


def _report(failed: dict[str, MeshError], *, named: bool) -> int:
    """Say which nodes have not answered; the exit code. Nodes that do not allow jobs are no failure of `ls`."""
    code = DONE
    quiet = (
        [] if named else [node for node, error in failed.items() if isinstance(error, (NotAllowed, UnknownDirective))]
    )
    for node, error in failed.items():
        if node not in quiet:
            lost = isinstance(error, (Unreachable, TimedOut))
            print_error(f"{node}: {contact_lost(str(error))}" if lost else str(error))
            code = exit_code(error)
    if quiet:
        those = f"{quiet[0]} does" if len(quiet) == 1 else f"{len(quiet)} nodes do"
        print_error(f"{those} not let you list jobs; 'zmesh job ls {quiet[0]}' says what would")
    return code


def _table(found: Sequence[JobStatus]) -> list[str]:
    if not found:
        return ["no job"]
    rows = [
        (each.id, str(each.state), _when(each.submitted), _lasted(each), each.owner, each.title, each.reason)
        for each in found
    ]
    head = ("JOB", "STATE", "SUBMITTED", "RAN", "OWNER", "WHAT", "WHY")
    return list(table(head, rows, width_of_stdout(), names=1, note=True))


async def show(place: Place, job: JobId, *, as_json: bool) -> int:
    """Print all that is known of a job; the exit code."""

    async def print_status(handle: Job) -> int:
        status = await handle.status()
        if status.state is JobState.LOST and status.code == "unreachable" and not status.directive:
            raise Failure(f"job {job}: {status.reason}", UNREACHABLE)
        await Output().text(_line(status) if as_json else "".join(f"{line}\n" for line in _described(status)))
        return DONE

    return await _with_job(place, job, print_status)


def _described(status: JobStatus) -> list[str]:
    rows = [
        ("job", status.id),
        ("state", status.shown),
        ("what", status.title),
        ("directive", status.directive),
        ("owner", status.owner),
        ("key", status.key),
        ("priority", status.priority or None),
        ("restart", status.restart),
        ("submitted", _when(status.submitted)),
        ("started", None if status.started is None else _when(status.started)),
        ("ended", None if status.ended is None else _when(status.ended)),
        ("ran", _lasted(status) if status.started is not None else None),
        (
            "lease",
            None if status.lease_until is None else f"of run {status.incarnation}, until {_when(status.lease_until)}",
        ),
        ("attempts", status.attempts if status.attempts > 1 else None),
        ("exit code", status.returncode),
        ("output", f"{status.output_bytes} bytes"),
        ("not kept", f"{status.omitted_bytes} bytes" if status.omitted_bytes else None),
    ]
    return [f"{name + ':':<11}{printable(str(value))}" for name, value in rows if value is not None]


# -- output ------------------------------------------------------------------------------------------------------------


async def attach(place: Place, job: JobId, *, offset: int, follow: bool, mirror: bool) -> int:
    """Write the output of a job from an offset on; with `mirror`, the exit code is that of the job."""
    written = offset

    async def write(handle: Job) -> int:
        nonlocal written
        outputs = {"stderr": Output(STDERR, "stderr")}
        stdout = Output(STDOUT)
        async for piece in handle.output(offset, follow=follow):
            output = outputs.get(piece.stream, stdout)
            await output.payload(piece.data)
            written = piece.end
        for output in (stdout, *outputs.values()):
            await output.end_payload()
        status = handle.last
        assert status is not None
        if status.output_bytes < offset:
            print_error(f"job {status.id} has {status.output_bytes} bytes of output; --from {offset} is past their end")
        if status.omitted_bytes:
            print_error(f"{status.omitted_bytes} bytes of the output of job {status.id} were not kept")
        return _ended_as(status) if mirror else DONE

    def again() -> None:
        verb = "attach" if mirror else "logs -f"
        print_line(f"zmesh: the job goes on; its output from here: zmesh job {verb} {job} --from {written}")

    try:
        return await _with_job(place, job, write)
    except asyncio.CancelledError:
        if follow:
            again()
        return INTERRUPTED
    except (Unreachable, Failure):
        if follow and written:
            again()
        raise


def _ended_as(status: JobStatus) -> int:
    """The exit code that mirrors how a job has ended, with a line unless the command says it itself."""
    if status.state is JobState.DONE:
        return DONE
    if status.is_command and status.returncode is not None and status.code == "command_failed":
        if not status.output_bytes:
            print_error(f"job {status.id} {status.shown}")
        return exit_code_of(status.returncode)
    print_error(f"job {status.id} {status.shown}")
    return FAILED


async def result(place: Place, job: JobId, *, timeout: float | None) -> int:
    """Wait for the end of a job, and write what it has replied; the exit code."""

    async def write(handle: Job) -> int:
        output = Output()
        try:
            async for reply in handle.replies(timeout):
                async for chunk in reply.payload:
                    await output.payload(chunk)
        finally:
            await output.end_payload()
        return DONE

    return await _with_job(place, job, write)


# -- cancel, rm --------------------------------------------------------------------------------------------------------


async def cancel(place: Callable[[str], Place], jobs: Sequence[JobId], *, as_json: bool) -> int:
    """End jobs, and print how each has ended; the exit code."""

    async def end(handle: Job) -> int:
        status = await handle.cancel()
        await Output().text(_line(status) if as_json else f"{status.id} {printable(status.shown)}\n")
        return DONE

    return await _each(place, jobs, end)


async def rm(place: Callable[[str], Place], jobs: Sequence[JobId], *, force: bool) -> int:
    """Delete jobs, with `force` those that run as well; the exit code."""

    async def remove(handle: Job) -> int:
        if force:
            await handle.cancel()
        await handle.remove()
        return DONE

    return await _each(place, jobs, remove)


async def _each(place: Callable[[str], Place], jobs: Sequence[JobId], action: Callable[[Job], Any]) -> int:
    code = DONE
    for job in jobs:
        try:
            await _with_job(place(job.node), job, action)
        except (MeshError, Failure) as error:
            print_error(str(error))
            code = exit_code(error)
    return code


# -- inside ------------------------------------------------------------------------------------------------------------


async def _with_job(place: Place, job: JobId, action: Callable[[Job], Coroutine[Any, Any, T]]) -> T:
    """Do something with a job. A node that can't be reached is a Failure that says since when."""
    async with Session(place, job.node, route_timeout=ROUTE_TIMEOUT) as session:
        handle = session.controller.job(str(job))
        try:
            return await session.unless_not_found(action(handle))
        except (Failure, Unreachable) as error:
            if exit_code(error) != UNREACHABLE or str(error).startswith("job "):
                raise
            raise Failure(f"job {job}: {contact_lost(str(error))}", UNREACHABLE) from None


def _line(status: JobStatus) -> str:
    fields = status.to_json()
    return record(fields.pop("schema"), **fields)


def _when(at: float) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return str(at)


def _lasted(status: JobStatus) -> str:
    seconds = status.seconds
    if seconds is None:
        if status.started is None or status.state is not JobState.RUNNING:
            return "-"
        seconds = max(0.0, time.time() - status.started)
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{seconds:.1f} s" if seconds < 60 else f"{hours}:{minutes:02}:{rest:02}"
