"""The pictures of docs/page.md: the page with some traffic, in light and in dark, and on a phone.

python -m tests.api.page.screenshots
"""

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from playwright.async_api import expect

from mesh.control.planner import make_plan
from mesh.model.codes import Code
from mesh.model.past_event import EventKind
from mesh.model.problem import Problem, Severity
from mesh.model.service import PortPublication, Transport
from mesh.model.table import RealKey, TrafficCounters, VirtualKey
from tests.api.page.browser import Rings, Worker, failed, happened, launched, observed

DOCS = Path(__file__).parents[3] / "docs"
ROUNDS = 8
"""Changes of the traffic before the picture is taken."""


@dataclass(frozen=True)
class Picture:
    """One of them."""

    name: str
    scheme: Literal["light", "dark"]
    width: int
    whole: bool = True
    """Whether the whole page is on it, or what a window of this width shows."""


PICTURES = (
    Picture("page-light", "light", 1200),
    Picture("page-dark", "dark", 1200, whole=False),
    Picture("page-phone", "light", 360, whole=False),
)


def shop(directory: Path) -> Worker:
    """A worker with four services, of which one has lost an endpoint and one a name."""
    seen = observed(4, 4)
    assert seen.view is not None
    first, second, *others = seen.view.services
    publishes = (PortPublication(80, Transport.TCP, 30080),)
    claims = replace(seen.view.claims, ports={(Transport.TCP, 30080): (second.name, 80)})
    view = replace(seen.view, services=(first, replace(second, publishes=publishes), *others), claims=claims)
    problem = Problem(
        Code.NAME_TAKEN,
        Severity.ERROR,
        "service shop/api",
        "the name web.test is held by shop/web",
        "give it a name of its own",
        where="compose.yaml:9",
    )
    seen = replace(seen, view=view, plan=make_plan(view, view.health), problems={"claims": (problem,)})
    return Worker(directory, failed(seen, 1, "status 503"), channel=Rings("w2"))


def remember(worker: Worker) -> None:
    """Let an hour have passed."""
    worker.passed(59, "demo/1", 400)
    about = {"owner": "demo/1", "service": "service-1.test", "worker": "w1"}
    end = "endpoint demo/1/0 of service-1.test"
    about_other = {"owner": "demo/2", "service": "service-2.test"}
    other = "container demo/2/1 of service-2.test on w2 ended: exit code 137, SIGKILL, out of memory"
    assert worker.channel is not None
    worker.channel.kept["w2"] = [happened(other, EventKind.CONTAINER_DIED, 1200, **about_other)]
    worker.keep(happened("the daemon of w1 started", EventKind.DAEMON_STARTED, 3500))
    worker.keep(happened(f"{end} failed: no answer in 2 s", EventKind.ENDPOINT_FAILED, 2400, **about))
    worker.keep(happened(f"{end} is healthy", EventKind.ENDPOINT_HEALTHY, 2100, **about))
    worker.keep(happened(f"{end} failed: status 503", EventKind.ENDPOINT_FAILED, 420, **about))


def flow(worker: Worker, number: int) -> None:
    """Let some traffic go through."""
    busy = 400 - 25 * (number % 4)
    worker.traffic = {
        VirtualKey(f"10.112.0.{n}", 80, Transport.TCP): TrafficCounters(
            number * 6 * (n + 1), number * 6_000 * (n + 1), number * 60_000 * (n + 1)
        )
        for n in range(4)
    }
    worker.connections = {
        (key, RealKey(f"10.2.0.{n}", e + 1)): busy // 4 + e for n, key in enumerate(worker.traffic) for e in range(4)
    }


async def take(picture: Picture) -> None:
    """Take one picture."""
    with tempfile.TemporaryDirectory() as directory:
        worker = shop(Path(directory))
        remember(worker)
        async with worker.running() as feed, launched() as browser:
            context = await browser.new_context(color_scheme=picture.scheme)
            page = await context.new_page()
            await page.set_viewport_size({"width": picture.width, "height": 780 if picture.width < 500 else 1000})
            await page.goto(worker.link)
            await page.get_by_label("Kept by").select_option("all workers")
            await expect(page.locator("#events-shown")).to_have_text("5 events; 2 of 2 workers have answered")
            await page.get_by_role("button", name="service-1.test").click()
            for number in range(ROUNDS):
                flow(worker, number)
                feed.changed()
                await asyncio.sleep(0.6)
            if not picture.whole:
                top = page.locator(".details h3" if picture.width < 500 else "header").first
                await top.evaluate("(node) => node.scrollIntoView()")
            await page.mouse.move(1, 1)
            await page.evaluate("document.activeElement.blur()")
            await page.screenshot(path=DOCS / f"{picture.name}.png", full_page=picture.whole)
            await context.close()


async def main() -> None:
    """Take all pictures."""
    for picture in PICTURES:
        await take(picture)


if __name__ == "__main__":
    asyncio.run(main())
