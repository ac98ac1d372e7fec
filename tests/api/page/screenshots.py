"""The pictures of docs/page.md: the page with some traffic, in light and in dark.

python -m tests.api.page.screenshots
"""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

from playwright.async_api import expect

from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Transport
from mesh.model.table import RealKey, TrafficCounters, VirtualKey
from tests.api.page.browser import Worker, failed, launched, observed

DOCS = Path(__file__).parents[3] / "docs"
SECONDS = 40
"""Of traffic; long enough for a curve."""


async def picture(scheme: Literal["light", "dark"]) -> None:
    """One of them."""
    with tempfile.TemporaryDirectory() as directory:
        seen = failed(observed(4, 4), 1, "status 503")
        problem = Problem(
            Code.NAME_TAKEN,
            Severity.ERROR,
            "service shop/api",
            "the name web.test is held by shop/web",
            "give it a name of its own",
            where="compose.yaml:9",
        )
        worker = Worker(Path(directory), replace(seen, problems={"claims": (problem,)}))
        async with worker.running() as feed, launched() as browser:
            context = await browser.new_context(viewport={"width": 1200, "height": 1000}, color_scheme=scheme)
            page = await context.new_page()
            await page.goto(worker.link)
            await expect(page.locator("#connection")).to_have_text("live")
            await page.get_by_role("button", name="service-1.test").click()
            for second in range(SECONDS):
                busy = 100 + 40 * (second % 9) - 25 * (second % 4)
                worker.traffic = {
                    VirtualKey(f"10.112.0.{n}", 80, Transport.TCP): TrafficCounters(
                        (second + 1) * busy * (n + 1),
                        (second + 1) * 90_000 * (n + 1),
                        (second + 1) * 2_000_000 * (n + 1),
                    )
                    for n in range(4)
                }
                worker.connections = {
                    (key, RealKey(f"10.2.0.{n}", e + 1)): busy // 4 + e
                    for n, key in enumerate(worker.traffic)
                    for e in range(4)
                }
                feed.changed()
                await asyncio.sleep(0.6)
            await page.screenshot(path=DOCS / f"page-{scheme}.png", full_page=True)
            await context.close()


async def main() -> None:
    """Both."""
    await picture("light")
    await picture("dark")


if __name__ == "__main__":
    asyncio.run(main())
