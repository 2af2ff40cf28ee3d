"""The entry point. It imports next to nothing itself, so that Ctrl-C while the rest is imported ends quietly too."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from zmesh_cli.exits import FAILED, INTERRUPTED

if TYPE_CHECKING:
    from zmesh_cli.commands import app as app


def main() -> NoReturn:
    """Run the command that `sys.argv` names, and exit with its code; no traceback, unless ZMESH_DEBUG asks for one."""
    code: object = FAILED
    try:
        _fill_descriptors()
        from zmesh_cli.commands import app

        app(prog_name="zmesh")
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the top of the command line
        code = _explain(error)
    _ignore_interrupts()
    sys.exit(code if isinstance(code, int) else FAILED)


def __getattr__(name: str) -> Any:
    """`app`, the Typer app, is imported when somebody asks for it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zmesh_cli.commands import app

    return app


def _fill_descriptors() -> None:
    """Open /dev/null for standard streams that are closed, lest a socket get their number and our output with it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _explain(error: Exception) -> int:
    """One line on stderr about what went wrong; the exit code."""
    if os.environ.get("ZMESH_DEBUG"):
        import traceback

        traceback.print_exception(error)
    from zmesh.errors import MeshError
    from zmesh_cli.exits import Failure, exit_code
    from zmesh_cli.terminal import complain

    if isinstance(error, BrokenPipeError):
        complain("stopped, as nobody reads the output any more; for a part of it, write it to a file first")
    elif isinstance(error, (Failure, MeshError)):
        complain(str(error))
    else:
        complain(
            f"this should not have happened: {type(error).__name__}: {error}; "
            "ZMESH_DEBUG=1 in the environment shows where it did"
        )
    return exit_code(error)


def _ignore_interrupts() -> None:
    """From here on Ctrl-C would only disturb the interpreter's own end."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
