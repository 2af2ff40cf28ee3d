"""The page of the dashboard in Chromium."""

import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from zmesh.dashboard import Dashboard

CHROMIUM = shutil.which("chromium")
NEEDED = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
    pytest.mark.xdist_group("chromium"),
]
PATIENT = 60_000
expect.set_options(timeout=PATIENT)
SCREENSHOTS = os.environ.get("ZMESH_SCREENSHOTS")


class Browser:
    """A page of the dashboard in Chromium, and every request that it has made."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._on_console)

    def _on_console(self, message):
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    async def picture(self, name: str) -> None:
        """Write a picture for the guide, where that is wanted."""
        if SCREENSHOTS:
            await self.page.screenshot(path=Path(SCREENSHOTS) / f"dashboard-{name}.png")


async def launched(driver):
    """Chromium, which keeps nothing: XDG_CONFIG_HOME of the tests is a folder that must not come to be."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    folder = tempfile.mkdtemp(prefix="zmesh-chromium-")
    chromium = await driver.chromium.launch(
        executable_path=CHROMIUM, args=["--no-sandbox"], env=environment | {"HOME": folder}
    )
    chromium.on("disconnected", lambda: shutil.rmtree(folder, ignore_errors=True))
    return chromium


@asynccontextmanager
async def browser(source, path=""):
    """A dashboard of that source, in Chromium."""
    async with Dashboard(source) as dashboard, async_playwright() as driver:
        chromium = await launched(driver)
        try:
            page = await chromium.new_page(viewport={"width": 1360, "height": 850}, color_scheme="light")
            page.set_default_timeout(PATIENT)
            shown = Browser(page)
            await page.goto(dashboard.url + path)
            yield shown
            origin = dashboard.url.partition("?")[0]
            assert shown.complaints == []
            assert [url for url in shown.requests if not url.startswith((origin, "data:"))] == []
        finally:
            await chromium.close()


async def see(locator, text):
    await expect(locator).to_contain_text(text)
