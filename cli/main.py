"""The entry point: runs the command that `sys.argv` names, and exits with its code and no traceback.

It imports next to nothing itself, so that Ctrl-C ends also the imports of a command with exit code 130. While modules
are imported, KeyboardInterrupt is no safe way to do that: the import system may wrap it in another error, or may run
Python code where an exception is printed and dropped ("Exception ignored in"). Until the event loop runs, the process
therefore exits in the handler of the signal.
"""

from __future__ import annotations

import os
import sys

from zmesh_cli.exit_codes import FAILED, INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from zmesh_cli.commands import app as app


def main() -> NoReturn:
    """Run the command that `sys.argv` names, and exit with its code; ZMESH_DEBUG has tracebacks printed."""
    code: object = FAILED
    try:
        from zmesh_cli import interrupts

        interrupts.exit_at_once()
        from zmesh_cli import stdio

        stdio.prepare()
        from zmesh_cli.commands import app

        if "_ZMESH_COMPLETE" in os.environ:
            from zmesh_cli import completion

            completion.prepare()
        try:
            app(prog_name="zmesh")
        finally:
            stdio.flush()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # the top of the command line
        code = INTERRUPTED if _was_interrupted(error) else _report(error)
    _ignore_interrupts()
    sys.exit(code if isinstance(code, int) else FAILED)


def __getattr__(name: str) -> Any:
    """`app`, the Typer app, is imported when it is first used."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zmesh_cli.commands import app

    return app


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether a KeyboardInterrupt is what caused `error`.

    A TaskGroup puts it into a group, `__set_name__` in Python 3.11 and C code (SystemError) wrap it, and code that
    cleans up after it may fail in its turn.
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


def _report(error: BaseException) -> int:
    """Print one line on stderr about an error, none for an output that has no reader; the exit code."""
    if os.environ.get("ZMESH_DEBUG"):
        import traceback

        traceback.print_exception(error)
    from zmesh.errors import MeshError
    from zmesh_cli import stdio
    from zmesh_cli.exit_codes import Failure, exit_code
    from zmesh_cli.terminal import print_error

    if isinstance(error, (Failure, MeshError)):
        print_error(str(error))
    elif not isinstance(error, BrokenPipeError):  # on which other programs print nothing either
        text = f"{type(error).__name__}: {error}"
        print_error(f"this should not have happened: {text}; ZMESH_DEBUG=1 in the environment shows where it did")
    stdio.discard()  # after the line: the reader of stdout may kill this process when it ends, as ssh does
    return exit_code(error)


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C while the interpreter shuts down."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
