"""Scrapes of real nodes: what is in them, who may scrape how often, and files for node_exporter."""

import asyncio
import dataclasses
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

import zmesh
from tests.metrics.scraping import fetch, samples, scrape
from zmesh.core.limits import Rate
from zmesh.errors import AddressError, ConfigError
from zmesh.metrics import server
from zmesh.metrics.families import MAX_NEIGHBOURS, Reading, families_of
from zmesh.operate.json_form import Seconds
from zmesh.operate.status import IdentityStatus
from zmesh.testing import eventually

DOCS = Path(__file__).parents[2] / "docs/guides"


@pytest.fixture
async def pair() -> AsyncIterator[tuple[zmesh.Controller, zmesh.Controller]]:
    """A hub and an edge that serve metrics."""
    async with AsyncExitStack() as stack:
        hub = zmesh.Controller(node_id="hub", listen=["tcp://127.0.0.1:*"], metrics=":*")
        await stack.enter_async_context(hub)
        edge = zmesh.Controller(node_id="edge", peers=hub.listening, metrics=":*")
        await stack.enter_async_context(edge)
        await hub.wait_for("edge", timeout=60)
        await edge.wait_for("hub", timeout=60)
        yield hub, edge


Pair = tuple[zmesh.Controller, zmesh.Controller]


async def test_requests_are_counted_at_both_ends_by_directive_and_ending(pair: Pair) -> None:
    hub, edge = pair

    def fail(work: zmesh.Work) -> None:
        raise ValueError("odd")

    hub.register("text:fail", fail)
    await edge.request("hub", "echo:echo", "x")
    with pytest.raises(zmesh.RemoteError):
        await edge.request("hub", "text:fail")
    with pytest.raises(zmesh.UnknownDirective):
        await edge.request("hub", "text:none")
    served, sent = await scrape(hub), await scrape(edge)
    assert served["zmesh_server_requests_total"] == {
        ("echo:echo", "ok"): 1,
        ("text:fail", "remote"): 1,
        ("other", "unknown_directive"): 1,
    }
    assert sent["zmesh_client_requests_total"] == served["zmesh_server_requests_total"]
    assert served["zmesh_server_request_duration_seconds_count"][("echo:echo",)] == 1
    assert sent["zmesh_client_request_duration_seconds_sum"][("echo:echo",)] > 0


async def test_a_payload_that_fails_while_a_reply_is_read_is_counted_as_failed(pair: Pair) -> None:
    hub, edge = pair

    hub.register("text:broken", lambda work: zmesh.Response(iter(_broken())))
    with pytest.raises(zmesh.RemoteError):
        await edge.request("hub", "text:broken")
    assert (await scrape(hub))["zmesh_server_requests_total"] == {("text:broken", "remote"): 1}


def _broken() -> Any:
    yield b"x" * 100_000
    raise OSError("unplugged")


async def test_links_are_shown_by_neighbour_and_one_that_is_lost_is_down(pair: Pair) -> None:
    hub, edge = pair
    found = await scrape(edge)
    assert found["zmesh_link_up"] == {("hub",): 1}
    assert found["zmesh_link_cost"][("hub",)] >= 1
    assert found["zmesh_link_received_bytes_total"][("hub",)] > 0
    assert found["zmesh_nodes"] == {(): 2}
    assert found["zmesh_events_total"][("link_up",)] == 1
    await hub.close()

    async def lost() -> bool:
        try:
            latest = await scrape(edge)  # which may be as old as FRESH
        except ConnectionError:  # so many are refused
            return False
        found.clear()
        found.update(latest)
        return found["zmesh_link_up"] == {("hub",): 0}

    await eventually(lost)
    assert found["zmesh_warnings"][("link_down",)] == 1
    assert ("hub",) not in found.get("zmesh_link_rtt_seconds", {})


async def test_drops_have_their_reason(pair: Pair) -> None:
    hub, _ = pair
    hub.node.telemetry.counts["frame_dropped:no_route"] += 3
    hub.node.telemetry.counts["reply_dropped:nobody_receives"] += 1
    hub.node.telemetry.counts["call_refused"] += 2
    drops = (await scrape(hub))["zmesh_drops_total"]
    assert drops == {("no_route", "frame"): 3, ("nobody_receives", "reply"): 1, ("call_refused", "call"): 2}


