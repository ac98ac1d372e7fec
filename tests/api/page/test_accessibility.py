"""The page under axe-core, on a phone, and by keyboard alone."""

from dataclasses import replace
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, expect

from mesh.control.planner import make_plan
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.past_event import EventKind
from mesh.model.service import Endpoint
from mesh.model.view import ClusterView
from tests.api.metrics.test_families import problem
from tests.api.page.axe import violations
from tests.api.page.browser import Complaints, Rings, Worker, failed, happened, observed
from tests.api.page.test_stacks import DRIFTED, STUCK, ShownStacks, row
from tests.builders import service

Scheme = Literal["light", "dark"]
PHONE, DESK = 360, 1200


def busy(worker: Worker) -> None:
    """Let everything be on the page: problems of each kind, events, services in each state."""
    worker.observed = replace(
        failed(observed(4, 3), 1, "status 503"),
        problems={"labels": (problem("10.9.9.9 is outside of the pool"),)},
        failures=(CodedText("add virtual server: no memory", Code.OPERATION_REFUSED),),
        frozen={"store": CodedText("etcd does not answer", Code.STORE_UNREACHABLE)},
        repairs=2,
    )
    worker.passed(30, "demo/1", 100)
    for kind in EventKind:
        worker.keep(happened(f"something of kind {kind}", kind, owner="demo/1", service="service-1.test"))
    worker.stacks = ShownStacks(row(), STUCK, DRIFTED)
    worker.channel = Rings("w2", "w3")
    worker.channel.kept["w2"] = [happened("service-1.test lost its last endpoint", EventKind.SERVICE_EMPTY)]


@pytest.mark.timeout(240)  # five looks of axe-core, and once its installation
@pytest.mark.parametrize("look", [("light", DESK), ("light", PHONE), ("dark", DESK), ("dark", PHONE)])
async def test_axe_finds_nothing(
    browser: Browser, worker: Worker, complaints: Complaints, axe: str, look: tuple[Scheme, int]
) -> None:
    scheme, width = look
    busy(worker)
    context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = await context.new_page()
    complaints.listen(page)
    async with worker.running():
        await page.goto(worker.url)
        await expect(page.get_by_label("Token", exact=True)).to_be_focused()
        assert await violations(page, axe) == [], "the sign-in"
        await page.goto("about:blank")
        await page.goto(worker.link)
        await expect(page.locator("#events-shown")).to_contain_text(f"{len(EventKind)} events")
        await page.get_by_role("button", name="service-1.test").click()
        await expect(page.locator(".details .range").first).to_contain_text(" in ")
        assert await violations(page, axe) == []
        await page.get_by_label("Kept by").select_option("all workers")
        await expect(page.locator("#event-notes")).to_contain_text("Without the events of w3")
        assert await violations(page, axe) == [], "events of all workers"
        await page.get_by_role("link", name="VM781").first.click()
        await expect(page.get_by_role("dialog")).to_contain_text("The health of an endpoint changed")
        assert await violations(page, axe) == [], "a code"
        await page.keyboard.press("Escape")
    await expect(page.locator("#problems")).to_contain_text("This page is not connected")
    assert await violations(page, axe) == [], "without a connection"
    await context.close()
    assert complaints.found == []


LONG = ".".join(["n" * 63, "m" * 63, "test"])


def long_names(worker: Worker) -> None:
    """Let names have 63 characters in each label, and addresses be of IPv6."""
    declared = tuple(service(f"{n}{LONG}", owner=f"{'p' * 63}/{'s' * 60}-{n}") for n in range(2))
    address = "2001:db8:1234:5678:9abc:def0:1234:{:x}"
    ends = tuple(
        Endpoint(
            f"docker/{'0' * 63}{n}", s.owner, "w" * 63, address.format(n), 65535, 1, name="c" * 63, release="r" * 63
        )
        for n, s in enumerate(declared)
    )
    vips = {s.name: f"fd00:1234:5678:9abc:def0:1234:5678:{n:x}" for n, s in enumerate(declared)}
    view = ClusterView(declared, ends, Claims(vips, {s.name: s.owner for s in declared}))
    worker.observed = replace(
        observed(),
        view=view,
        instances=None,
        probed={},
        plan=make_plan(view, {}),
        problems={"labels": (problem("x" * 200),)},
    )
    worker.keep(happened("y" * 250, owner=declared[0].owner, service=declared[0].name))
    worker.channel = Rings("w" * 63, "v" * 63)
    worker.channel.kept["w" * 63] = [happened("z" * 250, owner=declared[0].owner, service=declared[0].name)]


