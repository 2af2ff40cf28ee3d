"""Compatibility layer that runs plugins of Receptor 1.x unchanged.

Such a plugin is a function `execute(message, config, result_queue)`, marked with `plugin_export`, in a module that an
entry point of the group `receptor.worker` names. It runs in a thread. What `message` is depends on the mark:

- `@plugin_export(payload_type=BYTES_PAYLOAD)`: the payload as bytes;
- `BUFFER_PAYLOAD`: a file object open for reading it, closed when the plugin returns;
- `FILE_PAYLOAD`: the path of a file with it, deleted when the plugin returns;
- bare `@plugin_export`, the older form: a `LegacyMessage`, with `raw_payload`.

`config` is the namespace's section of the settings, and each `result_queue.put(value)` sends one reply. What the
plugin returns is not sent, as it never was; what it raises ends the request with an error.
"""

from __future__ import annotations

import importlib
import io
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from zmesh.payloads import Payload, PayloadLike

if TYPE_CHECKING:
    from zmesh.serving.work import Work

BYTES_PAYLOAD = "bytes"
"""The plugin takes its payload as bytes."""

BUFFER_PAYLOAD = "buffer"
"""The plugin takes its payload as a file object."""

FILE_PAYLOAD = "file"
"""The plugin takes its payload as the path of a file."""

ARGUMENTS = 3
"""How many arguments a plugin's function takes: message, config, result_queue."""

Function = TypeVar("Function", bound=Callable[..., Any])

_PAYLOAD_TYPES = (BYTES_PAYLOAD, BUFFER_PAYLOAD, FILE_PAYLOAD)
_MODULE = "receptor"
_SUBMODULE = "receptor.plugin_utils"
_LAZY = {
    "Controller": ("zmesh.controller", "Controller"),
    "ReceptorConfig": ("zmesh.config", "Config"),
    "plugin_utils": (_SUBMODULE, None),
}


@overload
def plugin_export(payload_type: Function, /) -> Function: ...
@overload
def plugin_export(payload_type: str = BYTES_PAYLOAD) -> Callable[[Function], Function]: ...
def plugin_export(payload_type: Any = BYTES_PAYLOAD) -> Any:
    """Mark a function `execute(message, config, result_queue)` as one that the mesh may call.

    As `@plugin_export(payload_type=...)` or, in the older form, bare. Raises ValueError for another payload type than
    BYTES_PAYLOAD, BUFFER_PAYLOAD and FILE_PAYLOAD.
    """
    if callable(payload_type):
        payload_type.receptor_export = True
        return payload_type
    if payload_type not in _PAYLOAD_TYPES:
        raise ValueError(f"payload_type must be one of {', '.join(_PAYLOAD_TYPES)}, not {payload_type!r}")

    def mark(function: Function) -> Function:
        function.receptor_export = True  # type: ignore[attr-defined]
        function.payload_type = payload_type  # type: ignore[attr-defined]
        return function

    return mark


class LegacyMessage:
    """The message of a plugin of the older form: payload, directive, sender and ids."""

    __slots__ = ("directive", "header", "message_id", "msg_id", "payload", "raw_payload", "recipient", "sender")

    def __init__(self, work: Work) -> None:
        self.header: Mapping[str, object] = work.header
        self.payload: Payload = work.payload
        self.message_id = work.message_id
        self.msg_id = int(work.message_id, 16)
        self.directive = work.directive
        self.sender = work.sender
        self.recipient = work.header.get("recipient")
        content = work.payload.readall()
        self.raw_payload: str | bytes
        """The payload as text where it is UTF-8, as JSON and all that a program sent as text is; else its bytes."""
        try:
            self.raw_payload = content.decode()
        except UnicodeDecodeError:
            self.raw_payload = content


