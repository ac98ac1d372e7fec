"""The page in a real browser: what it shows, how it updates, and that its scroll position stays."""

import re
from dataclasses import replace

from playwright.async_api import Page, expect

from mesh.control.arrival import (
    ArrivalCheck,
    ArrivalObservation,
    ArrivalPair,
    Arrivals,
    add_observations,
    arrival_problems,
)
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.service import Transport
from mesh.model.table import RealKey, TrafficCounters, VirtualKey
from tests.api.http.worker import TOKEN
from tests.api.metrics.test_families import problem
from tests.api.page.browser import Worker, failed, observed

WEB = VirtualKey("10.112.0.1", 80, Transport.TCP)


async def test_it_asks_for_the_token_and_accepts_it_by_keyboard(page: Page, worker: Worker) -> None:
    async with worker.running():
        await page.goto(worker.url)
        await expect(page.locator("#connection")).to_have_text("token required")
        await expect(page.get_by_label("Token", exact=True)).to_be_focused()
        await page.keyboard.type("not the token at all")
        await page.keyboard.press("Enter")
        await expect(page.locator("#door-error")).to_have_text("That is not the token of this worker.")
        await expect(page.get_by_role("heading", name="Services")).to_be_hidden()
        await page.keyboard.type(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.locator("#connection")).to_have_text("live")
        await expect(page.get_by_role("button", name="service-0.test")).to_be_visible()


async def test_a_link_with_the_token_logs_in_and_leaves_no_trace(page: Page, worker: Worker) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#connection")).to_have_text("live")
        assert page.url == worker.url
    assert asked
    assert all(url.startswith(worker.url) for url in asked), "no other host is asked for anything"
    assert not any(TOKEN in url for url in asked if "#" not in url)


async def test_it_shows_the_state_of_the_worker(page: Page, worker: Worker) -> None:
    worker.observed = replace(
        failed(observed(), 1, "status 503"),
        problems={"labels": (problem("10.9.9.9 is outside of the pool"),)},
        failures=(CodedText("add virtual server: no memory", Code.OPERATION_REFUSED),),
        frozen={"store": CodedText("etcd does not answer", Code.STORE_UNREACHABLE)},
        repairs=2,
    )
    worker.connections = {(WEB, RealKey("10.2.0.1", 2)): 5}
    worker.traffic = {WEB: TrafficCounters(10)}
    async with worker.running():
        await page.goto(worker.link)
        await expect(page).to_have_title("w1 - vipmesh")
        await expect(page.locator("#about")).to_have_text(
            "version 1.2, data plane ipvs (this kernel has IPVS), DNS on 127.0.0.1:53"
        )
        row = page.locator("#service-table > tbody").first.locator("tr").first
        await expect(row).to_contain_text("service-1.test")  # what is wrong comes first
        await expect(row.locator("td")).to_have_text(["10.112.0.1", "1 of 2", "5", "0"])
        await expect(page.locator("#problems li")).to_have_text(
            [
                "error Frozen, the last good state stays in force: etcd does not answer VM401",
                "error The data plane refuses: add virtual server: no memory VM506",
                "error service a: 10.9.9.9 is outside of the pool; mend it VM101",
                "warning service service-1.test: 1 of 2 endpoints fail (10.2.0.1:1 on w1: status 503) VM781 service",
                "warning 2 changes from outside vipmesh were reverted; see the log. VM508",
            ]
        )
        await expect(page.locator("#workers tr")).to_have_text(["w1 (this one)332", "w2333"])
        await expect(page.locator("figure").nth(2).locator(".value")).to_have_text("5")

        await page.get_by_role("button", name="service-1.test").click()
        image = page.get_by_role("img")
        await expect(image).to_have_accessible_name(
            "A request for service-1.test at 10.112.0.1 goes to 10.2.0.1:2 on w2, 100 % of new connections. "
            "Not to 10.2.0.1:1 on w1, unhealthy: status 503."
        )
        await expect(image.locator("path.link.out")).to_have_count(2)  # to w1, and from it to its only endpoint
        endpoints = page.locator(".details table tbody tr")
        await expect(endpoints).to_have_text(
            ["demo/1/0w110.2.0.1:1unhealthy1-status 5030", "demo/1/1w210.2.0.1:2serving2--5"]
        )


async def test_it_says_from_where_requests_do_not_arrive(page: Page, worker: Worker) -> None:
    assert worker.observed.view is not None
    owner = worker.observed.view.services[1].owner
    lost = ArrivalObservation(ArrivalPair(owner, "172.18.0.0/16"), ArrivalCheck.CONNTRACK, arrived=False)
    arrivals = add_observations(Arrivals(), [lost, lost], 1.0)
    worker.observed = replace(
        worker.observed, arrivals=arrivals, problems={"arrival": tuple(arrival_problems(arrivals))}
    )
    async with worker.running():
        await page.goto(worker.link)
        row = page.locator("#service-table > tbody").first.locator("tr").first
        await expect(row).to_contain_text("2 of 2: requests do not arrive")
        await expect(page.locator("#problems li").first).to_contain_text(
            "requests from the network 172.18.0.0/16 have not"
        )
        await page.get_by_role("button", name="service-1.test").click()
        image = page.get_by_role("img")
        await expect(image).to_have_accessible_name(
            re.compile(r"^Requests do not arrive from the network 172\.18\.0\.0/16\. A request .* should go to ")
        )
        await expect(image).to_contain_text("Requests do not arrive")


