"""Accessibility of the page: by keyboard, with a screen reader, and in dark mode."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.api.page.browser import Complaints, Worker, failed
from tests.system.e2e.programs import eventually

CONTRAST = """() => {
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const behind = (node) => {
        for (; node !== null; node = node.parentElement) {
            const found = numbers(getComputedStyle(node).backgroundColor);
            if (found.length === 3 || found[3] === 1) return found;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim() !== "");
        if (!own || node.closest(".skip, noscript, title") || node.getClientRects().length === 0) continue;
        const style = getComputedStyle(node);
        const ink = numbers(node instanceof SVGElement ? style.fill : style.color);
        const [one, other] = [light(ink), light(behind(node))];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        found.push([ratio, `${node.tagName} ${node.textContent}`.slice(0, 60)]);
    }
    return found;
}"""
"""The contrast of each text with what is behind it: WCAG 2.2, relative luminance."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_has_enough_contrast(
    browser: Browser, worker: Worker, complaints: Complaints, scheme: Any
) -> None:
    worker.observed = failed(worker.observed, 1, "status 503")
    context = await browser.new_context(color_scheme=scheme)
    page = await context.new_page()
    complaints.listen(page)
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name="service-1.test").click()
        await expect(page.locator(".way")).to_be_visible()
        found = await page.evaluate(CONTRAST)
        assert len(found) > 40
        assert not [(text, round(ratio, 2)) for ratio, text in found if ratio < 4.5], "WCAG 2.2, 1.4.3"
        back = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(247, 248, 250)", "dark": "rgb(18, 21, 27)"}[scheme]
    await context.close()
    assert complaints.found == []


async def test_everything_is_reachable_by_keyboard(page: Page, worker: Worker) -> None:
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#shown")).to_have_text("3 services")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the services")).to_be_focused()
        await expect(page.get_by_role("link", name="Skip to the services")).to_be_in_viewport()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Filter", exact=True)).to_be_focused()
        await page.keyboard.type("service-2")
        await expect(page.locator("#shown")).to_have_text("1 of 3 services match")
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Worker", exact=True)).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("only with problems")).to_be_focused()
        await page.keyboard.press("Space")
        await expect(page.locator("#shown")).to_have_text("0 of 3 services match")
        await page.keyboard.press("Space")
        await expect(page.locator("#shown")).to_have_text("1 of 3 services match")
        for column in ("Service", "VIP", "Serving endpoints", "Connections", "New/s"):
            await page.keyboard.press("Tab")
            await expect(
                page.get_by_role("columnheader").get_by_role("button", name=column, exact=True)
            ).to_be_focused()
        await page.keyboard.press("Tab")
        button = page.get_by_role("button", name="service-2.test")
        await expect(button).to_be_focused()
        outline = await button.evaluate("(node) => getComputedStyle(node).outlineStyle")
        assert outline == "solid", "one sees where one is"
        for key, expanded in (("Enter", "true"), ("Space", "false"), ("Space", "true")):
            await page.keyboard.press(key)
            await expect(button).to_have_attribute("aria-expanded", expanded)
        details = page.locator(f"#{await button.get_attribute('aria-controls')}")
        await expect(details).to_be_visible()


async def test_a_screen_reader_finds_its_way(page: Page, worker: Worker) -> None:
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name="service-0.test").click()
        assert await page.evaluate("document.documentElement.lang") == "en"
        for name in ("What is wrong", "Traffic", "Services", "Events", "Workers"):
            await expect(page.get_by_role("region", name=name)).to_be_visible()
        await expect(page.get_by_role("status").first).to_have_text("live")
        for name in ("Service", "VIP", "Serving endpoints", "Connections"):
            await expect(page.get_by_role("columnheader", name=name, exact=True).first).to_be_visible()
        await expect(page.get_by_role("rowheader", name="service-0.test")).to_be_visible()
        await expect(page.get_by_role("figure", name="Connections").first).to_be_visible()
        await expect(page.get_by_role("img")).to_have_accessible_name(
            "A request for service-0.test at 10.112.0.0 goes to 10.2.0.0:2 on w2, 67 % of new connections; "
            "10.2.0.0:1 on w1, 33 % of new connections."
        )
        nameless = """[...document.querySelectorAll("button, input:not([hidden]), a")]
            .filter((node) => node.getClientRects().length > 0)
            .filter((node) => !(node.textContent.trim() || (node.labels && node.labels.length > 0)))
            .map((node) => node.outerHTML)"""
        assert await page.evaluate(nameless) == []
        levels = await page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((node) => node.tagName)")
        assert levels[0] == "H1"
        assert levels.count("H1") == 1


async def test_an_update_without_changes_is_not_announced_again(page: Page, worker: Worker) -> None:
    async with worker.running() as feed:
        await page.goto(worker.link)
        await expect(page.locator("#shown")).to_have_text("3 services")
        watch = """() => {
            window.changes = [];
            const note = (all) => window.changes.push(...all.map((one) => one.target.id || one.target.tagName));
            const observer = new MutationObserver(note);
            const watched = "[role=status], [role=alert], #service-table, #problems, #happened, #workers";
            for (const node of document.querySelectorAll(watched))
                observer.observe(node, { subtree: true, childList: true, characterData: true, attributes: true });
        }"""
        await page.evaluate(watch)
        seen = worker.looks
        feed.changed()
        await eventually(lambda: asyncio.sleep(0, worker.looks), lambda looks: looks >= seen + 3)
        assert await page.evaluate("window.changes") == []
