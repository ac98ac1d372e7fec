"""What the page is asked: which services match, in which order, at which address, and what happened."""

import re
from dataclasses import replace

import pytest
from playwright.async_api import Page, expect

from mesh.cluster.worker_directory import RegisteredWorker
from mesh.control.planner import make_plan
from mesh.model.past_event import EventKind
from mesh.model.service import PortPublication, Transport
from mesh.model.table import RealKey, VirtualKey
from tests.api.http.worker import TOKEN
from tests.api.page.browser import Worker, failed, happened, observed

NAMES = "#service-table > tbody .service th"


async def test_what_is_wrong_comes_first_with_its_code_and_a_link(page: Page, worker: Worker) -> None:
    worker.observed = failed(failed(observed(3, 1), 2, "status 503"), 1, "refused")
    async with worker.running():
        await page.goto(worker.link)
        assert await page.locator("main section h2").first.text_content() == "What is wrong"
        first = page.locator("#problems li").first
        await expect(first).to_have_text(
            "error service service-1.test has no endpoint that serves (10.2.0.1:1 on w1: refused) VM784 service"
        )
        await expect(page.locator(NAMES)).to_have_text(["service-1.test", "service-2.test", "service-0.test"])
        await first.get_by_role("link", name="VM784").click()
        dialog = page.get_by_role("dialog")
        title = "VM784: A service got its VIP, its first endpoint, or lost its last one"
        await expect(dialog.get_by_role("heading")).to_have_text(title)
        await expect(dialog).to_contain_text("Clients of a service without a serving endpoint are refused")
        await dialog.get_by_role("button", name="Close").click()
        await expect(dialog).to_be_hidden()
        await (
            first.get_by_role("link", name="service service-1.test")
            .or_(first.get_by_text("service", exact=True))
            .click()
        )
        await expect(page.locator("#alone")).to_be_visible()
        await expect(page.locator(NAMES)).to_have_text(["service-1.test"])


@pytest.mark.parametrize("code", ["VM000", "__proto__", "<b>x</b>", "%"])
async def test_an_address_with_an_unknown_code_does_no_harm(page: Page, worker: Worker, code: str) -> None:
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#connection")).to_have_text("live")
        await page.evaluate("(code) => { location.hash = `code=${code}`; }", code)
        if code == "%":
            await expect(page.get_by_role("dialog")).to_be_hidden()
        else:
            await expect(page.get_by_role("dialog")).to_contain_text("This worker knows no such code.")


async def test_one_address_per_service(page: Page, worker: Worker) -> None:
    worker.observed = observed(60, 1)
    worker.keep(happened("it failed", owner="demo/59"))
    async with worker.running() as feed:
        await page.goto(worker.link)
        await expect(page.locator("#shown")).to_have_text("60 services, the first 25 are shown")
        await page.goto(f"{worker.url}#service=demo%2F59")
        button = page.get_by_role("button", name="service-59.test")
        await expect(button).to_have_attribute("aria-expanded", "true")
        await expect(button).to_be_focused()
        await expect(page).to_have_title("service-59.test - w1 - vipmesh")
        await expect(page.locator("#shown")).to_have_text("1 of 60 services")
        await expect(page.locator(".details")).to_contain_text("it failed")
        await page.reload()
        await expect(button).to_have_attribute("aria-expanded", "true")
        worker.observed = observed(2, 1)
        feed.changed()
        await expect(page.locator("#alone")).to_contain_text("No service is declared by demo/59 now.")
        await page.get_by_role("link", name="All services").click()
        await expect(page.locator("#shown")).to_have_text("2 services")
        await expect(page.locator("#services")).to_be_focused()
        await page.go_back()
        await expect(page.locator("#alone")).to_be_visible()


