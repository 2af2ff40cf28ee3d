"""Every error that zmesh raises on purpose, as one tree:

    MeshError
    ├── ConfigError            a setting, an argument, a URL or a file of settings is wrong; a ValueError, too
    │   └── AddressError       a listen or peer URL can't be used
    ├── Closed                 the node is not open yet, closed, closed meanwhile, or a parent process's
    ├── Overloaded             more is waiting than the node may hold
    ├── StreamClosed           what is written to a request is no longer wanted
    ├── NotTrusted             a node, a key or a certificate is not trusted, here or at the other end
    ├── InvalidPayload         a payload is not what its content type says; a ValueError, too
    └── ExchangeError          a request that ended in anything but success
        ├── RemoteError        the plugin raised
        │   ├── UnknownDirective   the node has no such directive
        │   ├── NotAllowed         the directive is there, but not for this sender
        │   ├── NodeOverloaded     the node has no room for it; an Overloaded, too
        │   ├── CopyFailed         a file, or some of several, could not be copied
        │   └── ConnectFailed      the node could not connect to a TCP port; an OSError, too
        │       ├── ConnectRefused     nothing listens on that port; a ConnectionRefusedError, too
        │       ├── ConnectTimedOut    nothing has answered there in time; a TimeoutError, too
        │       ├── HostUnreachable    the node has no route to the host
        │       └── HostNotFound       the name of the host does not resolve at the node
        ├── Unreachable        no such node, or no path to it
        ├── TimedOut           the deadline passed
        ├── Cancelled          the work was cancelled, at either end
        ├── NodeRestarted      the recipient started anew and lost the work
        ├── KeysRefused        the recipient does not trust this leaf's certificate or grant; a NotTrusted, too
        ├── CommandFailed      a command at another node exited with anything but 0, or can't be executed
        └── TooManyReplies     there was more than the one reply that was awaited

`code` is stable and meant for programs; the text names the node, the limit and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class MeshError(Exception):
    """The root of the tree; catch it to catch whatever zmesh raises on purpose.

    `node` is the id of the node that it is about, and `message_id` the request's, where there is one; else None.
    """

    code: ClassVar[str] = "mesh"

    def __init__(self, text: str, *, node: str | None = None, message_id: str | None = None) -> None:
        super().__init__(text)
        self.node = node
        self.message_id = message_id


class ConfigError(MeshError, ValueError):
    """A setting or an argument is unknown, of the wrong type or out of its limits."""

    code: ClassVar[str] = "config"


class AddressError(ConfigError):
    """A URL can't be listened on or dialled; the text says which and why."""

    code: ClassVar[str] = "address"


class Closed(MeshError):
    """The node is not open: not yet, not any more, or not in this process, which is a fork of its own."""

    code: ClassVar[str] = "closed"


class Overloaded(MeshError):
    """A limit is reached; send less, or wait for replies first.

    `limit` is its name where it is a limit of this node, such as `max_work`; "" where it is another node's. A node
    counts the requests that end by an Overloaded with a limit.
    """

    code: ClassVar[str] = "overloaded"

    def __init__(self, text: str, *, node: str | None = None, message_id: str | None = None, limit: str = "") -> None:
        super().__init__(text, node=node, message_id=message_id)
        self.limit = limit


class NotTrusted(MeshError):
    """A node, a key or a certificate is not trusted, by this node or by the other; the text says who, why, and the
    command that mends it.
    """

    code: ClassVar[str] = "not_trusted"


class StreamClosed(MeshError):
    """A write to a request whose work has ended or reads no more. Replies may still come."""

    code: ClassVar[str] = "stream_closed"


class InvalidPayload(MeshError, ValueError):
    """A payload that was received is not what its content type says."""

    code: ClassVar[str] = "invalid_payload"


class ExchangeError(MeshError):
    """A request did not end in success; `node` is its recipient."""

    code: ClassVar[str] = "exchange"


class RemoteError(ExchangeError):
    """The directive ran at the other node and raised; the text is the node's name, then what was raised."""

    code: ClassVar[str] = "remote"


class UnknownDirective(RemoteError):
    """The other node has no such directive."""

    code: ClassVar[str] = "unknown_directive"


class NotAllowed(RemoteError):
    """The other node has the directive, but won't run it for this sender."""

    code: ClassVar[str] = "not_allowed"


class NodeOverloaded(RemoteError, Overloaded):
    """The other node runs all the work that it may, or one of the two has no room for the payload."""

    code: ClassVar[str] = "overloaded"


