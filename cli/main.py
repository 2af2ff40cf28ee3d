"""The entry point. It imports next to nothing itself, so that Ctrl-C while the rest is imported ends quietly too."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from zmesh_cli.exit_codes import FAILED, INTERRUPTED

if TYPE_CHECKING:
    from zmesh_cli.commands import app as app


def main() -> NoReturn:
    """Run the command that `sys.argv` names, and exit with its code; no traceback, unless ZMESH_DEBUG asks for one."""
    code: object = FAILED
    try:
        from zmesh_cli import stdio

        stdio.prepare()
        from zmesh_cli.commands import app

        try:
            app(prog_name="zmesh")
        finally:
            stdio.flush()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # the top of the command line
        code = INTERRUPTED if _was_interrupted(error) else _explain(error)
    _ignore_interrupts()
    sys.exit(code if isinstance(code, int) else FAILED)


def __getattr__(name: str) -> Any:
    """`app`, the Typer app, is imported when somebody asks for it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zmesh_cli.commands import app

    return app


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether a KeyboardInterrupt is what caused `error`.

    Python 3.11 wraps whatever `__set_name__` raises into a RuntimeError, a TaskGroup puts it into a group, and code
    that cleans up after it may fail in its turn.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if isinstance(error, KeyboardInterrupt):
            return True
        if error is not None and id(error) not in seen:  # an error of a group may have that group as its context
            seen.add(id(error))
            waiting += (error.__cause__, error.__context__)
            if isinstance(error, BaseExceptionGroup):
                waiting += error.exceptions
    return False


def _explain(error: BaseException) -> int:
    """One line on stderr about what went wrong, none where nobody reads the output; the exit code."""
    if os.environ.get("ZMESH_DEBUG"):
        import traceback

        traceback.print_exception(error)
    from zmesh.errors import MeshError
    from zmesh.runtime.exceptions import describe
    from zmesh_cli import stdio
    from zmesh_cli.exit_codes import Failure, exit_code
    from zmesh_cli.terminal import print_error

    stdio.forget()
    if isinstance(error, (Failure, MeshError)):
        print_error(str(error))
    elif not isinstance(error, BrokenPipeError):  # of which other programs die without a word
        print_error(
            f"this should not have happened: {describe(error)}; ZMESH_DEBUG=1 in the environment shows where it did"
        )
    return exit_code(error)


def _ignore_interrupts() -> None:
    """From here on Ctrl-C would only disturb the interpreter's own end."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
