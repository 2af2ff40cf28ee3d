"""Shell completion from the mesh: node ids, targets and directives, if a node answers within a second."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from typing import Any

from typer import Context

from zmesh_cli.conversion import UsageError

WITHIN = 1.0
"""Seconds for joining the mesh and asking a node."""
SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_ZMESH_COMPLETE"


def nodes(ctx: Context, incomplete: str) -> list[str]:
    """Ids of nodes that begin so."""
    return _beginning(_ids(_tables(ctx)), incomplete)


def targets(ctx: Context, incomplete: str) -> list[str]:
    """Ids of nodes, and `tag:NAME`; after a comma or an exclamation mark too."""
    head = incomplete[: max(incomplete.rfind(","), incomplete.rfind("!")) + 1]
    tables = _tables(ctx)
    found = [*_ids(tables), *(f"tag:{tag}" for tag in _tags(tables))]
    return [head + each for each in _beginning(found, incomplete[len(head) :])]


def tags(ctx: Context, incomplete: str) -> list[str]:
    """Tags of nodes that begin so."""
    return _beginning(_tags(_tables(ctx)), incomplete)


def directives(ctx: Context, incomplete: str) -> list[str]:
    """Directives of the node that is named before, else of any."""
    capabilities = _tables(ctx).get("capabilities", {})
    node = ctx.params.get("node")
    offered = capabilities[node] if node in capabilities else [each for one in capabilities.values() for each in one]
    return _beginning((each for each in offered if ":!" not in each), incomplete)


def script(shell: str) -> str:
    """The script that the shell has to source."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # no name of its own has it

    return str(get_completion_script(prog_name="zmesh", complete_var=VARIABLE, shell=shell)) + "\n"


def prepare() -> None:
    """Have Typer answer the shell, which asks by a variable of the environment."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()


def _beginning(found: Iterable[str], incomplete: str) -> list[str]:
    return sorted({each for each in found if each.startswith(incomplete)})


def _tags(tables: dict[str, Any]) -> set[str]:
    return {tag for each in tables.get("tags", {}).values() for kind in ("certified", "own") for tag in each[kind]}


def _ids(tables: dict[str, Any]) -> list[str]:
    own = [tables["node"]] if "node" in tables else []
    return [*own, *(route["destination"] for route in tables.get("routes", ()))]


def _tables(ctx: Context) -> dict[str, Any]:
    """The tables of the node where a command would join; none if that fails or takes too long."""
    from zmesh.errors import MeshError
    from zmesh_cli.exit_codes import Failure
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.routes import fetch_tables
    from zmesh_cli.session import Session

    async def fetch() -> dict[str, Any]:
        peer = ctx.params.get("peer") or os.environ.get("ZMESH_PEER")
        session = Session(choose(peer), None, WITHIN, join_timeout=WITHIN)
        async with asyncio.timeout(WITHIN), session:
            return await fetch_tables(session, WITHIN)

    stderr = os.dup(2)
    quiet = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(quiet, 2)  # a line of an error would stand in the middle of what is typed
        return asyncio.run(fetch())
    except (Failure, MeshError, OSError, UsageError):
        return {}
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(quiet)