class Unreachable(ExchangeError):
    """There is no such node, or no path to it."""

    code: ClassVar[str] = "unreachable"


class TimedOut(ExchangeError, TimeoutError):
    """The deadline passed before the final reply came."""

    code: ClassVar[str] = "timed_out"


class Cancelled(ExchangeError):
    """The request was cancelled, here or at the other end; `reset_code` is the code of a reset, 0 for a cancel."""

    code: ClassVar[str] = "cancelled"

    def __init__(
        self, text: str, *, node: str | None = None, message_id: str | None = None, reset_code: int = 0
    ) -> None:
        super().__init__(text, node=node, message_id=message_id)
        self.reset_code = reset_code


class NodeRestarted(ExchangeError):
    """The recipient started anew, so the work that it ran is lost."""

    code: ClassVar[str] = "node_restarted"


class CommandFailed(ExchangeError):
    """A command at another node has failed.

    `returncode` is its exit code, minus a signal's number if that killed it, `stdout` and `stderr` its output as bytes.
    `not_started` is True for one that can't be executed; the code is then that of a shell, 127 or 126.
    """

    code: ClassVar[str] = "command_failed"

    def __init__(
        self,
        text: str,
        *,
        node: str | None = None,
        message_id: str | None = None,
        returncode: int = 1,
        stdout: bytes = b"",
        stderr: bytes = b"",
        not_started: bool = False,
    ) -> None:
        super().__init__(text, node=node, message_id=message_id)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        self.not_started = not_started


class CopyFailed(RemoteError):
    """A file could not be read or written, at the other node or here; no file that is not whole has got its name.

    `failures` are the reasons, each a line that names the path, the first 100 of them; `failed` is how many there are.
    """

    code: ClassVar[str] = "copy_failed"

    def __init__(
        self,
        text: str,
        *,
        node: str | None = None,
        message_id: str | None = None,
        failures: Iterable[str] = (),
        failed: int = 1,
    ) -> None:
        super().__init__(text, node=node, message_id=message_id)
        self.failures = list(failures) or [text]
        self.failed = failed


class ConnectFailed(RemoteError, OSError):
    """The other node could not make a TCP connection."""

    code: ClassVar[str] = "connect_failed"


class ConnectRefused(ConnectFailed, ConnectionRefusedError):
    """Nothing listens on the port (ECONNREFUSED)."""

    code: ClassVar[str] = "connect_refused"


class ConnectTimedOut(ConnectFailed, TimeoutError):
    """Nothing has answered at the host in time (ETIMEDOUT)."""

    code: ClassVar[str] = "connect_timed_out"


class HostUnreachable(ConnectFailed):
    """The other node has no route to the host (EHOSTUNREACH, ENETUNREACH)."""

    code: ClassVar[str] = "host_unreachable"


class HostNotFound(ConnectFailed):
    """The name of the host does not resolve at the other node."""

    code: ClassVar[str] = "host_not_found"


class KeysRefused(ExchangeError, NotTrusted):
    """The other node does not trust the certificate of this leaf, or the grant that its node has given it; nothing was
    sent.
    """

    code: ClassVar[str] = "not_trusted"


class TooManyReplies(ExchangeError):
    """A request was awaited for its one payload, and there was another; the rest of the work was cancelled."""

    code: ClassVar[str] = "too_many_replies"


_BY_REASON: dict[str, type[ExchangeError]] = {
    kind.code: kind
    for kind in (
        RemoteError,
        UnknownDirective,
        NotAllowed,
        NodeOverloaded,
        Unreachable,
        TimedOut,
        Cancelled,
        NodeRestarted,
        KeysRefused,
        CopyFailed,
        ConnectFailed,
        ConnectRefused,
        ConnectTimedOut,
        HostUnreachable,
        HostNotFound,
    )
}


def exchange_error(reason: str, text: str, *, node: str, message_id: str, reset_code: int = 0) -> ExchangeError:
    """The exception for a final reply whose header has this `reason` (a stable code of this module).

    Its text names the node also where the other end, which wrote it, had no reason to name itself.
    """
    if repr(node) not in text:
        text = f"node {node!r}: {text}"
    if reason == Cancelled.code:
        return Cancelled(text, node=node, message_id=message_id, reset_code=reset_code)
    return _BY_REASON.get(reason, RemoteError)(text, node=node, message_id=message_id)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" (did you mean 'hub'?)"` when a known word is close to `word`, else an empty string."""
    import difflib  # here: only an error needs it

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