@pytest.mark.parametrize("width", [320, PHONE])
async def test_nothing_is_beside_a_narrow_window(browser: Browser, worker: Worker, width: int) -> None:
    long_names(worker)
    context = await browser.new_context(viewport={"width": width, "height": 640}, has_touch=True, is_mobile=True)
    page = await context.new_page()
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name=f"0{LONG}").tap()
        await expect(page.locator(".details .way")).to_be_visible()
        await expect(page.locator("#events-shown")).to_have_text("1 event")
        await page.get_by_label("Kept by").select_option("all workers")
        await expect(page.locator("#events-shown")).to_have_text("2 events; 2 of 3 workers have answered")
        wide = """() => [...document.querySelectorAll("body *")]
            .filter((node) => !node.closest(".skip, .unseen, svg, thead") && node.getClientRects().length > 0)
            .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
            .map((node) => `${node.tagName} ${node.className} ${node.textContent.slice(0, 30)}`)"""
        assert await page.evaluate(wide) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await page.evaluate("innerWidth") == width, "the browser has not zoomed out"
        letters = await page.locator(".way text").first.evaluate("(node) => node.getBoundingClientRect().height")
        assert letters > 9, "the diagram can be read"
    await context.close()


async def test_every_control_is_reached_by_tab_and_nothing_holds_it(page: Page, worker: Worker) -> None:
    busy(worker)
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name="service-1.test").click()
        await expect(page.locator("#events-shown")).to_contain_text(f"{len(EventKind)} events")
        await page.evaluate("document.activeElement.blur(); getSelection().empty(); document.body.focus()")
        controls = """() => [...document.querySelectorAll("a[href], button, input, select")]
            .filter((node) => node.getClientRects().length > 0 || node.matches(".skip")).length"""
        wanted = await page.evaluate(controls)
        seen = """() => {
            const node = document.activeElement;
            if (node === document.body) return null;
            node.dataset.seen = "";
            return getComputedStyle(node).outlineStyle;
        }"""
        outlines = []
        for _ in range(wanted + 1):
            await page.keyboard.press("Tab")
            outlines.append(await page.evaluate(seen))
        assert await page.evaluate("document.querySelectorAll('[data-seen]').length") == wanted
        assert set(outlines) <= {"solid", None}, "one sees where one is"


async def test_escape_leads_out_of_everything(page: Page, worker: Worker) -> None:
    busy(worker)
    async with worker.running():
        await page.goto(f"{worker.url}#token={worker.link.partition('token=')[2]}")
        button = page.get_by_role("button", name="service-1.test")
        await button.press("Enter")
        link = page.locator("#problems").get_by_role("link", name="VM781")
        await link.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(link).to_be_focused()
        assert page.url == worker.url
        address = page.locator(".details").get_by_role("link", name="Address of this service")
        await address.press("Enter")
        await expect(page.locator("#alone")).to_be_visible()
        await expect(button).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.locator("#alone")).to_be_hidden()
        await expect(page.locator("#shown")).to_have_text("4 services")
        await address.focus()
        await page.keyboard.press("Escape")
        await expect(button).to_be_focused()
        await expect(button).to_have_attribute("aria-expanded", "false")
        await page.get_by_label("Filter", exact=True).fill("nothing")
        await page.get_by_label("Filter", exact=True).press("Escape")
        await expect(page.locator("#shown")).to_have_text("4 services")


async def test_changes_are_announced_in_one_sentence_and_not_each(page: Page, worker: Worker) -> None:
    worker.observed = observed(40, 2)
    async with worker.running() as feed:
        await page.goto(worker.link)
        await expect(page.locator("#shown")).to_have_text("40 services, the first 25 are shown")
        await page.evaluate(
            """() => {
                window.said = [];
                for (const node of document.querySelectorAll("[role=status], [role=alert], [aria-live]"))
                    new MutationObserver(() => said.push(node.textContent))
                        .observe(node, { subtree: true, childList: true, characterData: true });
            }"""
        )
        for number in range(40):
            worker.observed = failed(worker.observed, number, "refused")
        feed.changed()
        await expect(page.locator("#announcements")).to_have_text("What is wrong: 0 errors, 40 warnings")
        for number in range(40):
            worker.keep(happened(f"event {number}"), feed)
        await expect(page.locator("#events-shown")).to_have_text("40 events, the first 25 are shown")
        assert await page.evaluate("said") == ["What is wrong: 0 errors, 40 warnings"]
        await page.get_by_label("Filter", exact=True).fill("service-1")
        await expect(page.locator("#announcements")).to_have_text("11 of 40 services match")
