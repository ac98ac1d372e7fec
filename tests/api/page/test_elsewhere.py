"""The page shows past events of other workers: of all of them or of one, merged, and what is left out."""

import json
import re

from playwright.async_api import Page, expect

from mesh.api.channel.worker_channel import ChannelError, ChannelReply
from mesh.model.codes import Code
from mesh.model.past_event import EventKind
from tests.api.page.browser import Complaints, Rings, Worker, happened, observed

ITEMS = "#happened li"


def clustered(worker: Worker) -> Rings:
    """Two workers that answer and one that does not."""
    channel = worker.channel = Rings("w2", "w3", "w4")
    worker.keep(happened("endpoint web failed", ago=300, owner="demo/1", service="service-1.test"))
    channel.kept["w2"] = [
        happened("container web ended: out of memory", EventKind.CONTAINER_DIED, ago=301, owner="demo/1"),
        happened("endpoint web failed", ago=299, owner="demo/1", service="service-1.test"),
    ]
    channel.kept["w3"] = [happened("the daemon started", EventKind.DAEMON_STARTED, ago=100)]
    return channel


def asked_for_events(channel: Rings) -> list[tuple[str, str]]:
    """Who was asked for events, and by which path. Workers are asked for stacks, too."""
    return [(name, path) for name, path in channel.asked if path.startswith("/v1/events/")]


async def test_events_of_all_workers_are_merged_by_time_and_name_who_kept_them(page: Page, worker: Worker) -> None:
    worker.passed(30, "demo/1", 100)
    channel = clustered(worker)
    async with worker.running() as feed:
        await page.goto(worker.link)
        await expect(page.locator(ITEMS)).to_have_count(1)
        assert asked_for_events(channel) == [], "nobody has asked for them yet"
        await page.get_by_label("Kept by").select_option("all workers")
        await expect(page.locator(ITEMS)).to_have_text(
            [
                re.compile(r"w3: the daemon started VM781$"),
                re.compile(r"w1, w2: endpoint web failed VM781 service$"),
                re.compile(r"w2: container web ended: out of memory VM781 service$"),
            ]
        )
        await expect(page.locator("#events-shown")).to_have_text("3 events; 3 of 4 workers have answered")
        await expect(page.locator("#announcements")).to_have_text("3 events; 3 of 4 workers have answered")
        notes = page.locator("#event-notes li")
        await expect(notes).to_have_text(
            "Without the events of w4: worker w4: it refuses the request with status 404 VM675"
        )
        await notes.get_by_role("link", name="VM675").click()
        await expect(page.get_by_role("dialog")).to_contain_text("VM675")
        await page.keyboard.press("Escape")

        worker.keep(happened("service-2.test lost its last endpoint", EventKind.SERVICE_EMPTY, ago=0), feed)
        await expect(page.locator(ITEMS).first).to_contain_text("w1: service-2.test lost its last endpoint")
        marks = page.locator("#figures figure").first.locator(".plot-mark.warn")
        await expect(marks).to_have_attribute("d", re.compile(r"^M(348|349|350),0V40$"))
        await page.get_by_label("Filter events").fill("w3")
        await expect(page.locator("#events-shown")).to_have_text("1 of 4 events match; 3 of 4 workers have answered")
        await page.get_by_label("Filter events").fill("")
        await page.get_by_role("button", name="service-1.test").click()
        await expect(page.locator(".details ol li")).to_have_count(2)

        await page.get_by_label("Kept by").select_option("this worker, w1")
        await expect(page.locator(ITEMS)).to_have_count(2)
        await expect(notes).to_have_count(0)
        await expect(marks).to_have_attribute("d", "")


