"""The state of a node as families of Prometheus. Names and labels are a contract (docs/guides/metrics.md).

Every series has the label `node`, so that several nodes of one machine differ in a textfile. What others put into a
label is bounded: MAX_NEIGHBOURS neighbours, MAX_REASONS reasons, `meter.MAX_DIRECTIVES` directives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from zmesh.metrics.meter import OTHER, RequestMeter

if TYPE_CHECKING:
    from zmesh.operate import LinkReport, NodeStatus

MAX_NEIGHBOURS = 200
MAX_REASONS = 256
DROPS = {
    "frame_dropped": "frame",
    "reply_dropped": "reply",
    "overloaded": "request",
    "call_refused": "call",
    "unreachable": "message",
    "route_refused": "route",
    "record_refused": "record",
    "stranger_refused": "connection",
    "connection_shut": "connection",
    "link_refused": "link",
}
"""The events by which something is dropped or refused, and the word for it in the label."""


class Reading(NamedTuple):
    """The state of a node at a scrape. `waiting_streams` are requests and replies of which nothing has been sent.

    `authorities` are the times at which those of the mesh end, seconds since 1970, by the first digits of their keys.
    """

    status: NodeStatus
    meter: RequestMeter
    queued_bytes: int
    waiting_streams: int
    replying: int
    authorities: Mapping[str, float]
    scrapes: Mapping[str, int]


class _Families:
    """Makes families whose series all have the label `node`."""

    def __init__(self, node: str) -> None:
        self._node = node

    def gauge(self, name: str, help: str, *rows: tuple[Sequence[str], float], labels: Sequence[str] = ()) -> Metric:
        family = GaugeMetricFamily(f"zmesh_{name}", help, labels=["node", *labels])
        return self._filled(family, rows)

    def counter(self, name: str, help: str, *rows: tuple[Sequence[str], float], labels: Sequence[str] = ()) -> Metric:
        family = CounterMetricFamily(f"zmesh_{name}", help, labels=["node", *labels])
        return self._filled(family, rows)

    def _filled(
        self, family: GaugeMetricFamily | CounterMetricFamily, rows: Sequence[tuple[Sequence[str], float]]
    ) -> Metric:
        for labels, value in rows:
            family.add_metric([self._node, *labels], value)
        return family

    def histogram(
        self, name: str, help: str, label: str, rows: Iterator[tuple[str, list[tuple[str, float]], float]]
    ) -> Metric:
        family = HistogramMetricFamily(f"zmesh_{name}", help, labels=["node", label])
        for value, buckets, total in rows:
            family.add_metric([self._node, value], buckets, total)
        return family


def families_of(reading: Reading) -> Iterator[Metric]:
    """All families of a node."""
    made = _Families(reading.status.node)
    yield from _node(made, reading)
    yield from _links(made, reading.status)
    yield from _requests(made, reading)
    yield from _drops(made, reading.status.counters or {})
    yield from _trust(made, reading)
    scrapes = [((ending,), float(count)) for ending, count in reading.scrapes.items()]
    yield made.counter("scrapes", "Scrapes of this node, by how they ended.", *scrapes, labels=["ending"])


def _node(made: _Families, reading: Reading) -> Iterator[Metric]:
    status = reading.status
    info = (status.version, status.identity.mesh if status.identity is not None else "")
    yield made.gauge(
        "node_info", "The version of a node and the name of its mesh.", (info, 1.0), labels=["version", "mesh"]
    )
    yield made.gauge("start_time_seconds", "When the node was started, since 1970.", ((), status.time - status.uptime))
    yield made.gauge("nodes", "Nodes that can be reached, this one among them.", ((), status.nodes))
    yield made.gauge("routes", "Selected routes to other nodes.", ((), status.nodes - 1))
    yield made.gauge("leaves", "Ephemeral nodes that are attached, such as commands.", ((), status.leaves))
    yield made.gauge("queued_bytes", "Bytes that wait because a link is full.", ((), reading.queued_bytes))
    yield made.counter("received_bytes", "Bytes received over all links.", ((), status.bytes_in))
    yield made.counter("sent_bytes", "Bytes sent over all links.", ((), status.bytes_out))
    loop = status.loop
    yield made.gauge("loop_lag_seconds", "By how much the event loop was late at last.", ((), loop.lag))
    yield made.gauge(
        "loop_lag_worst_seconds", "The same at worst in the last one to two minutes.", ((), loop.worst_lag)
    )
    yield made.counter(
        "loop_blocked", "Times that the event loop was blocked for a second or more.", ((), loop.blocked)
    )
    process = status.process
    yield made.counter("cpu_seconds", "Processor time of the node's process.", ((), process.cpu))
    yield made.gauge("resident_memory_bytes", "Memory of the node's process.", ((), process.memory_bytes))
    yield made.gauge("open_fds", "Open file descriptors of the node's process.", ((), process.descriptors))
    if process.descriptor_limit is not None:
        yield made.gauge("max_fds", "How many file descriptors may be open.", ((), process.descriptor_limit))
    warnings = Counter(warning.code for warning in status.warnings)
    rows = [((code,), float(count)) for code, count in warnings.items()]
    yield made.gauge("warnings", "What needs attention, as `zmesh status` shows it.", *rows, labels=["code"])


def _links(made: _Families, status: NodeStatus) -> Iterator[Metric]:
    by_node: dict[str, list[LinkReport]] = {}
    for link in status.links:
        name = link.node or link.where
        by_node.setdefault(name if name in by_node or len(by_node) < MAX_NEIGHBOURS else OTHER, []).append(link)
    up = {name: [link for link in links if link.state != "down"] for name, links in by_node.items()}
    yield _per_neighbour(
        made, "link_up", "1 if there is a link with a neighbour.", {name: bool(up[name]) for name in up}
    )
    up = {name: links for name, links in up.items() if links}
    suspect = {name: all(link.state == "suspect" for link in links) for name, links in up.items()}
    yield _per_neighbour(made, "link_suspect", "1 if a neighbour has been silent for two heartbeats.", suspect)
    rtts = {name: min((link.rtt for link in links if link.rtt is not None), default=None) for name, links in up.items()}
    known = {name: rtt for name, rtt in rtts.items() if rtt is not None}
    yield _per_neighbour(made, "link_rtt_seconds", "The smoothed round-trip time to a neighbour.", known)
    costs = {name: min((link.cost for link in links if link.cost is not None), default=0) for name, links in up.items()}
    yield _per_neighbour(made, "link_cost", "What a link adds to a route.", costs)
    queued = {name: sum(link.queued_bytes for link in links) for name, links in up.items()}
    yield _per_neighbour(made, "link_queued_bytes", "Bytes that wait because the link is full.", queued)
    for name, help, attribute in (
        ("link_received_bytes", "Bytes received over a link; from 0 with each new one.", "bytes_in"),
        ("link_sent_bytes", "Bytes sent over a link; from 0 with each new one.", "bytes_out"),
        ("link_received_messages", "Messages received over a link; from 0 with each new one.", "messages_in"),
        ("link_sent_messages", "Messages sent over a link; from 0 with each new one.", "messages_out"),
    ):
        rows = [((node,), float(sum(getattr(link, attribute) for link in links))) for node, links in up.items()]
        yield made.counter(name, help, *rows, labels=["neighbour"])


def _per_neighbour(made: _Families, name: str, help: str, values: Mapping[str, float]) -> Metric:
    return made.gauge(name, help, *[((node,), float(value)) for node, value in values.items()], labels=["neighbour"])


def _requests(made: _Families, reading: Reading) -> Iterator[Metric]:
    work = reading.status.work
    yield made.gauge("client_requests_open", "Requests of this node that have not ended.", ((), work.requested))
    yield made.gauge("client_waiting_bytes", "Payload of them that is not acknowledged.", ((), work.waiting_bytes))
    yield made.gauge(
        "waiting_streams", "Requests and replies of which nothing is sent yet.", ((), reading.waiting_streams)
    )
    running = [((directive,), float(count)) for directive, count in work.directives.items()]
    yield made.gauge("server_requests_running", "Requests that are at work here.", *running, labels=["directive"])
    yield made.gauge("server_requests_running_limit", "How many may be: the setting max_work.", ((), work.max_running))
    yield made.gauge("server_requests_replying", "Requests whose replies are not acknowledged.", ((), reading.replying))
    yield made.gauge("jobs_running", "Jobs that run.", ((), work.jobs_running))
    yield made.gauge("jobs_waiting", "Jobs that wait for their turn.", ((), work.jobs_waiting))
    for name, side in (("client", reading.meter.client), ("server", reading.meter.server)):
        verb = "that this node has sent" if name == "client" else "that this node has served"
        rows = [(labels, float(count)) for labels, count in side.ended.items()]
        labels = ["directive", "ending"]
        yield made.counter(f"{name}_requests", f"Requests {verb}, by how they ended.", *rows, labels=labels)
        help = f"How long requests {verb} took, from the first byte to the last reply."
        yield made.histogram(f"{name}_request_duration_seconds", help, "directive", side.cumulated())


def _drops(made: _Families, counters: Mapping[str, int]) -> Iterator[Metric]:
    drops: Counter[tuple[str, str]] = Counter()
    events: Counter[str] = Counter()
    for key, count in counters.items():
        event, _, reason = key.partition(":")
        if event in DROPS:
            row = (DROPS[event], reason or event)
            drops[row if row in drops or len(drops) < MAX_REASONS else (DROPS[event], OTHER)] += count
        else:
            events[event] += count
    rows = [(labels, float(count)) for labels, count in drops.items()]
    yield made.counter("drops", "What was dropped or refused, by reason.", *rows, labels=["what", "reason"])
    seen = [((event,), float(count)) for event, count in events.items()]
    yield made.counter("events", "Other events, such as link_lost or route_changed.", *seen, labels=["event"])


def _trust(made: _Families, reading: Reading) -> Iterator[Metric]:
    identity = reading.status.identity
    if identity is None:
        return
    renews = identity.not_after - identity.expires + identity.renews
    help = "When the certificate of this node ends, since 1970."
    yield made.gauge("certificate_expiry_timestamp_seconds", help, ((), identity.not_after))
    help = "When it is renewed, since 1970."
    yield made.gauge("certificate_renewal_timestamp_seconds", help, ((), renews))
    rows = [((key,), until) for key, until in reading.authorities.items()]
    help = "When an authority of the mesh ends, since 1970."
    yield made.gauge("authority_expiry_timestamp_seconds", help, *rows, labels=["authority"])
