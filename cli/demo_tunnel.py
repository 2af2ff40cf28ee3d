"""The demo's tunnel: `zmesh forward` in a process of its own, and an HTTP connection through it that stays open."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import subprocess
from collections.abc import AsyncIterator

from zmesh_cli.demo_processes import COMMAND, Workplace
from zmesh_cli.exit_codes import FAILED, Failure

READY_WITHIN = 30.0


class Tunnel:
    """A port here that leads to a web server at a node; `get` fetches its page, always over the same connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_WITHIN)

    async def get(self) -> str:
        """The page. Raises Failure."""
        return await asyncio.to_thread(self._get)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _get(self) -> str:
        connected = self._connection.sock
        try:
            self._connection.request("GET", "/")
            response = self._connection.getresponse()
            page = response.read().decode(errors="backslashreplace")
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"the page can't be fetched through the tunnel: {error}", FAILED) from None
        if response.status != 200 or connected not in (None, self._connection.sock):
            raise Failure("the connection through the tunnel did not stay open", FAILED)
        return page


@contextlib.asynccontextmanager
async def tunnel(words: tuple[str, ...], place: Workplace, environment: dict[str, str]) -> AsyncIterator[Tunnel]:
    """Run `zmesh` with these words, which forward a port, and end it afterwards. Raises Failure."""
    with place.log("forward") as log:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            "--json",
            "--until-stdin-closes",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            process_group=0,
            env=environment,
            pass_fds=(place.pipe,),  # the folder is deleted when this has ended, too
        )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), READY_WITHIN)
            if not line:
                log.seek(0)
                raise Failure(f"'zmesh forward' has failed: {log.read().strip()}", FAILED)
            with contextlib.closing(Tunnel(int(json.loads(line)["listening"][0].rpartition(":")[2]))) as found:
                yield found
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
