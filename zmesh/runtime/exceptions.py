"""Text, class and traceback of exceptions raised by user code, whose own methods may fail.

The class of an exception may be user code too. Its `__str__` may raise, return what is no text, or a
gigabyte; its `__class__` and its attributes may be properties that raise. Everything here returns text that can be
encoded, of a bounded length, and raises nothing but KeyboardInterrupt, which is the user's and not the exception's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress

from zmesh import errors
from zmesh.errors import MeshError, Overloaded

MAX_DESCRIPTION = 1000
"""Characters of `describe` and `text_of`."""

MAX_KIND = 100
"""Characters of `class_name_of`."""

MAX_TRACEBACK = 16_000
"""Characters of `traceback_of`, of which the end is kept."""

_NAME = type.__dict__["__name__"]
_CODE = re.compile(r"[a-z0-9_.:-]{1,64}")
_CODES = {kind: kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MeshError)}


def is_a(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Whether the error is one of these kinds; `isinstance` would ask its `__class__`, which may raise."""
    return issubclass(type(error), kinds)


def must_propagate(error: BaseException) -> bool:
    """Whether an error that was caught on the loop has to be raised again.

    True for KeyboardInterrupt, SystemExit, and the cancellation of the current task, but not for a CancelledError that
    user code raises or has met in a task of its own.
    """
    if not is_a(error, asyncio.CancelledError):
        return is_a(error, KeyboardInterrupt, SystemExit)
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def class_name_of(error: BaseException) -> str:
    """The name of the error's class, as one printable word."""
    name = _sendable(_NAME.__get__(type(error)), MAX_KIND)  # a metaclass may have a `__name__` of its own
    return name if name.isidentifier() else "".join(c if c.isprintable() and c != " " else "?" for c in name)


def text_of(error: BaseException) -> str:
    """The `str` of the error, MAX_DESCRIPTION characters at most; where that fails, a text that names the failure."""
    try:
        return _sendable(str(error), MAX_DESCRIPTION)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001  # whatever its `__str__` raises
        return f"<its text can't be shown: {class_name_of(failure)}>"


def describe(error: BaseException) -> str:
    """The error as `ClassName: text`, or `ClassName` if it has no text."""
    kind, text = class_name_of(error), text_of(error)
    return _sendable(f"{kind}: {text}" if text else kind, MAX_DESCRIPTION)


def code_of(error: MeshError) -> str:
    """The error's `code`; where that is malformed, the code of the class of zmesh.errors that it derives from."""
    return _word(error, "code") or next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def limit_of(error: BaseException) -> str:
    """The `limit` of an Overloaded; "" for any other error, and where it is malformed."""
    return _word(error, "limit") if is_a(error, Overloaded) else ""


def _word(error: BaseException, name: str) -> str:
    """The attribute of that name, "" where it is no code."""
    try:
        word = getattr(error, name)
        return word if type(word) is str and _CODE.fullmatch(word) else ""
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # a property of a class that is not ours
        return ""


def traceback_of(error: BaseException) -> str:
    """The error's traceback, as Python prints it, without a line break at the end."""
    try:
        text = "".join(traceback.format_exception(error)).rstrip("\n")
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # notes, causes and members are the exception's own, too
        text = describe(error)
    if len(text) > MAX_TRACEBACK:
        text = f"...{text[3 - MAX_TRACEBACK :]}"
    return _encodable(text)


def log_exception(
    logger: logging.Logger, message: str, *arguments: object, error: BaseException, level: int = logging.WARNING
) -> None:
    """Log a message, and under it the traceback of what user code has raised.

    With `exc_info` the formatting would be left to the handler, and an exception that can't be formatted would escape
    from there, or have `logging` print its own traceback to stderr in place of the message.
    """
    if logger.isEnabledFor(level):
        log_line(logger, level, f"{message}\n%s", *arguments, traceback_of(error), stacklevel=3)


def log_line(
    logger: logging.Logger,
    level: int,
    message: str,
    *arguments: object,
    exc_info: bool = False,
    extra: Mapping[str, object] | None = None,
    stacklevel: int = 2,
) -> None:
    """Log a message where that may not fail: on the loop, or while a node closes.

    A filter or a handler of the program may raise, and `logging` passes that on. It is printed to stderr, as `logging`
    does with what it catches itself, unless `logging.raiseExceptions` is false.
    """
    try:
        logger.log(level, message, *arguments, exc_info=exc_info, extra=extra, stacklevel=stacklevel)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # a program's own handler
        if logging.raiseExceptions and sys.stderr is not None:
            with suppress(OSError, ValueError):  # it is closed
                sys.stderr.write(f"--- Logging error ---\n{traceback_of(error)}\n")


def _sendable(text: str, length: int) -> str:
    """The start of the text, as a plain `str` that UTF-8 can express."""
    text = str.__getitem__(text, slice(length + 1))  # `text` may be of a subclass, with methods of its own
    text = _encodable(text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
