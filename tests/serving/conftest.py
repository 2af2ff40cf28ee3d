"""A node's work without the node: the table of work, with a sink that keeps what comes out of it."""

import asyncio
import sys
import tempfile
import threading
from dataclasses import dataclass, field

import pytest

from tests.waiting import _collect, collect, eventually
from zmesh import testing
from zmesh.payloads.buffered import BufferedPayload
from zmesh.payloads.payload import Payload
from zmesh.serving.directives import Directives
from zmesh.serving.runner import Runner
from zmesh.serving.work import Work


@pytest.fixture
def spooled():
    """A payload that has come whole; if it needs a file, that is in this folder, or among the temporary files."""

    def spool(content, folder=None):
        payload = BufferedPayload(spool_dir=str(folder or tempfile.gettempdir()))
        payload.feed(content)
        payload.finish()
        return payload

    return spool


@dataclass
class Exchange:
    """What the client of one message id would have seen; `described`: content type and metadata of each reply."""

    replies: list = field(default_factory=list)
    described: list = field(default_factory=list)
    finished: bool = False
    reason: str | None = None
    error: str | None = None
    reset_code: int | None = None
    handing_over: int = 0


class Request:
    """What work replies through: passes everything on to the sink."""

    def __init__(self, sink, message_id):
        self.sink = sink
        self.message_id = message_id

    async def reply(self, outgoing):
        await self.sink.reply(self.message_id, outgoing)

    def finish(self, outgoing=None, *, reason=None, error=None, reset_code=None):
        self.sink.finish(self.message_id, outgoing, reason=reason, error=error, reset_code=reset_code)


class ReplySink:
    """Keeps replies; `room.clear()` makes it as full as a client that reads nothing."""

    def __init__(self):
        self.exchanges = {}
        self.room = asyncio.Event()
        self.room.set()

    def __getitem__(self, message_id):
        return self.exchanges.setdefault(message_id, Exchange())

    async def reply(self, message_id, outgoing):
        exchange = self[message_id]
        assert not exchange.finished, "a reply after the end"
        exchange.handing_over += 1
        try:
            await self.room.wait()
            exchange.replies.append(await _collect(outgoing.body))
            exchange.described.append((outgoing.content_type, outgoing.metadata))
        finally:
            exchange.handing_over -= 1

    def finish(self, message_id, outgoing=None, *, reason=None, error=None, reset_code=None):
        exchange = self[message_id]
        assert not exchange.finished, "two ends"
        assert not exchange.handing_over, "an end while a reply is being handed over"
        assert (reason is None) == (error is None)
        exchange.finished, exchange.reason, exchange.error = True, reason, error
        exchange.reset_code = reset_code
        if outgoing is not None:
            exchange.replies.append(outgoing.body)
            exchange.described.append((outgoing.content_type, outgoing.metadata))


class Bench:
    """One table of work, and the requests to it."""

    def __init__(self, **limits):
        self.directives = Directives()
        self.sink = ReplySink()
        self.runner = Runner(self.directives, **{"max_workers": 4, "max_work": 100, **limits})
        self._count = 0

    def start(self, directive, payload=b"", *, config=None, deadline=None, function=None, stream=False):
        """Start it, with `function` as the directive if given; the message id."""
        if function is not None:
            self.directives.register(directive, function, stream=stream)
        self._count += 1
        message_id = f"{self._count:032x}"
        if isinstance(payload, bytes):
            payload = Payload(payload)
        header = {"recipient": "here", "timestamp": 1.5}
        self.run(Work(message_id, directive, "ctl", header, payload, config or {}, deadline=deadline))
        return message_id

    def run(self, work):
        self.runner.start(work, Request(self.sink, work.message_id))

    def isolate(self, directive, function, **options):
        """Have this directive run in a process of its own."""
        self.directives.register(directive, function, isolate=True, **options)

    async def end(self, message_id):
        """What the client has seen when it is over."""
        exchange = self.sink[message_id]
        await testing.eventually(lambda: exchange.finished)
        for number, reply in enumerate(exchange.replies):
            exchange.replies[number] = await _collect(reply)
        return exchange

    async def call(self, directive, payload=b"", **options):
        return await self.end(self.start(directive, payload, **options))


@pytest.fixture
async def benches():
    """Makes benches, and sees that closing them leaves nothing behind."""
    made = []

    def make(**limits):
        made.append(Bench(**limits))
        return made[-1]

    yield make
    for bench in made:
        await bench.runner.close()
        assert bench.runner.active() == []
    await testing.eventually(lambda: len(asyncio.all_tasks()) == 1)
    await testing.eventually(lambda: not [t.name for t in threading.enumerate() if t.name.startswith("zmesh")])


@pytest.fixture
def bench(benches):
    return benches()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package as pip would: `install("name", {"module.py": source}, {"group": ["entry = point"]})`."""
    count = 0
    known = set(sys.modules)

    def write(name, modules, points):
        nonlocal count
        count += 1
        folder = tmp_path / f"site{count}"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [line for group, entries in points.items() for line in (f"[{group}]", *entries)]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for file, source in modules.items():
            (folder / file).write_text(source)
        monkeypatch.syspath_prepend(str(folder))

    yield write
    for module in set(sys.modules) - known:
        if str(getattr(sys.modules[module], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[module]


__all__ = ["collect", "eventually"]
