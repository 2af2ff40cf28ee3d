"""`zmesh dashboard`: a page in the browser that shows the mesh."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

from zmesh_cli.exit_codes import DONE, FAILED, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.terminal import Output, print_line, record


def check_extra() -> None:
    """Raise Failure where the extra `web` is not installed."""
    try:
        from zmesh.dashboard import Dashboard  # noqa: F401
    except ImportError as error:
        raise Failure(str(error), USAGE) from None


async def dashboard(place: Place, *, port: int, as_json: bool) -> int:
    """Serve the dashboard of the mesh at `place` until a signal; the exit code."""
    from zmesh.dashboard import Dashboard

    async with Session(place) as session, AsyncExitStack() as stack:
        try:
            served = await stack.enter_async_context(Dashboard(session.controller, port=port))
        except OSError as error:
            raise Failure(
                f"can't listen on port {port} of 127.0.0.1: {os.strerror(error.errno or 0)}", FAILED
            ) from None
        if as_json:
            text = record("zmesh.dashboard/1", event="ready", url=served.url, node=session.host)
        else:
            print_line(f"the mesh as {session.host!r} knows it, for a browser on this machine; Ctrl-C stops it")
            text = f"{served.url}\n"
        await Output().text(text)
        await served.wait()
    return DONE