async def test_it_updates_and_keeps_the_scroll_position(page: Page, worker: Worker) -> None:
    async with worker.running() as feed:
        await page.goto(worker.link)
        button = page.get_by_role("button", name="service-1.test")
        await button.press("Enter")
        await expect(button).to_have_attribute("aria-expanded", "true")
        worker.observed = failed(worker.observed, 1, "refused")
        feed.changed()
        details = page.locator(".details:visible")
        await expect(details).to_contain_text("unhealthy")
        await expect(details).to_contain_text("refused")
        fewer = observed(2)
        assert fewer.view is not None
        view = replace(fewer.view, services=fewer.view.services[1:])
        worker.observed = replace(fewer, view=view)
        feed.changed()
        await expect(page.locator("#shown")).to_have_text("1 service")
        await expect(details).not_to_contain_text("unhealthy")
        await expect(button).to_be_focused()
        await expect(button).to_have_attribute("aria-expanded", "true")


async def test_it_plots_traffic(page: Page, worker: Worker) -> None:
    worker.passed(50, "demo/1", 200)
    worker.traffic = {WEB: TrafficCounters(1000, 10_000, 50_000)}
    async with worker.running() as feed:
        await page.goto(worker.link)
        await expect(page.locator("#shown")).to_have_text("3 services")
        connections = page.locator("figure", has_text="Connections").first
        await expect(connections.locator(".range")).to_have_text(re.compile("^[01] to 200 in (49|50|51) min$"))
        worker.traffic = {WEB: TrafficCounters(1050, 10_000, 4_050_000)}
        feed.changed()
        sent = page.locator("figure", has_text="To clients").first
        await expect(sent.locator(".value")).to_have_text(re.compile(r"^[\d.]+ [kM]B/s$"))
        line = sent.locator(".plot-line")
        await expect(line).to_have_attribute("d", re.compile("^M.+L.+"))
        row = page.locator("#service-table > tbody").nth(1).locator("tr").first
        await expect(row.locator("td").last).not_to_have_text("0")

        await page.get_by_role("button", name="service-1.test").click()
        own = page.locator(".details figure", has_text="Connections")
        await expect(own.locator(".range")).to_have_text(re.compile("^[01] to 200 in "))


async def test_it_shows_suspected_failures_and_kept_endpoints(page: Page, worker: Worker) -> None:
    worker.observed = failed(observed(1, 2), 0, "refused")
    key = ("w1", "demo/0/0")
    suspicion = CodedText("service demo/0: 2 of 2 endpoints fail", Code.MASS_FAILURE)
    told = replace(worker.observed.judged, kept=frozenset({key}), suspicions=(suspicion,))
    worker.observed = replace(worker.observed, judged=told)
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#problems")).to_contain_text("Suspected mass failure: service demo/0: 2 of 2")
        await page.get_by_role("button", name="service-0.test").click()
        first = page.locator(".details table tbody tr").first
        await expect(first).to_contain_text("serving: too many failed at once")


async def test_it_reports_a_lost_connection_and_reconnects(page: Page, worker: Worker) -> None:
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#connection")).to_contain_text("not connected")
    await expect(page.locator("main")).to_have_class("ready stale")
    await expect(page.get_by_role("button", name="service-0.test")).to_be_visible()
    worker.observed = observed(1)
    async with worker.running():
        await expect(page.locator("#connection")).to_have_text("live", timeout=20_000)
        await expect(page.locator("#shown")).to_have_text("1 service")
        await expect(page.locator("main")).to_have_class("ready")


async def test_the_page_limits_the_number_of_shown_services(page: Page, worker: Worker) -> None:
    worker.observed = failed(observed(2500, 1), 1234, "no answer in 2 s")
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#shown")).to_have_text("2500 services, the first 25 are shown")
        await page.get_by_role("button", name="Show more").click()
        await expect(page.locator("#shown")).to_have_text("2500 services, the first 125 are shown")
        await page.get_by_label("only with problems").check()
        await expect(page.locator("#service-table > tbody")).to_have_count(1)
        await expect(page.get_by_role("button", name="service-1234.test")).to_be_visible()
        await page.get_by_label("only with problems").uncheck()
        await page.get_by_label("Filter", exact=True).fill("10.112.4.210 W1")
        await expect(page.locator("#service-table > tbody")).to_have_count(1)
        await expect(page.get_by_role("button", name="service-1234.test")).to_be_visible()
        await page.get_by_label("Filter", exact=True).fill("no such")
        await expect(page.locator("#shown")).to_have_text("0 of 2500 services match")


async def test_events_may_arrive_in_any_fragments(page: Page, worker: Worker) -> None:
    async with worker.running():
        await page.goto(worker.link)
        found = await page.evaluate(
            """async () => {
                const { events } = await import("/page/stream.js");
                const text = 'retry: 2000\\n\\n: still here\\n\\n' +
                    'event: a\\ndata: {"x": "\\\\n\\u00e9\\ud83d\\ude00"}\\n\\nevent: b\\ndata: 1\\n\\n';
                const all = [];
                for (let size = 1; size <= text.length; size += 1) {
                    const got = [];
                    const parser = events((name, data) => got.push([name, data]));
                    for (let at = 0; at < text.length; at += size) parser(text.slice(at, at + size));
                    all.push(JSON.stringify(got));
                }
                return [...new Set(all)];
            }"""
        )
        assert found == ['[["a",{"x":"\\né😀"}],["b",1]]']
