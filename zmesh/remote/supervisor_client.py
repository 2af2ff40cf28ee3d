"""The node's side of the supervisor (`supervisor.py`): orders go out, and reports come in about each command."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

from zmesh.runtime import ControlledProcess

CLOSE_WITHIN = 4.0
"""Seconds for the supervisor to end what still runs, when the node closes; it is killed then, and they with it."""

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PROGRAM = "import sys; sys.path.insert(0, {folder!r}); import supervisor; supervisor.serve({descriptor})"

OnReport: TypeAlias = Callable[[dict[str, Any]], None]


class SupervisorClient:
    """The node's connection to the supervisor: sends orders, hands reports to the processes that they are about."""

    def __init__(self) -> None:
        self._process = ControlledProcess("zmesh-supervisor", self._on_packet, self._on_lost, close_within=CLOSE_WITHIN)
        self._reports: dict[int, OnReport] = {}
        self._count = 0

    @classmethod
    async def open(cls) -> Self:
        """Start the supervisor. Raises OSError if that fails."""
        client = cls()
        options = ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else []), "-c"]
        await client._process.launch(
            lambda descriptor: [*options, _PROGRAM.format(folder=_FOLDER, descriptor=descriptor)],
            stdout=subprocess.DEVNULL,
        )
        return client

    @property
    def lost(self) -> bool:
        """Whether the supervisor has exited, or is closed."""
        return self._process.lost

    def begin(self, report: OnReport) -> int:
        """Allocate the number of a new command, whose reports go to `report`."""
        self._count += 1
        self._reports[self._count] = report
        return self._count

    def forget(self, id: int) -> None:
        """Take no more reports about a command."""
        self._reports.pop(id, None)

    async def order(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send an order, waiting while the socket is full."""
        await self._process.send(marshal.dumps(message), descriptors)

    def order_soon(self, message: dict[str, Any]) -> None:
        """Send an order without waiting; one for which the socket has no room follows in a task."""
        self._process.send_soon(marshal.dumps(message))

    async def close(self) -> None:
        """Let the supervisor end all commands and exit, by force if it takes long."""
        await self._process.close()

    def _on_packet(self, packet: bytes) -> None:
        message = marshal.loads(packet)
        if (report := self._reports.get(message["id"])) is not None:
            report(message)

    def _on_lost(self) -> None:
        reports, self._reports = self._reports, {}
        for report in reports.values():
            report({"lost": True})
