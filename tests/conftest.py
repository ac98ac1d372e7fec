"""Rules for all tests: nothing is skipped in CI, no plugin leaks an event loop, and no test leaves errors behind."""

import asyncio
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings

from mesh.util.bulkhead import INTERNAL_ERRORS

# looptime asks the policy for its loop around every test, those without a loop as well; up to Python 3.13 the first ask
# in the main thread makes one, which nobody closes. Once told that there is none, the policy makes none.
asyncio.set_event_loop(None)

# Other work on the machine is no failure of a property; pytest's own timeout ends what hangs.
settings.register_profile("vipmesh", deadline=None)
settings.load_profile("vipmesh")


@pytest.fixture(autouse=True)
def no_errors_of_other_tests() -> Iterator[None]:
    """What a test has raised on purpose is no problem of the next one: it would last for minutes."""
    yield
    INTERNAL_ERRORS.forget()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """A laptop may lack what a test needs; CI may not."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
