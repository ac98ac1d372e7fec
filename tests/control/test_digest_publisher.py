"""When a worker tells the others the digest of its table, and what its firewall drops."""

import asyncio
from collections.abc import Sequence

import pytest

from mesh.control.digest_publisher import INTERVAL, LOOK, DigestPublisher
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity

DROPPED = Problem(Code.PEERS_DROPPED, Severity.ERROR, "firewall", "it drops", "remove it", owner="demo/web")

pytestmark = pytest.mark.looptime


async def test_a_digest_is_told_now_and_then_and_a_problem_at_the_next_look() -> None:
    said: list[tuple[str, tuple[Problem, ...]]] = []
    known: list[str | None] = [None]
    told: list[tuple[Problem, ...]] = [()]

    def publish(digest: str, problems: Sequence[Problem]) -> None:
        said.append((digest, tuple(problems)))

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(DigestPublisher(lambda: known[-1], publish, lambda: told[-1]).run())
        await asyncio.sleep(2 * INTERVAL + LOOK / 2)
        assert said == [], "there is no plan yet"
        known.append("0a")
        await asyncio.sleep(INTERVAL / 2)
        assert said == [("0a", ())]
        known.append("0b")
        told.append((DROPPED,))
        await asyncio.sleep(LOOK)
        assert said[1:] == [("0b", (DROPPED,))]
        known.append("0c")
        await asyncio.sleep(LOOK)
        assert len(said) == 2, "each digest is a write to the store"
        told.append(())
        await asyncio.sleep(LOOK)
        assert said[2:] == [("0c", ())]
        task.cancel()
