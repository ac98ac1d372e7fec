"""A browser for each test, which must end without errors in its console."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.api.page.axe import install_axe
from tests.api.page.browser import Complaints, Worker, launched

expect.set_options(timeout=30_000)  # also on a busy machine


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest.fixture
async def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
async def page(browser: Browser, complaints: Complaints) -> AsyncIterator[Page]:
    """A fresh profile. The test fails if the browser complains of anything that the test has not taken out."""
    context = await browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(30_000)
    page = await context.new_page()
    complaints.listen(page)
    yield page
    await context.close()
    assert complaints.found == []


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core."""
    return install_axe(tmp_path_factory.mktemp("axe"))