async def test_events_of_other_workers_are_kept_fresh_while_they_are_shown(page: Page, worker: Worker) -> None:
    channel = clustered(worker)
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_label("Kept by").select_option("all workers")
        await expect(page.locator(ITEMS)).to_have_count(3)
        channel.kept["w2"].append(happened("endpoint web is healthy", EventKind.ENDPOINT_HEALTHY, ago=0))
        channel.kept["w4"] = [happened("the daemon of w4 started", EventKind.DAEMON_STARTED, ago=5)]
        await expect(page.locator(ITEMS).first).to_contain_text("w2: endpoint web is healthy")
        await expect(page.locator(ITEMS)).to_have_count(5)
        await expect(page.locator("#event-notes")).to_be_hidden()
        first, second = (path for name, path in asked_for_events(channel) if name == "w2")
        assert first == "/v1/events/past?last=1000"
        assert re.fullmatch(r"/v1/events/past\?since=-3\d{3}\.0&last=1000", second), "w4 has not answered before"


async def test_one_other_worker_alone(page: Page, worker: Worker) -> None:
    channel = clustered(worker)
    channel.ahead["w3"] = 3600.0
    async with worker.running():
        await page.goto(worker.link)
        choice = page.get_by_label("Kept by")
        await choice.select_option("w2")
        await expect(page.locator(ITEMS)).to_have_count(2)
        await expect(page.locator(ITEMS).first).to_contain_text("w2: endpoint web failed")
        assert {name for name, _ in asked_for_events(channel)} == {"w2"}
        await choice.select_option("all workers")
        await expect(page.locator("#event-notes")).to_contain_text(
            "The clock of worker w3 is 3600 s ahead of that of w1."
        )


async def test_why_a_worker_cannot_be_asked_is_said_with_its_code(
    page: Page, worker: Worker, complaints: Complaints
) -> None:
    channel = clustered(worker)
    del channel.kept["w2"]
    path = "/v1/events/past?last=1000"
    channel.failures["w2", path] = ChannelError(Code.CHANNEL_TLS, "worker w2: no TLS")
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_label("Kept by").select_option("w2")
        await expect(page.locator("#event-notes li")).to_have_text(
            "The events of other workers are not shown as they are now: worker w2: no TLS VM674"
        )
        await expect(page.locator("#events-shown")).to_have_text("0 events")
    assert [each.partition("status of ")[2] for each in complaints.found] == ["502 (Bad Gateway)"]
    complaints.found.clear()


async def test_answers_of_a_hostile_worker_do_no_harm(page: Page, worker: Worker) -> None:
    channel = clustered(worker)
    del channel.kept["w2"]
    good = {"number": 7, "event": {"at": 5, "kind": "x", "code": "<i>", "text": "<b>here</b>"}}
    bad = [None, 1, {}, {"number": 1}, {"number": 1, "event": None}, {"number": 1, "event": {"at": "x"}}]
    texts = {"at": 5, "kind": "x", "code": "VM781", "text": {"a": 1}}
    wrong = [each for each in bad if isinstance(each, dict)] + [{"number": 2, "event": texts}, good]
    path = "/v1/events/past?last=1000"
    async with worker.running():
        await page.goto(worker.link)
        choice = page.get_by_label("Kept by")
        for events in (bad, "text", {"length": 5}, None):
            channel.answers["w2", path] = ChannelReply(json.dumps({"events": events}).encode())
            await choice.select_option("w2")
            await expect(page.locator("#event-notes li")).to_have_count(1)
            await choice.select_option("this worker, w1")
            await expect(page.locator("#event-notes li")).to_have_count(0)
        channel.answers["w2", path] = ChannelReply(json.dumps({"events": wrong}).encode())
        await choice.select_option("w2")
        await expect(page.locator(ITEMS)).to_have_count(1)
        await expect(page.locator(ITEMS)).to_contain_text("w2: <b>here</b>")


async def test_a_worker_without_others_offers_no_choice(page: Page, worker: Worker) -> None:
    worker.observed = observed(3, 1)
    async with worker.running() as feed:
        await page.goto(worker.link)
        await expect(page.locator("#shown")).to_have_text("3 services")
        await expect(page.locator("#event-choice")).to_be_hidden()
        worker.observed = observed(3, 2)
        feed.changed()
        await expect(page.get_by_label("Kept by").locator("option")).to_have_text(
            ["this worker, w1", "all workers", "w2"]
        )
