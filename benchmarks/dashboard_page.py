"""How smooth the page of the dashboard is: frames, long tasks and updates in Chromium, for a few nodes and for many."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from typing import Any, TypedDict

from benchmarks.chains import Machine, machine, machine_line
from benchmarks.prepared_mesh import PreparedMesh

SCHEMA = "zmesh.bench.dashboard-page/1"
FEW = 10
LEAVES_EVERY = 5.0
"""Seconds after which another node leaves or comes back."""
FRAMES = 0.8
"""The least ratio of the frames with many nodes to those with FEW."""
BLOCKED = 0.05
"""The largest share of the time in which the page can't react: of each task what is over 50 ms."""
SERVER = 0.05
"""The largest share of a core of the server."""
UPDATE_BYTES = 512 * 1024
VIEWS = {"overview": "1", "table": "2"}
NEXT_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
WATCH = """
window.seen = {long: 0, longest: 0, frames: 0, updates: 0, largest: 0};
window.forget = () => { for (const name of Object.keys(seen)) seen[name] = 0; };
new PerformanceObserver(list => {
  for (const { duration } of list.getEntries()) {
    seen.long += Math.max(0, duration - 50);
    seen.longest = Math.max(seen.longest, duration);
  }
}).observe({ type: "longtask" });
requestAnimationFrame(function frame() { seen.frames++; requestAnimationFrame(frame); });
window.EventSource = class extends EventSource {
  constructor(url) {
    super(url);
    this.addEventListener("message", ({ data }) => {
      seen.updates++;
      seen.largest = Math.max(seen.largest, data.length);
    });
  }
};
"""


class View(TypedDict):
    """One view of the page: per second, shares of the time, the longest task in seconds, elements of the page."""

    view: str
    nodes: int
    frames: float
    updates: float
    blocked_share: float
    longest_s: float
    largest_update_bytes: int
    elements: int
    server_share: float


class PageResult(TypedDict):
    """One run: `frames_ratio` is the least of the views, many nodes by few."""

    schema: str
    nodes: int
    drawn_s: float
    views: list[View]
    frames_ratio: float
    machine: Machine


async def _views(browser: Any, nodes: int, seconds: float) -> tuple[float, list[View]]:
    """Seconds until all nodes are drawn, and what each view is like."""
    from playwright.async_api import expect

    from zmesh.dashboard import Dashboard

    mesh, found = PreparedMesh(nodes), []
    async with Dashboard(mesh) as dashboard:
        page = await browser.new_page(viewport={"width": 1360, "height": 850})
        await page.add_init_script(WATCH)
        began = time.monotonic()
        await page.goto(dashboard.url)
        await expect(page.locator("#node-count")).to_have_text(str(nodes))
        await page.evaluate(NEXT_FRAMES)
        drawn = time.monotonic() - began
        for view, key in VIEWS.items():
            await page.keyboard.press(key)
            await asyncio.sleep(LEAVES_EVERY)
            await page.evaluate("forget()")
            began, spent = time.monotonic(), time.process_time()
            for number in range(max(1, round(seconds / LEAVES_EVERY))):
                last = mesh.ids[-1]
                mesh.begin(last) if number % 2 else mesh.end(last)
                await asyncio.sleep(min(seconds, LEAVES_EVERY))
            took = time.monotonic() - began
            seen = await page.evaluate("({...seen, elements: document.querySelectorAll('*').length})")
            if last in mesh.gone:
                mesh.begin(last)
            found.append(
                View(
                    view=view,
                    nodes=nodes,
                    frames=round(seen["frames"] / took, 1),
                    updates=round(seen["updates"] / took, 1),
                    blocked_share=round(seen["long"] / 1000 / took, 4),
                    longest_s=round(seen["longest"] / 1000, 3),
                    largest_update_bytes=seen["largest"],
                    elements=seen["elements"],
                    server_share=round((time.process_time() - spent) / took, 4),
                )
            )
        await page.close()
    return drawn, found


async def _measure(nodes: int, seconds: float) -> PageResult:
    from playwright.async_api import async_playwright

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="zmesh-bench-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        async with async_playwright() as driver:
            browser = await driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"], env=environment | {"HOME": folder}
            )
            _, few = await _views(browser, FEW, seconds)
            drawn, many = await _views(browser, nodes, seconds)
            await browser.close()
    return PageResult(
        schema=SCHEMA,
        nodes=nodes,
        drawn_s=round(drawn, 2),
        views=[*few, *many],
        frames_ratio=round(min(a["frames"] / b["frames"] for a, b in zip(many, few, strict=True)), 3),
        machine=machine(load),
    )


def measure_page(nodes: int, seconds: float) -> PageResult:
    """Open the page of a prepared mesh; needs Chromium and playwright."""
    return asyncio.run(_measure(nodes, seconds))


def text_of_page(result: PageResult) -> str:
    """The result for people."""
    lines = [
        f"{each['view']:8} {each['nodes']:5} nodes  {each['frames']:4.1f} frames/s, blocked for "
        f"{100 * each['blocked_share']:.1f} % of the time, {1000 * each['longest_s']:.0f} ms at most; "
        f"{each['updates']:.1f} updates/s of {each['largest_update_bytes'] / 1024:.0f} KiB at most; "
        f"{each['elements']} elements; server {100 * each['server_share']:.1f} % of a core"
        for each in result["views"]
    ]
    drawn = (
        f"{result['nodes']} nodes are drawn after {result['drawn_s']:.1f} s; {result['frames_ratio']:.2f} of the frames"
    )
    return "\n".join([*lines, drawn, machine_line(result["machine"])])


def missed_by_page(result: PageResult) -> list[str]:
    """The goals that are missed."""
    many = [each for each in result["views"] if each["nodes"] == result["nodes"]]
    goals = (
        ("frames", result["frames_ratio"] >= FRAMES),
        ("long tasks", all(each["blocked_share"] <= BLOCKED for each in many)),
        ("size of an update", all(each["largest_update_bytes"] <= UPDATE_BYTES for each in many)),
        ("server", all(each["server_share"] <= SERVER for each in many)),
    )
    return [name for name, reached in goals if not reached]