async def test_a_search_counts_its_matches(page: Page, worker: Worker) -> None:
    worker.observed = observed(60, 2)
    async with worker.running():
        await page.goto(worker.link)
        search = page.get_by_label("Filter", exact=True)
        await search.fill("SERVICE-1 w2")
        await expect(page.locator("#shown")).to_have_text("11 of 60 services match")
        await expect(page.locator(NAMES)).to_have_count(11)
        await search.fill("test")
        await expect(page.locator("#shown")).to_have_text("60 of 60 services match, the first 25 are shown")
        await page.get_by_role("button", name="Show more").first.click()
        await expect(page.locator("#shown")).to_have_text("60 of 60 services match")
        await search.fill("")
        await expect(page.locator("#shown")).to_have_text("60 services")


async def test_columns_sort_in_both_directions(page: Page, worker: Worker) -> None:
    worker.observed = failed(observed(12, 1), 3, "refused")
    worker.connections = {
        (VirtualKey(f"10.112.0.{n}", 80, Transport.TCP), RealKey(f"10.2.0.{n}", 1)): n for n in (2, 5, 7)
    }
    async with worker.running():
        await page.goto(worker.link)
        names = page.locator(NAMES)
        await expect(names.first).to_have_text("service-3.test")
        header = page.get_by_role("columnheader")
        await expect(header.nth(2)).to_have_attribute("aria-sort", "ascending")
        await page.get_by_role("button", name="Connections").click()
        await expect(header.nth(3)).to_have_attribute("aria-sort", "descending")
        await expect(names.nth(0)).to_have_text("service-7.test")
        await expect(names.nth(1)).to_have_text("service-5.test")
        await page.get_by_role("button", name="VIP").click()
        await expect(names.nth(10)).to_have_text("service-10.test")
        await page.get_by_role("button", name="VIP").click()
        await expect(header.nth(1)).to_have_attribute("aria-sort", "descending")
        await expect(names.first).to_have_text("service-11.test")
        await page.get_by_role("button", name="Service", exact=True).click()
        await expect(names.nth(2)).to_have_text("service-10.test")


async def test_a_worker_filters_the_services(page: Page, worker: Worker) -> None:
    assert worker.observed.view is not None
    ends = worker.observed.view.endpoints
    view = replace(worker.observed.view, endpoints=(replace(ends[0], worker="w3"), *ends[1:]))
    worker.observed = replace(worker.observed, view=view, instances=None, probed={}, plan=make_plan(view, {}))
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#workers th")).to_have_text(["w1 (this one)", "w2", "w3"])
        await page.get_by_role("link", name="w3", exact=True).click()
        await expect(page.locator("#shown")).to_have_text("1 of 3 services match")
        await expect(page.get_by_label("Worker", exact=True)).to_have_value("w3")
        await expect(page.locator("#services")).to_be_focused()
        await page.get_by_label("Worker", exact=True).select_option("all")
        await expect(page.locator("#shown")).to_have_text("3 services")
        assert page.url == worker.url


async def test_workers_without_endpoints_are_there_too(page: Page, worker: Worker) -> None:
    names = {name: RegisteredWorker() for name in ("w1", "w2", "spare")}
    worker.observed = replace(worker.observed, registered=names)
    async with worker.running() as feed:
        await page.goto(worker.link)
        await expect(page.locator("#workers tr")).to_have_text(["spare000", "w1 (this one)333", "w2333"])
        worker.observed = replace(worker.observed, registered={**names, "later": RegisteredWorker()})
        worker.keep(happened("worker later came", EventKind.WORKER_CAME, ago=0), feed)
        await expect(page.locator("#workers th")).to_have_text(["later", "spare", "w1 (this one)", "w2"])
        await page.get_by_role("link", name="spare", exact=True).click()
        await expect(page.locator("#shown")).to_have_text("0 of 3 services match")