class ResultQueue:
    """The reply queue of a plugin; `put` may be called from any thread but the loop's."""

    __slots__ = ("_closed", "_lock", "_put")

    def __init__(self, put: Callable[[PayloadLike], None]) -> None:
        self._put = put
        self._lock = threading.Lock()  # one reply at a time, in order of arrival
        self._closed = False

    def put(self, item: PayloadLike, block: bool = True, timeout: float | None = None) -> None:
        """Send one reply: text, bytes, or any other payload. Blocks while the client has no room.

        `block` and `timeout` are accepted and ignored. Raises Cancelled once the request was cancelled, TypeError
        for what can't be sent, and RuntimeError after the plugin has returned.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the result queue is closed: the plugin has returned")
            self._put(item)

    def put_nowait(self, item: PayloadLike) -> None:
        """The same as `put`."""
        self.put(item)

    def close(self) -> None:
        """Close the queue; returning from the plugin does it too."""
        self._closed = True


def adapt(function: Callable[..., object]) -> Callable[[Work, Callable[[PayloadLike], None]], None]:
    """A function of (work, put) that runs a marked plugin to its end, to be called in a thread."""
    payload_type = getattr(function, "payload_type", None)

    def run(work: Work, put: Callable[[PayloadLike], None]) -> None:
        with closing(ResultQueue(put)) as results, _message(payload_type, work) as message:
            function(message, dict(work.config), results)

    return run


@contextmanager
def _message(payload_type: object, work: Work) -> Iterator[object]:
    with work.payload as payload:
        if payload_type == BYTES_PAYLOAD:
            yield payload.readall()
        elif payload_type == FILE_PAYLOAD:
            yield payload.name
        elif payload_type == BUFFER_PAYLOAD:
            with _Buffer(payload) as buffer:
                yield buffer
        else:
            yield LegacyMessage(work)


class _Raw(io.RawIOBase):
    def __init__(self, payload: Payload) -> None:
        super().__init__()
        self.payload = payload

    @property
    def name(self) -> str:
        return self.payload.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self.payload.seek(offset, whence)

    def tell(self) -> int:
        return self.payload.tell()

    def readinto(self, buffer: Any, /) -> int:
        data = self.payload.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Buffer(io.BufferedReader):
    """A payload as a file object of the standard library, with the additional attributes of Receptor's."""

    def __init__(self, payload: Payload) -> None:
        super().__init__(_Raw(payload))
        self._payload = payload

    @property
    def length(self) -> int:
        return len(self._payload)

    def readall(self) -> bytes:
        return self._payload.readall()

    def __len__(self) -> int:
        return len(self._payload)


# --- `import receptor` ------------------------------------------------------------------------------------------------


def install() -> None:
    """Make `import receptor` work where no package of that name is installed; harmless when done twice.

    Our finder is the last one on `sys.meta_path`, so that a package that is there wins.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _MODULE:
            return ModuleSpec(fullname, _Loader(), origin=__name__, is_package=True)  # type: ignore[arg-type]
        if fullname == _SUBMODULE and isinstance(getattr(sys.modules.get(_MODULE), "__loader__", None), _Loader):
            return ModuleSpec(fullname, _Loader(), origin=__name__)  # type: ignore[arg-type]
        return None


class _Loader:
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name, "A stand-in for the package of Receptor 1.x, by zmesh.")

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(
            plugin_export=plugin_export,
            BYTES_PAYLOAD=BYTES_PAYLOAD,
            BUFFER_PAYLOAD=BUFFER_PAYLOAD,
            FILE_PAYLOAD=FILE_PAYLOAD,
        )


class _Module(ModuleType):
    """The stand-in module; expensive imports happen at first access."""

    def __getattr__(self, name: str) -> Any:
        if self.__name__ == _MODULE and name in _LAZY:
            module, attribute = _LAZY[name]
            found = importlib.import_module(module)
            return getattr(found, attribute) if attribute else found
        raise AttributeError(f"the stand-in for {self.__name__!r} has no {name!r}")
