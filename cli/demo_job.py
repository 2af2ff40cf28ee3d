"""The demo's job: `zmesh job attach` in a process of its own, which is killed when it has shown a line."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess

from zmesh_cli.demo_processes import COMMAND, Workplace
from zmesh_cli.exit_codes import FAILED, Failure

LINE_WITHIN = 30.0


async def follow_and_die(words: tuple[str, ...], place: Workplace, environment: dict[str, str]) -> bytes:
    """Run `zmesh` with these words up to its first line of output, and kill it; the line. Raises Failure."""
    with place.log("attach") as log:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            process_group=0,
            env=environment,
            cwd=place.folder,
        )
        place.running(process.pid)
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), LINE_WITHIN)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            place.running(None)
        if not line:
            log.seek(0)
            raise Failure(f"'zmesh job attach' has failed: {log.read().strip()}", FAILED)
        return line
