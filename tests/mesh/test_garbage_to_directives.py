"""Members that may call a node's own directives, and send them garbage: one error each, and nothing of it is left."""

import contextlib
import json
import random
from typing import Any

import msgpack
import pytest

import zmesh
from zmesh.remote.remote_process import start_record
from zmesh.testing import Mesh, eventually

NAMESPACES = ("exec", "file", "job", "tcp", "zmesh")
SIZES = (b"\0\0\0\1", b"\0\0\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff")
ODD: tuple[Any, ...] = (None, True, -1, 2**63, 1e308, "", "\0", "../..", "x" * 5000, [], {}, [[]], {"a": {"a": {}}})
KEYS = (
    *("id", "node", "path", "paths", "directive", "payload", "key", "token", "offset", "follow", "host", "port", "to"),
    *("argv", "command", "env", "cwd", "user", "seconds", "limit", "since", "rows", "recursive", "grant", "priority"),
    *("restart", "title", "state", "timeout", "cursor", "names", "service", "ticket"),
)
GARBAGE = (
    b"",
    b"\0",
    b"\xff" * 100,
    b"[" * 10_000,
    b'{"a":' * 3000,
    b"9" * 10_000,
    b'{"id": 1e999, "id": NaN}',
    "\udcff".encode(errors="surrogatepass"),
    *(size + rest for size in SIZES for rest in (b"", b"\0" * 20, b"\xff" * 20, b"\x93\1\2\3")),
    *(kind + size for kind in (b"\1", b"\2", b"\x10") for size in SIZES),
    *(json.dumps(odd).encode() for odd in ODD),
    *(json.dumps(dict.fromkeys(KEYS, odd)).encode() for odd in ODD),
    *(msgpack.packb(dict.fromkeys(KEYS, odd)) for odd in ODD),
    msgpack.packb([1] * 1000),
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
)
METADATA: tuple[dict[str, str], ...] = (
    {},
    dict.fromkeys(KEYS, "\x00"),
    {"traceparent": "00-zz-zz-zz", "tracestate": "=" * 500, "": "", "\n": "\x1b[31m"},
    {str(number): "v" * 20 for number in range(200)},
)
WITHIN = 60.0


@pytest.fixture
async def mesh():
    """A node that lets each member call everything, and what it has open before."""
    async with Mesh.chain("mallory", "victim", allow={"*": ["*"]}, max_work=50) as nodes:
        await nodes["mallory"].request("victim", "echo:echo", b"warm")
        yield nodes


def directives(node: zmesh.Controller) -> list[str]:
    """The directives of zmesh itself at a node."""
    serving = node.node.serving
    return sorted(
        name
        for name in {*serving.builtins, *node.node.directives.capabilities()}
        if name.partition(":")[0] in NAMESPACES
    )


def spoilt(begin: bytes, seed: int) -> bytes:
    """The beginning of a request with a byte changed, perhaps cut off, and perhaps with more behind it."""
    rng = random.Random(seed)
    at = rng.randrange(len(begin))
    changed = begin[:at] + rng.randbytes(1) + begin[at + 1 :]
    return changed[: rng.choice([at, len(changed)])] + rng.randbytes(rng.choice([0, 30]))


def left_at(node: zmesh.Controller) -> dict[str, int]:
    stats = node.node.engine.stats()
    return {
        "requests": len(node.node.serving),
        "work": len(node.node.serving.runner),
        "received": stats["requests_received"],
        "spooled": len(node.node.serving.spool_quota),
    }


async def test_garbage_to_each_directive_is_answered_once_and_leaves_nothing(mesh):
    mallory, victim = mesh["mallory"], mesh["victim"]
    names = directives(victim)
    assert {name.partition(":")[0] for name in names} == set(NAMESPACES)
    unanswered = []

    async def ask(name: str, payload: bytes, metadata: dict[str, str]) -> None:
        try:
            async with mallory.stream("victim", name, payload, metadata=metadata, timeout=WITHIN) as replies:
                async for _ in replies:
                    if name in ("zmesh:events", "job:watch"):
                        break  # what is right of the garbage may be followed
        except zmesh.TimedOut:
            unanswered.append((name, payload[:50], "time-out"))
        except zmesh.Unreachable as error:
            unanswered.append((name, payload[:50], str(error)))
        except zmesh.MeshError as error:
            if len(str(error)) > 5000:
                unanswered.append((name, payload[:50], "a text without an end"))

    begin = start_record(["true"], env={"A": "b"}, cwd="/")
    for name in names:
        for number, payload in enumerate((*GARBAGE, *(spoilt(begin, seed) for seed in range(60)))):
            await ask(name, payload, METADATA[number % len(METADATA)])
    assert unanswered == []
    with contextlib.suppress(AssertionError):  # the comparison says more
        await eventually(lambda: not any(left_at(victim).values()), WITHIN)
    assert not any(left_at(victim).values()), left_at(victim)
    victim.node.engine.check()
    assert (await mallory.request("victim", "echo:echo", b"unharmed", timeout=WITHIN)).text() == "unharmed"
