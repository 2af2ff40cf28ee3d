"""`zmesh bundle`: the state of nodes in a file, for a bug report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from zmesh import BundleSummary
from zmesh_cli.exit_codes import DONE, FAILED, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.nodes import EVERYONE, target_of
from zmesh_cli.quantities import size
from zmesh_cli.session import Session
from zmesh_cli.status import unless_too_old
from zmesh_cli.terminal import Output, print_error, printable, record

DEFAULT_TIMEOUT = 30.0
"""Seconds to wait for each answer, unless --timeout is given."""
NAMED = 10
"""Nodes that a line names."""


async def bundle(
    place: Place,
    target: str | None,
    at: str | None,
    output: str | None,
    *,
    timeout: float | None,
    examine: bool,
    as_json: bool,
) -> int:
    """Write the file, and print what it is called and what is missing in it; the exit code."""
    target_of(target)
    path = output if output is not None else time.strftime("zmesh-%Y%m%d-%H%M%S.tar.gz", time.gmtime())
    within = timeout or DEFAULT_TIMEOUT
    async with Session(place, at, timeout, join_timeout=timeout) as session:
        made = session.controller.bundle(path, target or EVERYONE, session.target, timeout=within, examine=examine)
        try:
            summary = await session.unless_not_found(unless_too_old(session.target, made))
        except OSError as error:
            if error.errno is None:  # a time-out of the mesh is one, too
                raise
            code = USAGE if isinstance(error, IsADirectoryError) else FAILED
            raise Failure(f"can't write the file {path!r}: {error.strerror}", code) from None
    for line in _missing(summary):
        print_error(line)
    size_bytes = _size(path)
    if as_json:
        await Output().text(record("zmesh.bundle/1", file=path, size_bytes=size_bytes, **summary.to_json()))
    else:
        count = len(summary.nodes)
        await Output().text(f"{printable(path)}: {count} node{'s' * (count != 1)}, {size(size_bytes)}\n")
    return DONE


def _size(path: str) -> int:
    return os.path.getsize(path)


def _missing(summary: BundleSummary) -> Iterator[str]:
    """A line for each node that is not in it, and for each part that some nodes have not shown."""
    for node, reason in list(summary.missing.items())[:NAMED]:
        text = printable(reason)
        yield f"without {text}" if text.startswith(f"node {node!r}") else f"without node {node!r}: {text}"
    if len(summary.missing) > NAMED:
        yield f"without {len(summary.missing) - NAMED} nodes more; 'bundle.json' in the file names them"
    parts = dict.fromkeys(part for errors in summary.incomplete.values() for part in errors)
    for part in parts:
        nodes = [node for node, errors in summary.incomplete.items() if part in errors]
        yield f"without the {part} of {_named(sorted(nodes))}: {printable(summary.incomplete[nodes[0]][part])}"


def _named(nodes: Iterable[str]) -> str:
    names = list(nodes)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