async def test_a_scrape_is_valid_openmetrics_too(pair: Pair) -> None:
    url = pair[0].node.metrics_url
    assert url is not None
    text = await asyncio.to_thread(fetch, url, Accept="application/openmetrics-text; version=1.0.0")
    assert {family.name for family in parse_open(text)} >= {"zmesh_nodes", "zmesh_received_bytes"}


async def test_a_blocked_loop_is_answered_with_503(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, _ = pair
    monkeypatch.setattr("zmesh.metrics.exporter.READ_WITHIN", 0.05)
    url = hub.node.metrics_url
    assert url is not None
    with ThreadPoolExecutor() as threads:
        refused = threads.submit(fetch, url).exception()  # until it is answered this holds the loop of the node
    assert isinstance(refused, urllib.error.HTTPError)
    assert refused.code == 503
    refused.close()
    monkeypatch.undo()
    assert (await scrape(hub))["zmesh_scrapes_total"][("unread",)] == 1


async def test_scrapers_past_the_limit_are_hung_up_on_and_counted(pair: Pair) -> None:
    hub, edge = pair
    address = urllib.parse.urlsplit(hub.node.metrics_url)
    stopped = [socket.create_connection((address.hostname, address.port)) for _ in range(server.MAX_SCRAPERS + 6)]

    def refused() -> bool:
        return hub.node.components.exporter.scrapes["refused"] >= 6  # type: ignore[union-attr]

    await eventually(refused)
    await edge.request("hub", "echo:echo", "the node is not slowed by those who do not read")
    for each in stopped:
        each.close()


async def test_a_scraper_that_takes_too_long_is_hung_up_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, _ = pair
    monkeypatch.setattr(server, "SCRAPE_WITHIN", 0.0)
    address = urllib.parse.urlsplit(hub.node.metrics_url)
    with socket.create_connection((address.hostname, address.port)) as slow:
        assert await asyncio.to_thread(slow.recv, 1) == b""
    await eventually(lambda: hub.node.components.exporter.scrapes["slow"] == 1)  # type: ignore[union-attr]


def test_the_rate_of_scrapes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SCRAPES", Rate(1e-6, 2.5))  # the third may overdraw it
    scrapes: Counter[str] = Counter()

    def app(_: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"served"]

    served = server.ScrapeServer(("127.0.0.1", 0), app, scrapes)
    served.start()
    try:
        assert [fetch(served.url) for _ in range(3)] == ["served"] * 3
        with pytest.raises((OSError, http.client.HTTPException)):
            fetch(served.url)
        assert scrapes["refused"] == 1
    finally:
        served.close()


async def test_no_thread_or_file_is_left_behind(tmp_path: Path) -> None:
    file = tmp_path / "zmesh.prom"
    stale = tmp_path / "zmesh.prom.1.2"
    stale.touch()
    settings: Any = {"address": ":*", "textfile": str(file), "interval": 1}
    async with zmesh.Controller(node_id="a", metrics=settings) as node:
        assert samples(file.read_text())["zmesh_nodes"] == {(): 1}
        assert not stale.exists()
        await scrape(node)
    assert not file.exists()
    assert not [each.name for each in threading.enumerate() if each.name == "zmesh metrics"]


async def test_a_file_that_can_not_be_written_keeps_the_node_from_opening(tmp_path: Path) -> None:
    node = zmesh.Controller(node_id="a", metrics=str(tmp_path / "missing/zmesh.prom"))
    with pytest.raises(ConfigError, match=r"can't write metrics to .*: No such file"):
        await node.open()


async def test_a_file_that_can_no_longer_be_written_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "collector"
    folder.mkdir()
    settings: Any = {"address": ":*", "textfile": str(folder / "zmesh.prom"), "interval": 1}
    async with zmesh.Controller(node_id="a", metrics=settings) as node:
        shutil.rmtree(folder)
        await eventually(lambda: node.node.components.exporter.scrapes["unwritten"] >= 1)  # type: ignore[union-attr]
    assert sum("can't be written" in record.message for record in caplog.records) == 1


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=rf"can't serve metrics at 127\.0\.0\.1:{port}"):
            await zmesh.Controller(node_id="a", metrics=f":{port}").open()


def test_without_prometheus_client_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import zmesh\ntry: zmesh.Controller(metrics=':*')\nexcept zmesh.ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "metrics need prometheus_client: pip install 'zmesh-mq[metrics]'\n"


