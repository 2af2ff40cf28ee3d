"""The page in Chromium: what a person sees and presses. `make pictures` writes the pictures of the guide with it."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from playwright.async_api import async_playwright, expect

import zmesh
from tests.dashboard.chromium import NEEDED, browser, launched, see
from zmesh.dashboard import Dashboard
from zmesh.testing.process import Process
from zmesh.testing.proxy import Proxy

pytestmark = NEEDED
PARENTS = {"paris": "hub", "tokyo": "hub", "gateway": "hub", "lyon": "paris", "osaka": "tokyo", "lab": "gateway"}


@asynccontextmanager
async def mesh(*, slow=None):
    """Nodes in this process, and `edge` in one of its own, which a test may kill; with one link over a slow proxy."""
    nodes = {}
    async with AsyncExitStack() as stack:
        for name in ("hub", *PARENTS):
            peers = [nodes[PARENTS[name]].listening[0]] if name in PARENTS else []
            if name == slow:
                proxy = await stack.enter_async_context(Proxy(peers[0]))
                proxy.slow(delay=0.08)
                peers = [proxy.url]
            tags = ("gpu",) if name in ("lab", "lyon") else ()
            node = zmesh.Controller(node_id=name, listen=["tcp://127.0.0.1:*"], peers=peers, tags=tags)
            nodes[name] = await stack.enter_async_context(node)
        edge = await Process.begin("edge", peers=[nodes["lyon"].listening[0]])
        stack.callback(edge.close)
        nodes["leaf"] = await stack.enter_async_context(
            zmesh.Controller(node_id="cli-0f3a", peers=[nodes["hub"].listening[0]], ephemeral=True)
        )
        yield nodes, edge


async def test_a_person_sees_which_link_is_slow_what_is_requested_and_which_node_dies():
    async with mesh(slow="tokyo") as (nodes, edge), browser(nodes["leaf"]) as shown:
        page, attention = shown.page, shown.page.locator("#attention")
        await see(page.locator("#summary"), "8 none down")
        for _ in range(20):
            await nodes["lab"].request("lyon", "echo:echo", b"x" * 1000)
            await nodes["paris"].request("lab", "echo:echo", b"x" * 1000)
        await see(attention, "link hub – tokyo is slow")
        await see(page.locator("#requests"), "echo:echo")
        edge.kill()
        await see(attention, "edge is down")
        await see(attention, "last heard by lyon")
        await see(page.locator("#summary"), "7 1 down")
        await see(page.locator("#latest"), "edge left the mesh")
        await see(page.locator("#attention li.bad").first, "since")
        await shown.picture("overview")

        await page.get_by_label("Path from").fill("lab")
        await page.get_by_label("Path to").fill("lyon")
        await page.keyboard.press("Enter")
        await see(page.locator("#path"), "lab")
        await expect(page.locator("#path .name")).to_have_text(["lab", "gateway", "hub", "paris", "lyon"])
        await page.emulate_media(color_scheme="dark")
        await shown.picture("path")
        await page.emulate_media(color_scheme="light")

        await page.goto(page.url.partition("#")[0] + "#/nodes")
        await see(page.locator("#nodes tbody tr").first, "down since")
        await shown.picture("nodes")
        await page.get_by_role("link", name="Overview").click()
        await page.locator("#requests a", has_text="lyon").first.click()
        await see(page.locator("#node .bar"), "lyon")
        await page.locator("[data-why=osaka]").click()
        await see(page.locator(".why-box"), "the cheapest feasible route")
        await see(page.locator("#node"), "No permission to list its jobs")
        await see(page.locator("#node .log"), "lost the link with edge")
        await shown.picture("node")


async def test_nodes_are_found_by_names_tags_and_state_with_the_keyboard_alone(fixed_mesh):
    fixed_mesh.down["c"] = 5.0
    async with browser(fixed_mesh) as shown:
        page, rows = shown.page, shown.page.locator("#nodes tbody tr[data-id]")
        await see(page.locator("#summary"), "3 1 down")
        await page.keyboard.press("2")
        await expect(rows).to_have_count(4)
        await page.keyboard.press("/")
        await page.keyboard.type("is:down")
        await expect(rows).to_have_count(1)
        await page.keyboard.press("Escape")
        await expect(rows).to_have_count(4)
        await page.keyboard.press("/")
        await page.keyboard.type("tag:none")
        await expect(rows).to_have_count(0)
        await page.keyboard.press("Escape")
        await page.keyboard.press("2")
        await expect(page.locator(".grid-wrap")).to_be_focused()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("tr[aria-selected=true]")).to_have_count(1)
        await page.keyboard.press("Enter")
        await expect(page.locator("#node")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#nodes")).to_be_visible()
        await page.keyboard.press("g")
        await expect(page.locator("#topology")).to_be_focused()
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#card")).to_be_visible()
        await page.keyboard.press("Enter")
        await see(page.locator("#node h2").first, "hub")
        await page.keyboard.press("3")
        await see(page.locator("#events"), "hub has started")
        await page.keyboard.press("?")
        await expect(page.locator("#help")).to_be_visible()


async def test_the_page_is_dark_or_light_as_the_system_is_or_as_one_chooses(fixed_mesh):
    async with browser(fixed_mesh) as shown:
        page, theme = shown.page, shown.page.locator("#theme")

        async def background():
            return await page.evaluate("getComputedStyle(document.body).backgroundColor")

        light = await background()
        await page.emulate_media(color_scheme="dark")
        dark = await background()
        assert dark != light
        await page.keyboard.press("t")
        await expect(theme).to_have_attribute("aria-label", "Theme: light")
        assert await background() == light
        await theme.click()
        await page.emulate_media(color_scheme="light")
        assert await background() == dark
        await page.reload()
        await expect(theme).to_have_attribute("aria-label", "Theme: dark")


async def test_what_nodes_call_themselves_is_text_and_no_markup(fixed_mesh):
    from zmesh import NodeEvent

    async with browser(fixed_mesh) as shown:
        await see(shown.page.locator("#latest"), "hub has started")
        text = "<img src=x onerror=alert(1)><b>bold</b>"
        fixed_mesh.new_events.put_nowait(NodeEvent(2, 0.0, "call_refused", "a", "", text))
        await see(shown.page.locator("#latest"), text)
        assert await shown.page.locator("#latest img, #latest b").count() == 0


async def test_a_time_line_of_one_sample_or_none_shows_seconds_and_not_years(fixed_mesh):
    async with browser(fixed_mesh) as shown:

        async def evaluate(expression):
            return await shown.page.evaluate(f"import('/static/charts.js').then(({{ span }}) => {expression})")

        assert await evaluate("[span(95, 100), span(100, 100), span(20, 100)]") == [[90, 100], [90, 100], [20, 100]]
        first, last = await evaluate("span(undefined, undefined)")
        assert last - first == pytest.approx(10)
        assert shown.complaints == []


async def test_a_page_whose_dashboard_ends_says_that_it_is_out_of_date(fixed_mesh):
    async with AsyncExitStack() as stack:
        dashboard = await stack.enter_async_context(Dashboard(fixed_mesh))
        driver = await stack.enter_async_context(async_playwright())
        chromium = await launched(driver)
        stack.push_async_callback(chromium.close)
        page = await chromium.new_page()
        await page.goto(dashboard.url)
        await see(page.locator("#contact"), "live, as seen by hub")
        await dashboard.__aexit__(None, None, None)
        await see(page.locator("#banner"), "does not answer")
