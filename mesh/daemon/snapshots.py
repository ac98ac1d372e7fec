"""Collects snapshots for event watchers and metrics scrapes.

A snapshot is taken at once in the event loop's thread; documents are computed from it outside the event loop.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from socket import gethostname

from mesh.api.events import EventInput
from mesh.api.explain.document import Explanation
from mesh.api.explain.past import KeptEvents
from mesh.api.explain.query import explain
from mesh.api.http.broadcaster import EventBroadcaster
from mesh.api.http.history import TrafficHistoryRecorder
from mesh.api.http.past_events import PastEventReader
from mesh.api.http.server import AdminListenConfig
from mesh.api.metrics.families import MetricsInput
from mesh.api.past_events import attribute_deaths
from mesh.api.status import notices
from mesh.api.traffic_history import TrafficHistory
from mesh.config.settings import Settings
from mesh.control.assembly import ControlLoop
from mesh.dataplane import DataPlane, DataPlaneError
from mesh.dataplane.drain import BackendKey
from mesh.health.prober import Prober
from mesh.model.errors import MeshError
from mesh.model.problem import Notices
from mesh.model.table import TrafficCounters, VirtualKey
from mesh.util.offload import compute
from meshdns.thread import ThreadedServer


def admin_listen_config(settings: Settings) -> AdminListenConfig:
    """The listen addresses and credentials of the admin API."""
    return AdminListenConfig(
        settings.admin_listen,
        settings.admin_tcp,
        settings.admin_token_file,
        settings.admin_cert,
        settings.admin_key,
        settings.admin_client_ca,
        frozenset(name.lower().rstrip(".") for name in (settings.node_name, gethostname(), *settings.admin_hosts)),
        settings.admin_read_token_file,
        audit_file=settings.admin_audit_file,
    )


class SnapshotCollector:
    """Collects snapshots for event watchers and metrics scrapes. The owner must run `feed` and `recorder`."""

    def __init__(
        self,
        loop: ControlLoop,
        *,
        passed: asyncio.Event,
        plane: DataPlane,
        prober: Prober,
        names: ThreadedServer,
        most_series: tuple[int, int],
        past: PastEventReader,
        unlabelled: Callable[[], Mapping[str, str]],
    ) -> None:
        """`passed` is set after each pass of the loop. `most_series`: the number of services and of endpoints that have
        series of their own in the metrics. `past` reads the events that this worker has kept. `unlabelled` returns the
        names of running containers without labels, by ID.
        """
        # 8 parameters: one for each part of the daemon that a document is made from.
        self._snapshots = loop.snapshots
        self._stats = loop.stats
        self._plane = plane
        self._prober = prober
        self._names = names
        self._most_services, self._most_endpoints = most_series
        self._past = past
        self._unlabelled = unlabelled
        self.feed = EventBroadcaster(self._take_whole_input, passed)
        self.history = TrafficHistory()
        """The traffic of the last hour; `recorder` must run to add to it."""
        self.recorder = TrafficHistoryRecorder(self.history, self._take_event_input)

    async def measure(self) -> MetricsInput:
        """The input of one metrics scrape."""
        traffic = await self._traffic()
        return MetricsInput(
            self._snapshots.observe(),
            self._stats.copy(),
            self._prober.figures(),
            asdict(self._names.counters),
            asdict(self._names.forward_counters),
            traffic,
            self._most_services,
            self.feed.watching,
            self.feed.dropped,
            endpoint_traffic=await self._endpoint_traffic() if self._most_endpoints else {},
            most_endpoints=self._most_endpoints,
        )

    async def explain(self, asked: str) -> tuple[Explanation, Notices]:
        """The request path to the target, and the messages of the worker with their codes."""
        evidence = replace(self._snapshots.evidence(), unlabelled=self._unlabelled())
        past = await self._kept_events()
        explanation = await compute(evidence.observed.size + len(past.events), partial(explain, asked, evidence, past))
        return explanation, notices(evidence.observed)

    async def _kept_events(self) -> KeptEvents:
        try:
            return KeptEvents(attribute_deaths(await self._past.read()), time.time())
        except MeshError:
            return KeptEvents()  # the recorder reports the failure

    async def _take_event_input(self) -> EventInput:
        traffic = await self._traffic()
        connections: Mapping[BackendKey, int] | None
        try:
            connections = await self._plane.connections()
        except DataPlaneError:
            connections = None  # the control loop reports the failure
        return EventInput(self._snapshots.observe(), asyncio.get_running_loop().time(), traffic, connections)

    async def _take_whole_input(self) -> EventInput:
        """Take an input with the traffic of endpoints, which costs more to read than that of services."""
        return replace(await self._take_event_input(), endpoint_traffic=await self._endpoint_traffic())

    async def _endpoint_traffic(self) -> Mapping[BackendKey, TrafficCounters]:
        try:
            return await self._plane.endpoint_traffic()
        except DataPlaneError:
            return {}  # the control loop reports the failure

    async def _traffic(self) -> Mapping[VirtualKey, TrafficCounters]:
        try:
            return await self._plane.traffic()
        except DataPlaneError:
            return {}  # the control loop reports the failure
