"""Spans of requests over three hops, by the exporter in memory of OpenTelemetry's SDK."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import zmesh
from tests.pictures import Bar, waterfall
from zmesh.core.message import MAX_METADATA
from zmesh.testing import eventually

CHAIN = ("client", "one", "two", "server")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Odd(SpanProcessor):
    """A processor that raises while it is told to."""

    raises = False

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.raises:
            raise LookupError("odd")


EXPORTER, ODD = InMemorySpanExporter(), Odd()


@pytest.fixture(scope="module", autouse=True)
def _provider() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    provider.add_span_processor(ODD)
    trace.set_tracer_provider(provider)


@pytest.fixture(autouse=True)
def _no_spans() -> Iterator[None]:
    EXPORTER.clear()
    yield
    ODD.raises = False


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[dict[str, zmesh.Controller]]:
    """Four nodes in a line: three hops."""
    async with AsyncExitStack() as stack:
        nodes: dict[str, zmesh.Controller] = {}
        before = ""
        for name in CHAIN:
            url = f"inproc://{tmp_path}/{name}"
            peers = [before] if before else []
            nodes[name] = zmesh.Controller(node_id=name, listen=[url], peers=peers, tracing=True)
            await stack.enter_async_context(nodes[name])
            before = url
        await nodes["client"].wait_for("server", timeout=60)
        await nodes["server"].wait_for("client", timeout=60)
        yield nodes


Chain = dict[str, zmesh.Controller]


async def spans(count: int) -> dict[str, ReadableSpan]:
    """The spans by name, once there are so many."""
    await eventually(lambda: len(EXPORTER.get_finished_spans()) >= count)
    found = EXPORTER.get_finished_spans()
    assert len(found) == count, [span.name for span in found]
    return {span.name: span for span in found}


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert span.context is not None
    assert parent.context is not None
    same = span.parent is not None and span.parent.span_id == parent.context.span_id
    return same and span.context.trace_id == parent.context.trace_id


async def test_the_server_s_span_is_the_child_of_the_client_s_over_three_hops(chain: Chain) -> None:
    with trace.get_tracer("test").start_as_current_span("root"):
        await chain["client"].request("server", "echo:echo", "x", metadata={"user": "ada"})
    found = await spans(3)
    sent, served = found["send echo:echo"], found["process echo:echo"]
    assert is_child(sent, found["root"])
    assert is_child(served, sent)
    assert (sent.kind, served.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert sent.attributes is not None
    assert served.attributes is not None
    assert served.attributes["messaging.message.id"] == sent.attributes["messaging.message.id"]
    assert dict(sent.attributes) == {
        "messaging.system": "zmesh",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": "echo:echo",
        "messaging.message.id": sent.attributes["messaging.message.id"],
        "messaging.client.id": "client",
        "server.address": "server",
    }
    assert served.attributes["client.address"] == "client"
    assert served.status.status_code is StatusCode.UNSET


async def test_a_request_within_a_directive_is_part_of_the_trace_whose_time_line_the_guide_shows(chain: Chain) -> None:
    tracer = trace.get_tracer("shop")

    async def price(work: zmesh.Work) -> Any:
        with tracer.start_as_current_span("look up"):
            await chain["server"].request("two", "sleep:execute", "0.02")
        with tracer.start_as_current_span("convert"):
            await chain["server"].request("one", "echo:echo", "x" * 100_000)
        return {"price": 3}

    chain["server"].register("shop:price", price)
    with tracer.start_as_current_span("GET /price"):
        await chain["client"].request("server", "shop:price")
    await eventually(lambda: len(EXPORTER.get_finished_spans()) >= 9)
    found = sorted(EXPORTER.get_finished_spans(), key=lambda span: span.start_time or 0)
    bars = list(bars_of(found))
    assert [(bar.depth, bar.name, bar.node) for bar in bars] == [
        (0, "GET /price", "client"),
        (1, "send shop:price", "client"),
        (2, "process shop:price", "server"),
        (3, "look up", "server"),
        (4, "send sleep:execute", "server"),
        (5, "process sleep:execute", "two"),
        (3, "convert", "server"),
        (4, "send echo:echo", "server"),
        (5, "process echo:echo", "one"),
    ]
    waterfall("tracing", bars)


def bars_of(found: list[ReadableSpan]) -> Iterator[Bar]:
    """The spans of a trace as its time line, in the order in which they began."""
    known: dict[int, Bar] = {}
    first = found[0].start_time or 0
    for span in found:
        above = known.get(span.parent.span_id) if span.parent is not None else None
        node = str((span.attributes or {}).get("messaging.client.id", above.node if above else "client"))
        times = ((each or 0) - first for each in (span.start_time, span.end_time))
        bar = Bar(span.name, node, above.depth + 1 if above else 0, *(each / 1e9 for each in times))
        assert span.context is not None
        known[span.context.span_id] = bar
        yield bar


async def test_a_failure_is_the_status_of_both_spans(chain: Chain) -> None:
    def fail(work: zmesh.Work) -> None:
        raise ValueError("odd")

    chain["server"].register("text:fail", fail)
    with pytest.raises(zmesh.RemoteError):
        await chain["client"].request("server", "text:fail")
    for span in (await spans(2)).values():
        assert span.status.status_code is StatusCode.ERROR
        assert "ValueError: odd" in str(span.status.description)
        assert span.attributes is not None
        assert span.attributes["error.type"] == "remote"


async def test_an_unreachable_node_is_the_status_of_the_client_s_span(chain: Chain) -> None:
    with pytest.raises(zmesh.Unreachable):
        await chain["client"].request("nobody", "echo:echo", route_timeout=0.0)
    (span,) = (await spans(1)).values()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "unreachable"


async def test_a_cancelled_stream_ends_both_spans(chain: Chain) -> None:
    async def count(work: zmesh.Work) -> Any:
        for number in range(1_000_000):
            yield str(number)

    chain["server"].register("text:count", count)
    async with chain["client"].stream("server", "text:count") as replies:
        async for _ in replies:
            assert not EXPORTER.get_finished_spans()
            break
    for span in (await spans(2)).values():
        assert span.attributes is not None
        assert span.attributes["error.type"] == "cancelled"


async def _async(work: zmesh.Work) -> str:
    with trace.get_tracer("test").start_as_current_span("inside"):
        return "x"


def _plain(work: zmesh.Work) -> str:
    with trace.get_tracer("test").start_as_current_span("inside"):
        return "x"


async def _generator(work: zmesh.Work) -> Any:
    with trace.get_tracer("test").start_as_current_span("inside"):
        yield "x"


def _plain_generator(work: zmesh.Work) -> Any:
    with trace.get_tracer("test").start_as_current_span("inside"):
        yield "x"


@pytest.mark.parametrize("function", [_async, _plain, _generator, _plain_generator])
async def test_spans_of_a_directive_are_children_of_the_server_s(chain: Chain, function: Any) -> None:
    chain["server"].register("text:inside", function)
    await chain["client"].request("server", "text:inside")
    found = await spans(3)
    assert is_child(found["inside"], found["process text:inside"])


async def test_a_request_of_a_directive_continues_the_trace(chain: Chain) -> None:
    async def ask(work: zmesh.Work) -> object:
        return await chain["server"].request("two", "digest:sha256", b"x")

    chain["server"].register("text:ask", ask)
    await chain["client"].request("server", "text:ask")
    found = await spans(4)
    assert is_child(found["send digest:sha256"], found["process text:ask"])
    assert is_child(found["process digest:sha256"], found["send digest:sha256"])


async def test_requests_at_the_same_time_have_traces_of_their_own(chain: Chain) -> None:
    async for answer in chain["client"].request_many(["one", "two", "server"], "echo:echo", "x"):
        assert answer.error is None
    await eventually(lambda: len(EXPORTER.get_finished_spans()) == 6)
    found = EXPORTER.get_finished_spans()
    for served in (span for span in found if span.kind is SpanKind.CONSUMER):
        assert sum(is_child(served, sent) for sent in found if sent.kind is SpanKind.PRODUCER) == 1
    assert len({span.context.trace_id for span in found if span.context is not None}) == 3


async def test_a_traceparent_in_the_metadata_is_the_parent_where_no_span_is_current(chain: Chain) -> None:
    await chain["client"].request("server", "echo:echo", "x", metadata={"traceparent": TRACEPARENT})
    found = await spans(2)
    parent = found["send echo:echo"].parent
    assert parent is not None
    assert f"{parent.trace_id:032x}-{parent.span_id:016x}" == TRACEPARENT[3:-3]
    assert is_child(found["process echo:echo"], found["send echo:echo"])


@pytest.mark.parametrize("given", ["", "no", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000])
async def test_a_malformed_traceparent_begins_a_trace(chain: Chain, given: str) -> None:
    await chain["client"].request("server", "echo:echo", "x", metadata={"traceparent": given})
    assert (await spans(2))["send echo:echo"].parent is None


async def test_metadata_without_room_is_sent_without_context(chain: Chain) -> None:
    await chain["client"].request("server", "echo:echo", "x", metadata={"k": "v" * (MAX_METADATA - 1)})
    found = await spans(2)
    assert found["process echo:echo"].parent is None


async def test_a_processor_that_raises_fails_no_request(chain: Chain) -> None:
    ODD.raises = True
    payload = await chain["client"].request("server", "echo:echo", "x")
    assert payload is not None
    assert payload.value() == "x"


def test_without_the_api_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import zmesh\ntry: zmesh.Controller(tracing=True)\nexcept zmesh.ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "tracing needs opentelemetry-api: pip install 'zmesh-mq[otel]'\n"


def test_a_node_without_tracing_loads_nothing_of_it_and_observes_nothing() -> None:
    program = (
        "import sys, zmesh; mesh = zmesh.Controller()\n"
        "print(mesh.node.requests.observers, mesh.node.serving.observers, 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] [] False\n"
