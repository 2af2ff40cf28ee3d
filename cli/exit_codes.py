"""The exit codes of the commands, and the exception that carries one."""

from __future__ import annotations

DONE = 0
FAILED = 1
"""The remote work failed, or the output can't be written."""
USAGE = 2
"""The command can't be done as it was given: an option, a URL, a file, a setting, a port that is taken."""
UNREACHABLE = 3
TIMED_OUT = 4
NOT_TRUSTED = 6
"""The other node does not allow it, or one of the two does not trust the other."""
INTERRUPTED = 130
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""`zmesh run`: the command is there but can't be executed, or is not there; as a shell has them."""
MESH = 255
"""`zmesh run`: the mesh failed, not the command; all other codes are the command's own."""
BROKEN_PIPE = 141
"""The exit status that a shell reports for a program that SIGPIPE ends: 128 + 13."""


class Failure(Exception):
    """Ends the command with a line on stderr and an exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def exit_code(error: BaseException) -> int:
    """The exit code for an error that a command did not handle."""
    from zmesh.errors import ConfigError, NotAllowed, NotTrusted, TimedOut, Unreachable

    match error:
        case Failure():
            return error.code
        case ConfigError():
            return USAGE
        case Unreachable():
            return UNREACHABLE
        case TimedOut():
            return TIMED_OUT
        case NotAllowed() | NotTrusted():
            return NOT_TRUSTED
        case BrokenPipeError():
            return BROKEN_PIPE
        case _:
            return FAILED


UNTRUSTED = (
    "no_certificate",
    "certificate",
    "mesh",
    "authority",
    "not_yet_valid",
    "expired",
    "revoked",
    "id",
    "signature",
)
REFUSED = dict.fromkeys(UNTRUSTED, NOT_TRUSTED)
"""The exit codes for the `code` of a LinkRefused; any other is as a node that can't be reached."""

REASONS = {
    "unreachable": UNREACHABLE,
    "timed_out": TIMED_OUT,
    **dict.fromkeys(("not_allowed", "not_trusted", "not_admitted", "encrypted", "plaintext", "wrong_key"), NOT_TRUSTED),
}
"""The exit codes for the `reason` of a final reply and the `code` of a DialFailed; for others it is the usual one."""
