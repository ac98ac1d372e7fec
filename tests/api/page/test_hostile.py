"""Hostile names, labels and reasons: the page shows them as text, whatever they contain."""

from dataclasses import replace

import pytest
from playwright.async_api import Page, expect

from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.problem import Problem, Severity
from mesh.model.service import Endpoint
from tests.api.page.browser import Complaints, Worker, asked, happened, observed

ATTACKS = [
    "<img src=x onerror=alert(1)>",
    "<script>document.title='hacked'</script>",
    '"><svg onload=alert(1)>',
    "</td></tr></table><h1>hacked</h1>",
    "javascript:alert(1)",
    "${alert(1)}{{constructor.constructor('alert(1)')()}}",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "&lt;b&gt;&#60;b&#62;",
    "' onmouseover='alert(1)",
]
BAD_NEWS = "\u202egnp.evil\u202c\x00\x1b[2J\u2066x\u2069\r\nevent: bye\ndata: {}\n\n"


def everywhere(text: str) -> WorkerSnapshot:
    """A worker of whom everything that somebody writes is this text."""
    seen = observed(1, 2)
    assert seen.view is not None
    (service,) = seen.view.services
    service = replace(service, owner=text, name=text, routes=(replace(service.routes[0], name=text),))
    ends = tuple(
        replace(each, owner=text, name=text, release=text, worker=text, id=f"{n}{text}")
        for n, each in enumerate(seen.view.endpoints)
    )
    view = replace(seen.view, services=(service,), endpoints=ends, claims=Claims({text: "10.112.0.9"}, {text: text}))
    return replace(
        seen,
        facts=WorkerFacts(text, text, text, text, (text,)),
        view=view,
        instances=None,
        probed={},
        plan=make_plan(view, {}),
        problems={"labels": (Problem(Code.UNKNOWN_LABEL, Severity.ERROR, text, text, text),)},
        failures=(CodedText(text, Code.OPERATION_REFUSED),),
        frozen={"store": CodedText(text, Code.STORE_UNREACHABLE)},
        judged=replace(asked({ends[0].key: text}), suspicions=(CodedText(text, Code.MASS_FAILURE),)),
    )


@pytest.mark.parametrize("text", ATTACKS)
async def test_hostile_text_is_shown_and_not_executed(page: Page, worker: Worker, text: str) -> None:
    worker.observed = everywhere(text)
    worker.keep(happened(text, owner=text, service=text, worker=text, endpoint=text, name=text, reason=text))
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#happened li .data")).to_have_text(text)
        before = await page.evaluate("document.querySelectorAll('*').length")
        assert before > 0
        row = page.locator("#service-table > tbody th button")
        await expect(row).to_have_text(text)
        await row.click()
        wrong = page.locator("#problems .data").filter(has_text=f"{text}: {text}; {text}")
        await expect(wrong).to_have_text(f"{text}: {text}; {text}")
        await expect(page.locator("#worker")).to_have_text(text)
        await expect(page.locator(".details tbody tr").first.locator("th")).to_have_text(text)
        await expect(page.locator(".way")).to_be_visible()
        await expect(page.locator(".details ol li .data")).to_have_text(text)
        await page.locator(".details").get_by_text("Address of this service").click()
        await expect(page.locator("#alone")).to_be_visible()
        await expect(page).to_have_title(f"{text} - {text} - vipmesh")
        await page.get_by_text("All services").click()
        await expect(page).to_have_title(f"{text} - vipmesh")
        await page.get_by_label("Filter", exact=True).fill(text.split(maxsplit=1)[0])
        await expect(row).to_have_text(text)
        assert await page.title() == f"{text} - vipmesh"
        made = (
            "img, iframe, b, script:not([src='/page/main.js']), [onload], [onerror], [onmouseover], a:not([href^='#'])"
        )
        assert await page.locator(made).count() == 0
        assert await page.locator("h1").count() == 1


async def test_characters_that_move_or_hide_text_are_removed(page: Page, worker: Worker) -> None:
    worker.observed = everywhere(BAD_NEWS)
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#connection")).to_have_text("live")
        await expect(page.locator("#problems li").first).to_contain_text("\ufffdgnp.evil")
        shown = await page.evaluate("document.body.innerText + document.title")
        assert not set(shown) & set("\u202e\u202c\x00\x1b\u2066\u2069")
        assert "\ufffdgnp.evil" in shown
        assert await page.locator("#connection").text_content() == "live", "a text ends no event"


async def test_a_very_long_text_is_truncated(page: Page, worker: Worker) -> None:
    worker.observed = everywhere("x" * 1_000_000)
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#connection")).to_have_text("live")
        await page.locator("#service-table > tbody th button").click()
        assert await page.evaluate("document.body.innerText.length") < 20_000
        width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], "nothing is pushed out of sight"


async def test_an_endpoint_named_like_an_object_property_is_shown(page: Page, worker: Worker) -> None:
    seen = observed(1, 1)
    assert seen.view is not None
    names = ("__proto__", "constructor", "toString")
    ends = tuple(Endpoint(name, "demo/0", name, f"10.2.0.{n}", name=name) for n, name in enumerate(names, 1))
    view = replace(seen.view, endpoints=ends)
    worker.observed = replace(seen, view=view, instances=None, probed={}, plan=make_plan(view, {}))
    async with worker.running():
        await page.goto(worker.link)
        await page.get_by_role("button", name="service-0.test").click()
        rows = page.locator(".details tbody tr")
        await expect(rows.locator("th")).to_have_text(list(names))
        await expect(rows.locator("td:last-child")).to_have_text(["0", "0", "0"])
        await expect(page.locator("#workers th")).to_have_text([*sorted(names), "w1 (this one)"])


async def test_the_browser_itself_refuses_markup_and_other_hosts(
    page: Page, worker: Worker, complaints: Complaints
) -> None:
    async with worker.running():
        await page.goto(worker.link)
        await expect(page.locator("#connection")).to_have_text("live")
        refused = await page.evaluate(
            """async () => {
                await new Promise((done) => setTimeout(done));  // the debugger's own calls may use eval
                const refused = [];
                const attempts = {
                    markup: () => { document.body.innerHTML = "<b>x</b>"; },
                    eval: () => eval("1"),
                    policy: () => trustedTypes.createPolicy("x", { createHTML: (text) => text }),
                    script: () => { document.createElement("script").text = "window.hacked = 1"; },
                    elsewhere: () => fetch("http://127.0.0.1:9/"),
                };
                for (const [name, attempt] of Object.entries(attempts)) {
                    try { await attempt(); } catch (error) { refused.push(name); }
                }
                const image = new Image();
                await new Promise((done) => { image.onerror = done; image.src = "http://127.0.0.1:9/x.png"; });
                const style = document.createElement("p");
                style.setAttribute("style", "color: rgb(1, 2, 3)");
                document.body.append(style);
                if (getComputedStyle(style).color !== "rgb(1, 2, 3)") refused.push("style");
                return refused;
            }"""
        )
        assert refused == ["markup", "eval", "policy", "script", "elsewhere", "style"]
    assert complaints.found, "the browser says so"
    complaints.found.clear()
