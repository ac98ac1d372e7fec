"""The log lines of a service on the page: the newest ones, a search, lines per second, and hostile text."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.api.page.axe import violations
from tests.api.page.browser import Complaints, Worker, happened


async def test_lines_a_search_and_lines_per_second_with_events(page: Page, worker: Worker) -> None:
    for second in range(300, 0, -1):
        worker.write(f"request {second}", second)
    worker.write("of another service", 1, "demo/2")
    worker.keep(happened("service-1.test lost an endpoint", owner="demo/1", service="service-1.test"))
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#shown")).to_have_text("3 services")
        assert worker.logs.asked == [], "nothing is asked for before somebody wants to see it"
        await page.get_by_role("button", name="service-1.test").click()
        await page.get_by_role("button", name="Show log lines").click()
        box = page.get_by_role("region", name="Newest log lines")
        await expect(box.locator("li")).to_have_count(200)
        await expect(box.locator("li").last).to_contain_text("w1/web1 request 1")
        await expect(box).not_to_contain_text("of another service")
        figure = page.locator("figure", has_text="Lines per second")
        await expect(figure.locator(".range")).to_have_text(re.compile(r"^0 to 1(\.[01])? in 1 h$"))
        await expect(figure.locator(".plot-mark.bad")).to_have_attribute("d", re.compile("^M"))
        await page.get_by_label("Only lines that contain").fill("request 29")
        await expect(box.locator("li")).to_have_count(11)
        await page.get_by_label("Only lines that contain").fill(".*")
        await expect(page.get_by_text("No lines that match")).to_be_visible()
        await page.get_by_label("Only lines that contain").fill("")
        worker.write("a new line", 0)
        await expect(box.locator("li").last).to_contain_text("a new line")
        await page.get_by_role("button", name="Hide log lines").click()
        await expect(box).to_be_hidden()


async def test_why_there_are_no_lines_is_said_and_hostile_lines_are_text(
    page: Page, worker: Worker, complaints: Complaints
) -> None:
    worker.write("<img src=x onerror=alert(1)>\u202e\x1b[2J", 5)
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name="service-1.test").click()
        await page.get_by_role("button", name="Show log lines").click()
        box = page.get_by_role("region", name="Newest log lines")
        await expect(box.locator("li")).to_contain_text("<img src=x onerror=alert(1)>\ufffd\ufffd[2J")
        assert await page.locator(".lines img").count() == 0
        worker.logs.lines.clear()
        await expect(page.get_by_text("No lines: no worker has")).to_be_visible()
        assert complaints.found, "the browser itself says of the refusal"
        complaints.found = [each for each in complaints.found if "status of 404" not in each]


@pytest.mark.timeout(240)  # once the installation of axe-core
@pytest.mark.parametrize("width", [360, 1200])
async def test_axe_finds_nothing_among_lines_and_nothing_is_beside_the_window(
    page: Page, worker: Worker, axe: str, width: int
) -> None:
    for second in range(60, 0, -1):
        worker.write(f"a line without spaces {'x' * 300} {second}", second)
    await page.set_viewport_size({"width": width, "height": 800})
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name="service-1.test").click()
        await page.get_by_role("button", name="Show log lines").click()
        await expect(page.locator(".lines li")).to_have_count(60)
        assert await violations(page, axe) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
