"""Nodes in processes of their own that evaluate expressions, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

STOP_WITHIN = 90.0
"""Seconds that a process may take to close its node, before it is killed."""

_NODE = """
import asyncio, gc, hashlib, json, sys
import zmesh
from zmesh.core.limits import Limits
from zmesh.testing import eventually

async def main():
    settings = json.loads(sys.argv[1])
    limits = Limits(**settings.pop("limits")) if "limits" in settings else None
    async with zmesh.Controller(zmesh.Config(**settings), limits=limits) as mesh:
        gc.collect()
        gc.freeze()  # as `zmesh node` does
        print(*mesh.listening, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = await eval(line, globals() | {"mesh": mesh})
            print(json.dumps(answer), flush=True)
"""


class Process:
    """A node in a process of its own. It evaluates one line of Python at a time, in which `mesh` is its controller.

    `listening` are the URLs that it listens on.
    """

    def __init__(self, settings: dict[str, Any], more: str = "") -> None:
        """Start it, and wait until it listens.

        `settings` are those of Config, and `limits` the fields of Limits; `more` is code for its expressions.
        """
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", f"{_NODE}\n{more}\nasyncio.run(main())", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.listening = self._line().split()

    @classmethod
    async def begin(cls, node_id: str, *, more: str = "", **settings: Any) -> Self:
        """Start a node that listens on a free port of loopback, unless `settings` say otherwise."""
        settings = {"node_id": node_id, "listen": ["tcp://127.0.0.1:*"], **settings}
        return await asyncio.to_thread(cls, settings, more)

    def start(self, expression: str) -> None:
        """Have an awaitable expression evaluated."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()

    async def answer(self) -> Any:
        """The value of the expression that was started."""
        return json.loads(await asyncio.to_thread(self._line))

    async def ask(self, expression: str) -> Any:
        """The value of an awaitable expression."""
        self.start(expression)
        return await self.answer()

    def memory(self, which: str) -> int:
        """`VmRSS`, the bytes in memory now, or `VmHWM`, the most that there ever were (proc_pid_status(5))."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{which}:\s+(\d+) kB", status)
        assert found is not None
        return 1024 * int(found[1])

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        self.process.kill()
        self.process.wait()

    def close(self) -> int:
        """Have it close its node and exit; its exit code."""
        with self.process as process:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN)
            process.kill()
        return process.returncode

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()
