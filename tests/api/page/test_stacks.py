"""The page shows what runs of stacks: as text, whatever it contains, and only where there is something."""

from collections.abc import Sequence

import pytest
from playwright.async_api import Page, expect

from mesh.model.errors import MeshError
from mesh.platform.fleet.errors import FleetUnavailableError
from mesh.platform.stacks.applier import StackOutcome
from mesh.platform.stacks.operations import ScaleRequest
from mesh.platform.stacks.rows import DeployRow, ReleaseRow
from tests.api.page.axe import violations
from tests.api.page.browser import Worker
from tests.api.page.test_hostile import ATTACKS, BAD_NEWS


class ShownStacks:
    """Stacks that a test writes."""

    def __init__(self, *rows: ReleaseRow) -> None:
        self.rows = rows
        self.error: MeshError | None = None

    async def list(self) -> Sequence[ReleaseRow]:
        """Return the rows."""
        if self.error is not None:
            raise self.error
        return self.rows

    async def scale(self, request: ScaleRequest, by: str) -> StackOutcome:
        """Do nothing."""
        raise NotImplementedError

    async def history(self, project: str) -> Sequence[DeployRow]:
        """Do nothing."""
        raise NotImplementedError


def row(
    service: str = "demo/0",
    release: str = "r1",
    desired: int | None = 3,
    running: int = 3,
    *,
    pending: tuple[str, ...] = (),
    outside: tuple[str, ...] = (),
) -> ReleaseRow:
    workers = {"w1": running} if running else {}
    return ReleaseRow(service, release, "web:1", desired, running, running, pending, workers, outside, "demo", running)


STUCK = row("demo/1", "r2", 2, 0, pending=("pending: no suitable node (insufficient resources on 3 nodes)",))
DRIFTED = row("demo/2", "", None, 2, outside=("field TaskTemplate.Runtime",))


async def test_the_table_of_stacks(page: Page, worker: Worker, axe: str) -> None:
    worker.stacks = ShownStacks(row(), STUCK, DRIFTED)
    async with worker.running():
        await page.goto(worker.link)
        rows = page.locator("#stack-rows tr")
        await expect(rows).to_have_text(
            [
                "demo/0r1333w1 3-",
                "demo/1r2200-pending: no suitable node (insufficient resources on 3 nodes)",
                "demo/2-each worker22w1 2changed outside vipmesh: field TaskTemplate.Runtime",
            ]
        )
        await expect(page.locator("#stacks-note")).to_have_text("3 releases, as the engine of w1 has them.")
        await expect(rows.nth(0).locator("a")).to_have_attribute("href", "#service=demo%2F0")
        assert await violations(page, axe) == []
        await page.set_viewport_size({"width": 360, "height": 800})
        await expect(rows.nth(1).locator("td").first).to_be_visible()
        assert await violations(page, axe) == [], "on a phone"


async def look_again(page: Page) -> None:
    """Let the page ask as it does when somebody comes back to it."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def test_the_table_follows_and_stays_if_nobody_knows(page: Page, worker: Worker) -> None:
    worker.stacks = shown = ShownStacks()
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#workers tr")).to_have_count(2)
        await expect(page.locator("#stacks")).to_be_hidden()
        shown.rows = (row(running=1),)
        await look_again(page)
        await expect(page.locator("#stack-rows td.warn")).to_have_text("1")
        shown.error = FleetUnavailableError("the swarm does not have a leader")
        await look_again(page)
        await expect(page.locator("#stacks-note")).to_contain_text("This is how it was; it is not known now")
        await expect(page.locator("#stacks-note")).to_contain_text("the swarm does not have a leader")
        await expect(page.locator("#stack-rows tr")).to_have_count(1)
        shown.error, shown.rows = None, ()
        await look_again(page)
        await expect(page.locator("#stacks")).to_be_hidden()


@pytest.mark.parametrize("text", [ATTACKS[0], ATTACKS[3], BAD_NEWS])
async def test_hostile_text_of_a_stack_is_shown_and_not_executed(page: Page, worker: Worker, text: str) -> None:
    hostile = ReleaseRow(text, text, text, 1, 0, None, (text, text), {text: 1}, (text,), text, None)
    worker.stacks = ShownStacks(hostile)
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#stack-rows tr")).to_have_count(1)
        await expect(page.locator("#stack-rows li")).to_have_count(3)
        made = "body => body.querySelectorAll('img, script, svg, h1, iframe').length"
        assert await page.locator("#stack-rows").evaluate(made) == 0
        assert "\u202e" not in await page.locator("#stack-rows").inner_text()
        assert "hacked" not in await page.title()
        assert await page.locator("h1").count() == 1


async def test_only_so_many_rows_are_shown(page: Page, worker: Worker) -> None:
    worker.stacks = ShownStacks(*(row(f"demo/{n}") for n in range(600)))
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#stacks-note")).to_contain_text("600 releases, of which the first 500 are shown")
        await expect(page.locator("#stack-rows tr")).to_have_count(500)
