"""A node in a process of its own, which evaluates what a test wants to know of it."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

NODE = """
import asyncio, hashlib, json, sys
import zmesh
from zmesh.testing import eventually

async def main():
    settings = json.loads(sys.argv[1])
    limits = zmesh.core.limits.Limits(**settings.pop("limits", {}))
    async with zmesh.Controller(zmesh.Config(**settings), limits=limits) as mesh:
        print(*mesh.listening, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = await eval(line, globals() | {"mesh": mesh})
            print(json.dumps(answer), flush=True)
"""


class Process:
    """A node in a process of its own. It evaluates a line of Python at a time, in which `mesh` is its controller.

    `settings` are those of its Config, and `limits` those that others are held to there; `more` is code for what is
    evaluated.
    """

    def __init__(self, settings: dict[str, Any], more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", f"{NODE}\n{more}\nasyncio.run(main())", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.listening = self._line().split()

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
        """`VmRSS`, the bytes in memory now, or `VmHWM`, the most that there ever were."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{which}:\s+(\d+) kB", status)
        assert found is not None
        return 1024 * int(found[1])

    def kill(self) -> None:
        """End it without a word, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> int:
        """Let it close its node and end; its exit code."""
        with self.process as process:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        return process.returncode

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()