def test_a_node_without_metrics_does_not_load_them() -> None:
    program = "import sys, zmesh.node, zmesh; zmesh.Controller(); print([m for m in sys.modules if 'metrics' in m])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- what the docs show ----------------------------------------------------------------------------------------------


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bzmesh_\w+", expression))


def expressions() -> list[str]:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown += [each["query"]["query"] for each in dashboard["templating"]["list"] if isinstance(each["query"], dict)]
    alerts = (DOCS / "alerts.yml").read_text()
    return [*shown, *re.findall(r"expr: (?:>-\n)?((?:.+\n)(?:          .+\n)*)", alerts)]


@pytest.fixture
async def exported(pair: Pair) -> dict[str, set[str]]:
    """The names of all series, with their labels."""
    hub, edge = pair
    await edge.request("hub", "echo:echo", "x")
    hub.node.telemetry.counts["frame_dropped:no_route"] += 1
    found: dict[str, set[str]] = {}
    for node in pair:
        for family in parse(await asyncio.to_thread(fetch, str(node.node.metrics_url))):
            found.setdefault(family.name, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


OF_IDENTITY = {
    "zmesh_certificate_expiry_timestamp_seconds",
    "zmesh_certificate_renewal_timestamp_seconds",
    "zmesh_authority_expiry_timestamp_seconds",
}


async def test_the_dashboard_and_the_alerts_use_names_that_are_exported(exported: dict[str, set[str]]) -> None:
    shown = expressions()
    assert len(shown) > 25
    for expression in shown:
        assert names_in(expression) or expression.startswith("up{"), expression
        assert names_in(expression) <= exported.keys() | OF_IDENTITY, expression


async def test_the_dashboard_and_the_alerts_use_labels_that_are_exported(exported: dict[str, set[str]]) -> None:
    for expression in expressions():
        for name, selector in re.findall(r"\b(zmesh_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)\s*[=!]", selector))
            assert name in OF_IDENTITY or labels <= (exported[name] or labels), expression


async def test_the_guide_names_every_family(exported: dict[str, set[str]]) -> None:
    page = (DOCS / "metrics.md").read_text()
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in exported}
    named = set(re.findall(r"`(zmesh_\w+)`", page))
    missing = {name for name in families if name not in named and f"{name}_total" not in named}
    assert not missing
    assert named <= families | {f"{name}_total" for name in families} | OF_IDENTITY


async def test_a_node_with_an_identity_shows_when_its_certificate_and_its_authority_end(pair: Pair) -> None:
    exporter = pair[0].node.components.exporter
    assert exporter is not None
    reading = exporter._now()
    identity = IdentityStatus("prod", "SHA256:x", (), 5000.0, Seconds(4000.0), Seconds(1000.0))
    status = dataclasses.replace(reading.status, identity=identity)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Fixed(reading._replace(status=status, authorities={"a1b2c3d4": 9000.0})))
    found = samples(generate_latest(registry).decode())
    assert found["zmesh_certificate_expiry_timestamp_seconds"] == {(): 5000}
    assert found["zmesh_certificate_renewal_timestamp_seconds"] == {(): 2000}
    assert found["zmesh_authority_expiry_timestamp_seconds"] == {("a1b2c3d4",): 9000}
    assert ("prod", status.version) in found["zmesh_node_info"]


class Fixed:
    """A collector of one reading."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Any:
        return families_of(self._reading)


async def test_neighbours_past_the_limit_are_shown_together(pair: Pair) -> None:
    exporter = pair[1].node.components.exporter
    assert exporter is not None
    reading = exporter._now()
    (link,) = reading.status.links
    links = tuple(dataclasses.replace(link, node=f"n{number}", bytes_in=1) for number in range(MAX_NEIGHBOURS + 30))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Fixed(reading._replace(status=dataclasses.replace(reading.status, links=links))))
    found = samples(generate_latest(registry).decode())
    assert len(found["zmesh_link_up"]) == MAX_NEIGHBOURS + 1
    assert found["zmesh_link_received_bytes_total"][("other",)] == 30


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
async def test_promtool_finds_nothing_wrong(pair: Pair) -> None:
    text = await asyncio.to_thread(fetch, str(pair[0].node.metrics_url))
    for words, stdin in ((["metrics"], text), (["rules", str(DOCS / "alerts.yml")], "")):
        program = await asyncio.create_subprocess_exec(
            "promtool", "check", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await program.communicate(stdin.encode())
        assert program.returncode == 0, said.decode()
