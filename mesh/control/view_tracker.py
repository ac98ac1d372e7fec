"""Runs the view pipeline for the control loop, each time from its last result."""

import asyncio
import math
import time
from collections.abc import Mapping
from functools import partial

from mesh.cluster.peer_monitor import Reachability
from mesh.control.context import ClusterState
from mesh.control.slow_start import PassTime, SlowStarts
from mesh.control.source_watcher import SourceWatcher
from mesh.control.state_times import EndpointStateTimes
from mesh.control.view import EffectiveView, ViewInputs, effective_view, view_effort
from mesh.health.monitor import HealthMonitor
from mesh.model.service import EndpointKey, Instance
from mesh.model.view import ClusterView
from mesh.util.offload import compute


class ViewTracker:
    """Gathers the inputs of the effective view and keeps the newest result."""

    def __init__(
        self,
        worker: str,
        cluster: ClusterState,
        sources: SourceWatcher,
        health_monitor: HealthMonitor,
        reachability: Reachability,
    ) -> None:
        self._worker = worker
        self._cluster = cluster
        self._sources = sources
        self._health_monitor = health_monitor
        self._reachability = reachability
        self._last: EffectiveView | None = None
        self._times = EndpointStateTimes()

    async def update(self) -> EffectiveView | None:
        """Compute the effective view and update the panic state; None until the store has answered once."""
        inputs = self._inputs()
        if inputs is None:
            return None
        panic = self._health_monitor.panic_input(inputs.view)
        work = partial(effective_view, inputs, self._last, panic)
        self._last = await compute(view_effort(inputs, self._last, panic), work)
        if self._last.panic is not None:
            self._health_monitor.decided(self._last.panic)
        self._times = self._times.after(self._last.known, time.time())
        return self._last

    @property
    def last(self) -> EffectiveView | None:
        """The result of the last `update`; None before the first one."""
        return self._last

    def traffic(self) -> ClusterView | None:
        """The view that traffic followed in the last pass; None before the first one."""
        return None if self._last is None else self._last.traffic

    @property
    def slow_starts(self) -> SlowStarts:
        """The endpoints that ramp, by the last `update`."""
        return SlowStarts() if self._last is None else self._last.slow_starts

    def seconds_to_step(self) -> float:
        """Return how long it takes until an endpoint that ramps gets more of its weight; infinite if none ramps."""
        step = self.slow_starts.next_step
        return math.inf if step == math.inf else max(0.0, step - asyncio.get_running_loop().time())

    @property
    def since(self) -> Mapping[EndpointKey, float]:
        """Since when each endpoint is in its state, in seconds since 1970."""
        return self._times.since

    @property
    def view(self) -> ClusterView | None:
        """The newest view from the store; None until it has answered once."""
        return self._cluster.view

    @property
    def instances(self) -> Mapping[str, Instance] | None:
        """The instances on this worker by ID; None until every source has answered once."""
        return self._sources.instances()

    @property
    def lost(self) -> tuple[frozenset[EndpointKey], bool]:
        """The endpoints out of reach, and whether this worker is probably cut off itself."""
        return self._reachability.lost

    def _inputs(self) -> ViewInputs | None:
        view, health_monitor, (lost, isolated) = self._cluster.view, self._health_monitor, self._reachability.lost
        if view is None:
            return None
        return ViewInputs(
            self._worker,
            view,
            instances=self._sources.instances(),
            probed=health_monitor.probed(),
            lost=lost,
            isolated=isolated,
            takeover=health_monitor.takeover(view),
            held_back=health_monitor.held_back(view),
            asked=health_monitor.asked,
            slow_starts=self.slow_starts,
            time=PassTime(asyncio.get_running_loop().time(), time.time()),
        )
