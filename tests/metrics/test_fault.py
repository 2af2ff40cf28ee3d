"""What a link that is cut under load looks like in the metrics of a node; the picture of docs/guides/metrics.md."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

import zmesh
from tests.metrics.scraping import Samples, scrape
from tests.pictures import FOLDER, Panel, panels
from zmesh.testing import eventually
from zmesh.testing.proxy import Proxy

INTERVAL = 0.25
"""Seconds between two scrapes."""
PHASE = 20 if FOLDER else 3
"""Scrapes before, during and after the fault: more of them where a picture is drawn."""
CLIENTS = 4


class Recorder:
    """Scrapes a node again and again; `series` has what it showed, by the second."""

    def __init__(self, node: zmesh.Controller) -> None:
        self._node = node
        self.scrapes: list[tuple[float, Samples]] = []

    async def run(self) -> None:
        began = time.monotonic()
        while True:
            self.scrapes.append((time.monotonic() - began, await scrape(self._node)))
            await asyncio.sleep(INTERVAL)

    def gauge(self, name: str, *labels: str, scale: float = 1.0) -> list[tuple[float, float]]:
        """The values of a gauge; NaN where it was not shown."""
        return [(at, found.get(name, {}).get(labels, math.nan) * scale) for at, found in self.scrapes]

    def rate(self, name: str, *labels: str) -> list[tuple[float, float]]:
        """What a counter grew by in a second."""
        values = [(at, found.get(name, {}).get(labels, 0.0)) for at, found in self.scrapes]
        return [(b, (y - x) / (b - a)) for (a, x), (b, y) in itertools.pairwise(values)]


@pytest.fixture
async def shop() -> AsyncIterator[tuple[zmesh.Controller, Proxy]]:
    """A node `web` that sends requests to `shop` over `hub`, and the proxy through which it reaches that."""
    options: dict[str, Any] = {"heartbeat": 0.2}
    async with AsyncExitStack() as stack:
        hub = zmesh.Controller(node_id="hub", listen=["tcp://127.0.0.1:*"], **options)
        await stack.enter_async_context(hub)
        proxy = await stack.enter_async_context(Proxy(hub.listening[0]))
        shop = zmesh.Controller(node_id="shop", peers=[hub.listening[0]], **options)
        web = zmesh.Controller(node_id="web", peers=[proxy.url], metrics=":*", **options)
        for node in (shop, web):
            await stack.enter_async_context(node)
        await web.wait_for("shop", timeout=60)
        await shop.wait_for("web", timeout=60)
        yield web, proxy


async def load(web: zmesh.Controller) -> None:
    """One request after the other."""
    while True:
        with suppress(zmesh.MeshError):
            await web.request("shop", "sleep:execute", "0.01", route_timeout=0.3, timeout=1.0)


async def test_a_link_that_is_cut_under_load_is_seen_in_requests_links_and_latency(
    shop: tuple[zmesh.Controller, Proxy],
) -> None:
    web, proxy = shop
    recorder, endings = Recorder(web), "zmesh_client_requests_total"

    def last(name: str, *labels: str) -> float:
        return recorder.scrapes[-1][1].get(name, {}).get(labels, 0.0)

    async def passed(count: int) -> None:
        before = len(recorder.scrapes)
        await eventually(lambda: len(recorder.scrapes) >= before + count)

    tasks = [asyncio.create_task(recorder.run()), *(asyncio.create_task(load(web)) for _ in range(CLIENTS))]
    try:
        await eventually(lambda: recorder.scrapes and last(endings, "sleep:execute", "ok") > 0)
        await passed(PHASE)
        proxy.refusing = True
        proxy.cut()
        cut = recorder.scrapes[-1][0]
        await eventually(
            lambda: last("zmesh_link_up", "hub") == 0 and last(endings, "sleep:execute", "unreachable") > 0
        )
        await passed(PHASE)
        proxy.heal()
        healed, ok = recorder.scrapes[-1][0], last(endings, "sleep:execute", "ok")
        await eventually(lambda: last("zmesh_link_up", "hub") == 1 and last(endings, "sleep:execute", "ok") > ok)
        await passed(PHASE)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    seen = sorted({key[1] for _, found in recorder.scrapes for key in found.get(endings, {})})
    requests = {ending: recorder.rate(endings, "sleep:execute", ending) for ending in seen}
    panels(
        "metrics",
        [
            Panel("zmesh_client_requests_total: requests a second, by ending", requests),
            Panel("zmesh_link_up", {"to hub": recorder.gauge("zmesh_link_up", "hub")}),
            Panel("zmesh_nodes: nodes that it reaches", {"nodes": recorder.gauge("zmesh_nodes")}),
            Panel(
                "zmesh_link_rtt_seconds, in ms", {"to hub": recorder.gauge("zmesh_link_rtt_seconds", "hub", scale=1e3)}
            ),
        ],
        (cut, healed),
        "the link is cut",
    )
