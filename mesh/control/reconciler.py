"""The control loop: every change only says that a pass is due, and a pass starts from the newest state of everything.

Sources, store, host and peers each have a task that keeps the newest state and wakes the loop. One pass registers
nothing and remembers nothing of the kernel: it takes the effective view, plans, reads the data plane, applies the
difference and replaces the names. Bursts are coalesced, and an audit runs even when nothing happened, to revert changes
that were made outside vipmesh.

Fail static: a source, store or data plane that does not answer leaves its last state in force and is named in the
status; nothing is programmed before the store has answered once.
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from mesh.control.cluster_follower import ClusterFollower
from mesh.control.context import LoopContext
from mesh.control.pass_runner import PassRunner
from mesh.control.view_tracker import ViewTracker
from mesh.util.pacing import RunPacer

REST, LONGEST_REST = 1.0, 0.5
"""How many times as long as a pass took until the next one, and how many seconds at most."""
AUDIT = 10.0
"""Seconds after which the data plane is read back although nothing happened."""
LOOK_AGAIN = 1.0
"""Seconds until the next look at whether what drains has ended, and whether what failed for the first time goes now."""


class Reconciler:
    """Runs the tasks of one worker, and a pass whenever one is due."""

    def __init__(
        self,
        context: LoopContext,
        follower: ClusterFollower,
        tracker: ViewTracker,
        runner: PassRunner,
        watchers: Mapping[str, Callable[[], Coroutine[Any, Any, None]]],
        *,
        has_sources: bool,
    ) -> None:
        """`watchers`: what runs beside the loop and wakes it, by the name of its task. `has_sources`: there is a source
        to wait for before endpoints of a former process are dropped."""
        self._events = context.events
        self._figures = context.figures
        self._cluster = context.cluster
        self._follower = follower
        self._tracker = tracker
        self._runner = runner
        self._watchers = watchers
        self._has_sources = has_sources
        self._pace = RunPacer(REST, LONGEST_REST)
        self._looked_at = math.inf

    async def run(self) -> None:
        """Keep the data plane and the names at the plan, until cancelled."""
        adopted = await self._runner.adopt()
        async with asyncio.TaskGroup() as tasks:
            for name, watch in self._watchers.items():
                tasks.create_task(watch(), name=name)
            patient = bool(adopted and self._has_sources)
            tasks.create_task(self._follower.run(adopted, patient=patient), name="store")
            tasks.create_task(self._keep_programmed(), name="data plane")

    def is_alive(self) -> bool:
        """Whether the loop still comes round: once in an audit at the latest, with time for a slow kernel."""
        return asyncio.get_running_loop().time() < self._looked_at + 4 * AUDIT

    async def _keep_programmed(self) -> None:
        while True:
            await self._wait_until_due()
            self._events.wake.clear()
            self._follower.review()
            self._looked_at = asyncio.get_running_loop().time()
            self._figures.looked_at = time.time()
            with self._pace.work():
                await self._pass()
            self._events.passed.set()

    async def _wait_until_due(self) -> None:
        try:
            async with asyncio.timeout(LOOK_AGAIN if self._runner.is_unsettled else AUDIT):
                await self._events.wake.wait()
            await self._pace.wait()
        except TimeoutError:
            pass  # nothing happened: this pass is the audit, or a look at what is draining

    async def _pass(self) -> None:
        effective = await self._tracker.update()
        if effective is None:
            return
        # The verdicts go out even while the worker's own addresses are not known: the others depend on them.
        self._follower.tell_verdicts()
        if self._cluster.addresses is not None:
            await self._runner.run(effective.traffic, self._cluster.addresses)