async def test_events_are_a_list_and_marks_on_the_plots(page: Page, worker: Worker) -> None:
    worker.passed(30, "demo/1", 100)
    worker.keep(happened("daemon of w1 started", EventKind.DAEMON_STARTED, ago=1500))
    worker.keep(happened("endpoint web-1 of service-1.test failed", ago=600, owner="demo/1", service="service-1.test"))
    worker.keep(happened("endpoint web-1 is healthy", EventKind.ENDPOINT_HEALTHY, ago=500, owner="demo/1"))
    async with worker.running() as feed:
        await page.goto(worker.link)
        items = page.locator("#happened li")
        await expect(items).to_have_count(3)
        await expect(items.first).to_contain_text("endpoint web-1 is healthy VM781")
        await expect(items.nth(1).locator(".bad")).to_have_text("endpoint web-1 of service-1.test failed")
        plots = page.locator("#figures figure").first
        await expect(plots.locator(".plot-mark.bad")).to_have_attribute("d", re.compile(r"^M(298|299|300),0V40$"))
        await expect(plots.locator(".plot-mark.good")).to_have_attribute("d", re.compile(r"^M(308|309|310),0V40$"))
        worker.keep(happened("service-2.test lost its last endpoint", EventKind.SERVICE_EMPTY, ago=0), feed)
        await expect(items.first).to_contain_text("service-2.test lost its last endpoint")
        await expect(items).to_have_count(4)
        await page.get_by_label("Filter events").fill("healthy")
        await expect(page.locator("#events-shown")).to_have_text("1 of 4 events match")
        await page.get_by_role("button", name="service-1.test").click()
        await expect(page.locator(".details ol li")).to_have_count(2)
        own = page.locator(".details .plot-mark.bad").first
        await expect(own).to_have_attribute("d", re.compile(r"^M\d+,0V40$"))


async def test_the_diagram_has_workers_and_published_ports(page: Page, worker: Worker) -> None:
    assert worker.observed.view is not None
    view = worker.observed.view
    first, second, third = view.services
    services = (first, replace(second, publishes=(PortPublication(80, Transport.TCP, 30080),)), third)
    claims = replace(view.claims, ports={(Transport.TCP, 30080): ("service-1.test", 80)})
    view = replace(view, services=services, claims=claims)
    worker.observed = replace(worker.observed, view=view, plan=make_plan(view, view.health))
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name="service-1.test").click()
        boxes = page.locator(".way text:not(.small)")
        await expect(boxes).to_have_text(
            [
                "service-1.test",
                "addresses of w1",
                "tcp://10.112.0.1:80",
                "port 30080/tcp",
                "w2",
                "w1",
                "10.2.0.1:2",
                "10.2.0.1:1",
            ]
        )
        await expect(page.locator(".way .small").filter(has_text="this worker")).to_have_count(1)
        label = "So does one to port 30080/tcp of w1."
        await expect(page.get_by_role("img")).to_have_accessible_name(re.compile(re.escape(label)))
        await expect(page.locator(".details dl")).to_contain_text("30080/tcp")
        await page.get_by_label("Filter", exact=True).fill("30080")
        await expect(page.locator("#shown")).to_have_text("1 of 3 services match")


async def test_the_token_is_in_no_url_that_is_requested_or_kept(page: Page, worker: Worker) -> None:
    """A log, a referrer and the history of the browser keep URLs."""
    asked: list[tuple[str, str | None]] = []
    page.on("request", lambda request: asked.append((request.url, request.headers.get("referer"))))
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name="service-0.test").click()
        await expect(page.locator(".details .way")).to_be_visible()
        await page.reload()
        await expect(page.locator("#connection")).to_have_text("live")
        assert page.url == worker.url
    assert {url.removeprefix(worker.url).partition("?")[0] for url, _ in asked} >= {"v1/events", "v1/history"}
    # The browser keeps what is behind the # of a navigation to itself.
    assert not [url for url, referrer in asked if TOKEN in url.partition("#")[0] or TOKEN in (referrer or "")]
    kept = await page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name).join()")
    assert TOKEN not in kept
    assert await page.evaluate("history.length") <= 2


async def test_a_link_with_a_broken_token_asks_for_it(page: Page, worker: Worker) -> None:
    async with worker.running():
        await page.goto(f"{worker.url}#token=%E0%A4%A")
        await expect(page.get_by_label("Token", exact=True)).to_be_focused()
        assert page.url == worker.url
