"""Exceptions as user code may raise them, of which each would break something that trusts an exception."""

import asyncio
import sys

import zmesh


def _class(name, base=Exception, **members):
    return type(name, (base,), members)


def _raise(error):
    def method(*_):
        raise error

    return method


def _refuse(error):
    Exception.__init__(error, "not for you")


def _exits(_):
    sys.exit("from within __str__")


def _recurses(error):
    return str(error)


def _nested():
    group = ValueError("innermost")
    for _ in range(2000):
        group = ExceptionGroup("outer", [group])
    return group


def _circular():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


class Unusual(BaseException):
    """What no `except Exception` catches."""


ODD_ERRORS = {
    "its text raises": _class("TextRaises", __str__=_raise(ValueError("no text"))),
    "its text is None": _class("TextIsNone", __str__=lambda self: None),
    "its text and repr raise": _class("AllRaises", __str__=_raise(Unusual()), __repr__=_raise(Unusual())),
    "its text exits": _class("TextExits", __str__=_exits),
    "its text recurses": _class("TextRecurses", __str__=_recurses),
    "its text is huge": lambda: ValueError("x" * 5_000_000),
    "its text has lone surrogates": lambda: ValueError("\ud800 and \udfff"),
    "its class has an odd name": _class("od\x1bd: \n" * 1000),
    "its __class__ raises": _class("Liar", __class__=property(_raise(ValueError("no class")))),
    "its __class__ raises, and it is no Exception": _class(
        "BaseLiar", BaseException, __class__=property(_raise(Unusual()))
    ),
    "its notes raise": _class("NotesRaise", __notes__=property(_raise(Unusual()))),
    "its code is a list": _class("CodeIsList", zmesh.RemoteError, code=[1], __init__=_refuse),
    "its code raises": _class("CodeRaises", zmesh.RemoteError, code=property(_raise(Unusual())), __init__=_refuse),
    "its limit raises": _class(
        "LimitRaises", zmesh.NodeOverloaded, limit=property(_raise(Unusual())), __init__=_refuse
    ),
    "its limit is a list": _class("LimitIsList", zmesh.NodeOverloaded, limit=["x"], __init__=_refuse),
    "it is no Exception": Unusual,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "a BlockingIOError": BlockingIOError,
    "a group": lambda: BaseExceptionGroup("all", [Unusual(), ValueError("bad")]),
    "groups in groups": _nested,
    "a circle of causes": _circular,
}
"""What makes each of them, by what is odd about it."""


async def raise_each(place, client):
    """Have `place` raise each of them: after it, both the node of `client` and the one called server answer."""
    for odd, make in ODD_ERRORS.items():
        try:
            await place(make)
            for asked in ["server", client.node_id]:
                await client.ping_once(asked, timeout=90.0)
        except BaseException as error:
            error.add_note(f"where {odd!r}")
            raise
