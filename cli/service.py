"""`zmesh reload` and `zmesh config`: the settings of a node of this machine."""

from __future__ import annotations

import json
import logging
import re

from zmesh import Controller, MeshError, RemoteError, trust
from zmesh_cli.exit_codes import DONE, UNREACHABLE, USAGE, Failure
from zmesh_cli.local_sockets import CHOICES_SHOWN, Place, alive, named
from zmesh_cli.parameters import NodeSettings
from zmesh_cli.session import Session
from zmesh_cli.tables import table, width_of_stdout
from zmesh_cli.terminal import print_error, printable, record, write_line

RELOAD = "zmesh:reload"
RELOAD_WITHIN = 5.0


async def reload(node: str | None, *, state: str | None, as_json: bool) -> int:
    """Have a node of this machine read its settings and its identity anew."""
    async with Session(Place(_local_url(node, state), False)) as session:
        try:
            payload = await session.controller.request(session.host, RELOAD, timeout=RELOAD_WITHIN)
        except RemoteError as error:
            raise Failure(f"{session.host}: nothing is reloaded: {_plain(error)}", USAGE) from None
    answer = payload.json() if payload is not None else {"node": session.host}
    changed, later = answer.get("changed", []), answer.get("at_restart", [])
    if as_json:
        write_line(record("zmesh.reload/1", node=answer["node"], changed=changed, at_restart=later))
        return DONE
    now = f"changed {', '.join(changed)}" if changed else "nothing changes now" if later else "nothing has changed"
    soon = f"; at its next start: {', '.join(later)}" if later else ""
    write_line(f"{printable(answer['node'])}: {printable(now + soon)}\n")
    return DONE


def _plain(error: MeshError) -> str:
    """The text of an error of the node there, without its id and the name of the class."""
    return re.sub(r"\A(node '[^']*': )?(Config|Address|State|Trust)Error: ", "", str(error))


def _local_url(node: str | None, state: str | None) -> str:
    """The socket of the node that is meant: by id, else that of the identity, else the only one that runs here."""
    local = alive()
    if node is None and state is None and len(local) == 1:
        return local[0].url
    if node is None and (state is not None or trust.default_folder() is not None):
        node = trust.load(state).node_id
    if node is not None:
        if (url := named(node)) is not None:
            return url
        raise Failure(f"no node {node!r} of this user runs here", USAGE)
    if not local:
        raise Failure("no node of this user runs here", UNREACHABLE)
    shown = ", ".join(each.name for each in local[:CHOICES_SHOWN])
    raise Failure(f"{len(local)} nodes run here: {shown}; name one: zmesh reload {local[0].name}", USAGE)


def check(settings: NodeSettings, *, as_json: bool) -> int:
    """Say whether a node could be started with these settings, as far as that is known before."""
    warnings = _Warnings()
    logging.getLogger().addHandler(warnings)
    controller = Controller(settings.load())
    controller.check()
    config = controller.config
    if as_json:
        fields = {"listen": list(config.listen), "peers": len(config.peers), "warnings": warnings.lines}
        write_line(record("zmesh.config-check/1", node_id=config.node_id, file=config.file, **fields))
        return DONE
    for line in warnings.lines:
        print_error(line)
    where = f"listens on {', '.join(config.listen)}" if config.listen else "listens nowhere"
    peers = f"dials {len(config.peers)} peer{'s' if len(config.peers) != 1 else ''}"
    write_line(f"{printable(f'{config.file}: ' if config.file else '')}node {config.node_id} {where}, {peers}\n")
    return DONE


def show(settings: NodeSettings, *, as_json: bool) -> int:
    """Print each setting and where it comes from."""
    controller = Controller(settings.load())
    found = controller.settings()
    if as_json:
        for name, value, origin in found:
            write_line(record("zmesh.config/1", setting=name, value=value, origin=origin.kind, where=origin.where))
        return DONE
    rows = [(name, _shown(value), str(origin)) for name, value, origin in found]
    for line in table(("setting", "value", "origin"), rows, width_of_stdout(), names=2, note=True):
        write_line(f"{line}\n")
    return DONE


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


class _Warnings(logging.Handler):
    """Keeps what is logged while settings are read."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
