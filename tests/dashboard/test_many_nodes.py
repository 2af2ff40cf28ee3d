"""A mesh of a thousand nodes on the page: all of it is drawn and found, with bounded updates and elements."""

import asyncio
import importlib
import itertools
import json
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.dashboard.chromium import NEEDED, browser, see
from zmesh.dashboard.feed import Feed
from zmesh.dashboard.model import MAX_ROWS, MeshModel

NODES = 1000
LARGEST = 512 * 1024
ELEMENTS = 2_000
NEXT_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def overlap(one, other):
    """Whether two boxes do: left, top, right, bottom."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.fixture
def large(monkeypatch):
    """A prepared mesh, as `benchmarks.dashboard --simulated` shows it."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return importlib.import_module("benchmarks.prepared_mesh").PreparedMesh(NODES)


async def test_no_update_of_a_large_mesh_is_larger_than_its_limit(large):
    model, written = MeshModel(), []

    class Recorded(Feed):
        def _written(self, *since):
            version, text = super()._written(*since)
            written.extend(text.decode().split("\n\n")[:-1])
            return version, text

    feed = Recorded(model)
    model.take_members(await large.members(), 100.0)
    model.take_graph(await large.graph(), 100.0)
    stopped, hung_up = asyncio.Event(), asyncio.Event()

    async def receive():
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message.get("body"):
            stopped.set()

    stream = asyncio.ensure_future(feed({}, receive, send))
    await stopped.wait()
    first = len(written)
    for node in large.ids:
        model.take_status(await large.status(node), 101.0)
    for _ in range(first):
        feed.update()
    hung_up.set()
    await stream
    updates = [json.loads(text.removeprefix("data: ")) for text in written]
    for shown in (updates[:first], updates[first:]):
        assert {row["id"] for update in shown for row in update["nodes"]} == set(large.ids)
        assert len({row["id"] for update in shown for row in update["links"]}) == len(large.edges)
        assert all(len(update["nodes"]) + len(update["links"]) <= MAX_ROWS for update in shown)
    assert max(len(text) for text in written) <= LARGEST


@NEEDED[0]
@NEEDED[1]
async def test_all_nodes_and_links_are_drawn_and_found_with_few_elements(large):
    async with browser(large) as shown:
        page = shown.page
        await see(page.locator("#summary"), f"{NODES} none down")
        await see(page.locator("#attention"), "link {} – {} is slow".format(*sorted(large.slow)))
        await page.evaluate(NEXT_FRAMES)
        drawn = await page.evaluate("[zmeshTopology.nodes, zmeshTopology.links]")
        assert drawn == [NODES, len(large.edges)]
        texts = await page.evaluate("zmeshTopology.texts")
        assert texts  # what the slow link measures, and where that leaves room the name of the node where it has joined
        assert not any(overlap(one, other) for one, other in itertools.combinations(texts, 2)), texts
        large.end("n0999")
        await see(page.locator("#attention"), "n0999 is down")
        await see(page.locator("#summary"), f"{NODES - 1} 1 down")
        assert await page.evaluate("document.querySelectorAll('*').length") < ELEMENTS

        await page.keyboard.press("2")
        await see(page.locator("#nodes tbody tr[data-id]").first, "n0999")
        assert await page.evaluate("document.querySelectorAll('*').length") < ELEMENTS
        await page.locator("#nodes th button", has_text="Node").click()
        await page.locator(".grid-wrap").evaluate("wrap => wrap.scrollTo(0, wrap.scrollHeight)")
        await expect(page.locator("tr[data-id=n0998]")).to_be_visible()
        await page.keyboard.press("/")
        await page.keyboard.type("tag:gpu")
        await see(page.locator("#nodes .bar"), f"{NODES // 50} of {NODES} match")
        await page.keyboard.press("Escape")
        await page.keyboard.press("/")
        await page.keyboard.type("n0500")
        await expect(page.locator("#nodes tbody tr[data-id]")).to_have_count(1)
        await page.keyboard.press("Enter")
        await see(page.locator("#node h2").first, "n0500")
