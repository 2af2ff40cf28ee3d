"""Traces of requests by OpenTelemetry: a span at the client, and one at the server whose parent it is.

The context travels in the metadata of the request, as `traceparent` and `tracestate` (W3C Trace Context). Attributes
are those of the semantic conventions for messaging. Only opentelemetry-api is needed; spans go to the SDK that the
program has set up, and are dropped without one.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from zmesh.core.message import MAX_METADATA, MAX_METADATA_ENTRIES
from zmesh.errors import ConfigError
from zmesh.runtime import log_exception, must_propagate
from zmesh.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind

    from zmesh.observe import ClientRequest, Ended, ServerRequest

log = logging.getLogger(__name__)


class Tracing:
    """Makes the spans of one node. Raises ConfigError if opentelemetry-api is not installed."""

    def __init__(self, node_id: str) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise ConfigError("tracing needs opentelemetry-api: pip install 'zmesh-mq[otel]'") from None
        self._node_id = node_id
        self._trace = trace
        self._attach = context.attach
        self._tracer = trace.get_tracer("zmesh", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def sending(self, request: ClientRequest, directive: str) -> Ended:
        """Begin the span of a request that this node sends, and put its context into the metadata."""
        try:
            trace, parent = self._trace, None
            if not trace.get_current_span().get_span_context().is_valid:
                parent = self._propagator.extract(request.metadata)
            span = self._begin(
                "send", trace.SpanKind.PRODUCER, directive, request.message_id, request.recipient, parent
            )
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier, trace.set_span_in_context(span))
            metadata = {**request.metadata, **carrier}
            if _size(metadata) <= MAX_METADATA and len(metadata) <= MAX_METADATA_ENTRIES:
                request.metadata = metadata
        except BaseException as error:  # a sampler or a processor of the program's may raise anything
            if must_propagate(error):
                raise
            return self._failed(error)
        return partial(self._end, span)

    def accepted(self, request: ServerRequest) -> Ended:
        """Begin the span of a request that has come in; its work runs in the span's context."""
        try:
            trace, parent = self._trace, self._propagator.extract(request.metadata)
            kind = trace.SpanKind.CONSUMER
            span = self._begin("process", kind, request.directive, request.message_id, request.sender, parent)
            request.context = contextvars.copy_context()
            request.context.run(self._attach, trace.set_span_in_context(span, parent))
        except BaseException as error:
            if must_propagate(error):
                raise
            return self._failed(error)
        return partial(self._end, span)

    def _begin(
        self, operation: str, kind: SpanKind, directive: str, message_id: str, other: str, parent: Context | None
    ) -> Span:
        attributes = {
            "messaging.system": "zmesh",
            "messaging.operation.type": operation,
            "messaging.operation.name": operation,
            "messaging.destination.name": directive,
            "messaging.message.id": message_id,
            "messaging.client.id": self._node_id,
            "server.address" if operation == "send" else "client.address": other,
        }
        return self._tracer.start_span(f"{operation} {directive}", parent, kind, attributes)

    def _end(self, span: Span, code: str, text: str) -> None:
        """End a span, with an error unless `code` is empty."""
        try:
            if code:
                span.set_attribute("error.type", code)
                span.set_status(self._trace.StatusCode.ERROR, text or code)
            span.end()
        except BaseException as error:
            if must_propagate(error):
                raise
            self._failed(error)

    def _failed(self, error: BaseException) -> Ended:
        """Log what the program's own part of OpenTelemetry has raised: a request does not fail for it."""
        log_exception(log, "a span of node %s is lost", self._node_id, error=error)
        return _nothing


def _nothing(code: str, text: str) -> None:
    """End a request without a span."""


def _size(metadata: Mapping[str, str]) -> int:
    return sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
