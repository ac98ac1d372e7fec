"""The control loop: every change only marks a pass as due, and a pass starts from the newest state of everything.

Sources, store, host and peers each have a task that keeps the newest state and wakes the loop. A pass registers nothing
and does not rely on an earlier state of the kernel: it takes the effective view, plans, reads the data plane, applies
the difference and replaces the names. Bursts are coalesced, and an audit runs even when nothing happened, to revert
changes that were made outside vipmesh.

Fail static: a source, store or data plane that does not answer leaves its last state in force and is named in the
status; nothing is programmed before the store has answered once.
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from mesh.control.cluster_follower import ClusterFollower
from mesh.control.context import LoopContext
from mesh.control.pass_runner import PassRunner
from mesh.control.view_tracker import ViewTracker
from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead
from mesh.util.pacing import RunPacer

bulkhead = Bulkhead(DaemonPart.CONTROL_LOOP)

REST, LONGEST_REST = 1.0, 0.5
"""The pause before the next pass, as a multiple of the last pass's duration, and its maximum in seconds."""
AUDIT = 10.0
"""Seconds after which the data plane is read back although nothing happened."""
AFTER_STEP = 0.01
"""Seconds from the step of a ramp to its pass."""
LOOK_AGAIN = 1.0
"""Seconds until the next pass while real servers drain, an operation was refused for the first time, or a pass failed.
"""


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
        """`watchers`: coroutines that run beside the loop and wake it, by the name of their task. `has_sources`:
        whether there is a source to wait for before endpoints of a former process are dropped.
        """
        self._events = context.events
        self._stats = context.stats
        self._cluster = context.cluster
        self._follower = follower
        self._tracker = tracker
        self._runner = runner
        self._watchers = watchers
        self._has_sources = has_sources
        self._pace = RunPacer(REST, LONGEST_REST)
        self._looked_at = math.inf
        self._pass_failed = False
        """Whether the last pass ended by an unexpected exception."""

    async def run(self) -> None:
        """Keep the data plane and the names as planned, until cancelled."""
        adopted = await bulkhead.run("adopting the data plane", self._runner.adopt) or frozenset()
        follow = partial(self._follower.run, adopted, patient=bool(adopted and self._has_sources))
        async with asyncio.TaskGroup() as tasks:
            for name, watch in self._watchers.items():
                tasks.create_task(bulkhead.keep_running(name, watch), name=name)
            tasks.create_task(bulkhead.keep_running("store", follow), name="store")
            tasks.create_task(bulkhead.keep_running("data plane", self._keep_programmed), name="data plane")

    def is_alive(self) -> bool:
        """Whether the loop still makes passes: at least one per audit interval, with a margin for a slow kernel."""
        return asyncio.get_running_loop().time() < self._looked_at + 4 * AUDIT

    async def _keep_programmed(self) -> None:
        while True:
            await self._wait_until_due()
            self._events.wake.clear()
            self._looked_at = asyncio.get_running_loop().time()
            self._stats.looked_at = time.time()
            # A pass that fails is made again after a second; what is in the kernel stays as it is.
            with self._pace.work(), bulkhead.contain("a pass") as attempt:
                self._follower.review()
                await self._pass()
            self._pass_failed = attempt.failed
            self._events.pass_ended.set()

    async def _wait_until_due(self) -> None:
        try:
            usual = LOOK_AGAIN if self._pass_failed or self._runner.is_unsettled else AUDIT
            # Just after a step of a ramp: just before it, it would change nothing.
            async with asyncio.timeout(min(usual, self._tracker.seconds_to_step() + AFTER_STEP)):
                await self._events.wake.wait()
            await self._pace.wait()
        except TimeoutError:
            pass  # nothing happened: this pass is the audit, a look at what is draining, or the step of a ramp

    async def _pass(self) -> None:
        effective = await self._tracker.update()
        if effective is None:
            return
        # Health is published even while the worker's own addresses are unknown: other workers depend on it.
        self._follower.publish_health()
        if self._cluster.addresses is not None:
            await self._runner.run(effective.traffic, self._cluster.addresses)
