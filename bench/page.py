"""The page with 1,000 services beside the page with 10, in Chromium, while 60 services a second change.

    python bench/page.py

The first paint is the first frame with services, counted from the navigation: with the answer of the worker, which
computes it anew for each connection. The longest task is that of the page's main thread in Chromium's trace, over ten
seconds from the first paint on.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from harness import MissingError, Row, main, ratio, running, scratch
from tests.api.page.browser import CHROMIUM

FEW, MANY = 10, 1000
SECONDS = 10.0
TOKEN = "0123456789abcdef"
CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline", "toplevel", "__metadata"]
PAINTED = """() => {
    window.painted = null;
    const look = () => {
        if (document.querySelector("#service-table > tbody") !== null && document.querySelector("main.ready") !== null)
            requestAnimationFrame(() => setTimeout(() => { window.painted = performance.now(); }));
        else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}"""
"""Runs before the page's own scripts."""


def run(quick: bool) -> Sequence[Row]:
    """`quick`: three rounds, else nine."""
    if CHROMIUM is None:
        raise MissingError("this bench drives Chromium: apt-get install chromium")
    return asyncio.run(_run(3 if quick else 9))


async def _run(rounds: int) -> Sequence[Row]:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    paints: dict[int, list[float]] = {FEW: [], MANY: []}
    tasks: dict[int, list[float]] = {FEW: [], MANY: []}
    with ExitStack() as stack:
        links, directories = {}, {}
        for services in (FEW, MANY):
            directory = directories[services] = stack.enter_context(scratch())
            (directory / "token").touch(0o600)
            (directory / "token").write_text(TOKEN)
            command = (sys.executable, str(Path(__file__).with_name("page_worker.py")), str(directory), str(services))
            stack.enter_context(running(*command, quiet=True))
            links[services] = f"http://127.0.0.1:{_wait(directory / 'port')}/#token={TOKEN}"
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
            for link in links.values():
                await _visit(browser, link, None)  # the first visits warm up the browser and the workers
            for _ in range(rounds):
                for services, link in links.items():
                    paint, task = await _visit(browser, link, directories[services] / "changing")
                    paints[services].append(paint)
                    tasks[services].append(task)
            await browser.close()
    return [
        _row("first paint", paints, 3.0),
        _row("longest task while 60 services/s change", tasks, 5.0),
    ]


async def _visit(browser: Browser, link: str, changing: Path | None) -> tuple[float, float]:
    """Return when the services were painted, and the longest task from then on, in milliseconds.

    Services change while the file `changing` exists. None: only the first paint is measured.
    """
    context = await browser.new_context(viewport={"width": 1200, "height": 900})
    page = await context.new_page()
    await page.add_init_script(f"({PAINTED})()")
    await page.goto(link)
    await page.wait_for_function("() => window.painted !== null", timeout=60_000)
    paint = float(await page.evaluate("window.painted"))
    if changing is None:
        await context.close()
        return paint, 0.0
    await browser.start_tracing(page=page, categories=CATEGORIES)
    changing.touch()
    await asyncio.sleep(SECONDS)
    changing.unlink()
    trace = json.loads(await browser.stop_tracing())
    await context.close()
    return paint, _longest_task(trace["traceEvents"])


def _longest_task(events: Sequence[dict[str, object]]) -> float:
    """Return the longest task of a page's main thread in milliseconds."""
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event.get("args") == {"name": "CrRendererMain"}
    }
    names = {"RunTask", "ThreadControllerImpl::RunTask"}
    spans = [
        event["dur"]
        for event in events
        if (event.get("pid"), event.get("tid")) in mains and event.get("name") in names and "dur" in event
    ]
    if not spans:
        raise RuntimeError("the trace has no tasks")
    return max(float(str(span)) for span in spans) / 1000


def _row(what: str, found: dict[int, list[float]], goal: float) -> Row:
    times, spread = ratio(found[MANY], found[FEW])
    many, few = (f"{statistics.median(found[services]):.1f} ms" for services in (MANY, FEW))
    return Row(f"page: {what}: {MANY} services beside {FEW}", many, few, times, spread, f"<= {goal}", times <= goal)


def _wait(file: Path) -> str:
    """Return the text of a file that another process writes."""
    until = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        if time.monotonic() > until:
            raise RuntimeError(f"{file} does not come")
        time.sleep(0.05)
    return file.read_text()


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
