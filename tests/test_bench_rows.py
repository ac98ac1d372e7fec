"""Rows of a bench fail each on their own, within the time of all."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from harness import Row


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import rows

    return rows


async def _nothing_left() -> None:
    pass


async def _fails_as_a_test() -> Sequence["Row"]:
    pytest.fail("after 150 s still: {}")


async def _fails_in_a_group() -> Sequence["Row"]:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_fails_as_a_test())
    return ()


async def _hangs() -> Sequence["Row"]:
    await asyncio.get_running_loop().create_future()
    return ()


@pytest.mark.parametrize(
    ("work", "seconds", "reason"),
    [
        (_fails_as_a_test, 60, "Failed: after 150 s still"),
        (_fails_in_a_group, 60, "Failed: after 150 s still"),
        (_hangs, 0.01, "TimeoutError"),
    ],
)
async def test_a_row_that_fails_says_so_and_is_cleaned_up_after(
    rows: Any, work: Callable[[], Any], seconds: float, reason: str
) -> None:
    cleaned = list[str]()

    async def clean() -> None:
        cleaned.append("all")

    (row,) = await rows.RowBudget(seconds, 60, _Clock()).measure("a deploy", "<= 1.3", work, clean)
    assert (row.bench, row.goal, row.met, cleaned) == ("a deploy", "<= 1.3", False, ["all"])
    assert row.ours.startswith(f"not measured: {reason}")


async def test_what_cannot_be_cleaned_up_is_said_too(rows: Any) -> None:
    async def clean() -> None:
        raise RuntimeError("no | leader\nhere")

    (row,) = await rows.RowBudget(60, 60).measure("a", "0", _fails_as_a_test, clean)
    assert row.ours.endswith("; what it left was not removed: RuntimeError: no / leader here")


async def test_no_row_begins_after_the_time_of_all(rows: Any) -> None:
    clock, begun = _Clock(), list[str]()
    budget = rows.RowBudget(60, 100, clock)

    async def work() -> Sequence[str]:
        begun.append("row")
        return ["measured"]

    assert await budget.measure("a", "0", work, _nothing_left) == ["measured"]
    clock.now = 101
    (row,) = await budget.measure("b", "0", work, _nothing_left)
    assert (row.bench, row.met, begun) == ("b", False, ["row"])
    assert "the time of all rows is over" in row.ours
