"""Looks at the releases in a rollout on this worker: its instances and their ends, its probes, its data plane."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mesh.config.labels.release_checks import read_release_checks
from mesh.control.event_recorder import ContainerExits
from mesh.control.service_plan import ServicePlan
from mesh.dataplane import DataPlane, DataPlaneError
from mesh.dataplane.drain import BackendKey
from mesh.health.state_machine import Verdict
from mesh.model.eligibility import real_keys
from mesh.model.service import Endpoint, EndpointKey, Health, Instance
from mesh.model.table import FailedConnections, TrafficCounters
from mesh.platform.rollouts.evidence_records import CheckCounts, ConnectionCounts
from mesh.platform.rollouts.release_checker import CheckedInstance
from mesh.platform.rollouts.release_evidence import (
    InstanceExit,
    JudgedInstance,
    LedConnections,
    ReleaseKey,
    ReleaseObservation,
)


@dataclass(frozen=True, slots=True)
class ReleaseSources:
    """What a look asks; each is called in the event loop's thread."""

    parts: Callable[[], Mapping[str, ServicePlan]]
    """The plans of services by owner; empty before the first pass."""
    instances: Callable[[], Mapping[str, Instance]]
    """The instances of this worker by ID."""
    history: Callable[[EndpointKey], Sequence[Verdict]]
    """The last verdicts of this worker on an endpoint, the oldest first."""
    health: Callable[[], Mapping[EndpointKey, Health]]
    """By the probes of this worker."""
    checks: Callable[[], Mapping[ReleaseKey, Mapping[str, CheckCounts]]]
    """Results of checks by release and label."""


class ReleaseLook:
    """Implements `LookAtReleases`."""

    def __init__(self, worker: str, sources: ReleaseSources, plane: DataPlane, exits: ContainerExits) -> None:
        """`exits` is a queue that nobody else reads."""
        self._worker = worker
        self._sources = sources
        self._plane = plane
        self._exits = exits

    async def __call__(self, owners: Collection[str]) -> ReleaseObservation:
        """Look at the services of these owners. What the data plane does not tell now is missing."""
        parts = self._sources.parts()
        watched = [parts[owner] for owner in owners if owner in parts]
        own = [endpoint for part in watched for endpoint in part.inputs.endpoints if endpoint.worker == self._worker]
        return ReleaseObservation(
            {endpoint.id: JudgedInstance(release_of(endpoint), endpoint.drain is not None) for endpoint in own},
            [InstanceExit(each.id, each.out_of_memory, each.is_asked) for each in self._exits.take()],
            {endpoint.id: self._sources.history(endpoint.key) for endpoint in own},
            await self._led(watched),
            self._sources.checks(),
        )

    def checked(self, judged: Mapping[str, str]) -> Mapping[ReleaseKey, Sequence[CheckedInstance]]:
        """Return the own instances that serve of these releases, by owner, with the checks of their own labels."""
        parts, instances, health = self._sources.parts(), self._sources.instances(), self._sources.health()
        found: dict[ReleaseKey, list[CheckedInstance]] = {}
        for owner, release in judged.items():
            for endpoint in parts[owner].inputs.endpoints if owner in parts else ():
                instance = instances.get(endpoint.id) if endpoint.worker == self._worker else None
                serves = endpoint.drain is None and health.get(endpoint.key, Health.HEALTHY) is Health.HEALTHY
                if instance is None or not serves or (endpoint.release or "") != release:
                    continue
                key = ReleaseKey(owner, release)
                found.setdefault(key, []).append(CheckedInstance(endpoint, read_release_checks(instance.labels)))
        return found

    async def _led(self, watched: Sequence[ServicePlan]) -> Sequence[LedConnections]:
        if not watched:
            return ()
        keys = [key for part in watched for key in part.virtual_servers]
        try:
            traffic = await self._plane.endpoint_traffic()
            failed = await self._plane.failed_connections()
            opened = await self._plane.connections(keys)
        except DataPlaneError:
            return ()  # the control loop reports the failure
        return [led for part in watched for led in _led_by(part, traffic, failed, opened)]


def release_of(endpoint: Endpoint) -> ReleaseKey:
    """Return the release of an endpoint."""
    return ReleaseKey(endpoint.owner, endpoint.release or "")


def _led_by(
    part: ServicePlan,
    traffic: Mapping[BackendKey, TrafficCounters],
    failed: Mapping[BackendKey, FailedConnections],
    opened: Mapping[BackendKey, int],
) -> Iterator[LedConnections]:
    for virtual in part.virtual_servers:
        for endpoint in part.inputs.endpoints:
            for real in real_keys(part.inputs.service, endpoint):
                place = (virtual, real)
                if place in traffic:
                    counts = _counts(traffic[place], failed.get(place), opened.get(place, 0))
                    yield LedConnections(release_of(endpoint), f"{endpoint.worker}/{endpoint.id}", place, counts)


def _counts(traffic: TrafficCounters, failed: FailedConnections | None, opened: int) -> ConnectionCounts:
    if failed is None:
        return ConnectionCounts(traffic.connections, opened)
    attempts = traffic.connections + failed.refused + failed.unanswered
    return ConnectionCounts(attempts, opened, failed.refused, failed.unanswered, failed.reset)
