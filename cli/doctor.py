"""`zmesh doctor`: what is wrong with a node, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator

from zmesh import Diagnosis
from zmesh_cli.exit_codes import DONE, FAILED
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.status import unless_too_old
from zmesh_cli.tables import INDENT, width_of_stdout, wrapped
from zmesh_cli.terminal import Output, printable, record

DEFAULT_TIMEOUT = 30.0
"""Seconds to wait for the answer, unless --timeout is given."""


async def doctor(place: Place, node: str | None, *, timeout: float | None, quiet: bool, as_json: bool) -> int:
    """Print what is wrong with a node, or (None) with the one where the command joins; 0 only if nothing is."""
    output = Output()
    async with Session(place, node, timeout, join_timeout=timeout) as session:
        asked = session.controller.doctor(session.target, timeout=timeout or DEFAULT_TIMEOUT)
        found = await session.unless_not_found(unless_too_old(session.target, asked))
    if as_json:
        await output.text(record("zmesh.doctor/1", ok=found.ok, **found.to_json()))
    elif not quiet:
        await output.text("".join(f"{line}\n" for line in _render(found, width_of_stdout())))
    return DONE if found.ok else FAILED


def _render(found: Diagnosis, width: int) -> Iterator[str]:
    """The lines for people: what is wrong with what mends it, then what is well."""
    wrong = [check for check in found.checks if not check.ok]
    count = f"{len(wrong)} thing{'s' if len(wrong) > 1 else ''} to mend" if wrong else "all is well"
    yield f"{printable(found.node)}: {count}"
    for check in wrong:
        yield from wrapped(["!", *printable(check.text).split()], width, first=INDENT, rest=2 * INDENT)
        if check.remedy:
            yield from wrapped(["->", *printable(check.remedy).split()], width, first=2 * INDENT, rest=3 * INDENT)
    for check in found.checks:
        if check.ok:
            words = ["ok", f"{check.code:<12}", *printable(check.text).split()]
            yield from wrapped(words, width, first=INDENT, rest=9 * INDENT)
