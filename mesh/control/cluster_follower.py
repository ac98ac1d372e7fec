"""Follows the cluster view and publishes the results of this worker's probes."""

from collections.abc import Callable, Collection, Mapping

from typing_extensions import override

from mesh.cluster.peer_monitor import PeerSource, Reachability
from mesh.cluster.worker_directory import RegisteredWorker, told_problems
from mesh.control.conditions import LoopConditions
from mesh.control.context import ClusterState
from mesh.control.ports import ClusterExchange, PeerMembership
from mesh.health.monitor import HealthMonitor
from mesh.model.errors import CodedText
from mesh.model.part import ProblemPart
from mesh.model.problem import Problem
from mesh.model.service import Address, EndpointKey
from mesh.model.table import RealKey
from mesh.model.view import ClusterView


class PeerDirectory(PeerSource):
    """Lists the other workers for the `PeerMonitor` that pings them."""

    def __init__(
        self, worker: str, membership: PeerMembership, cluster: ClusterState, reachability: Reachability
    ) -> None:
        self._reachability = reachability
        self._worker = worker
        self._membership = membership
        self._cluster = cluster

    @override
    def workers(self) -> Mapping[str, RealKey]:
        return self._membership.peer_addresses

    @override
    def unleased(self) -> Collection[str]:
        return self._membership.unleased

    @override
    def non_listening(self) -> Collection[str]:
        return self.view().workers - self.workers().keys() - {self._worker}

    def others(self) -> Collection[str]:
        """The other workers: those that are registered, and those whose lease has ended and whose records are kept."""
        return (self.view().workers | frozenset(self._membership.unleased)) - {self._worker}

    def admin_addresses(self) -> Mapping[str, RealKey]:
        """Where each other worker says that its admin API is, by worker name."""
        return self._membership.admin_addresses

    def admin_refusal(self, address: Address) -> str | None:
        """Why no other worker's admin API can be at this address; None if it can."""
        return self._membership.admin_refusal(address)

    def seen(self) -> tuple[Mapping[str, RegisteredWorker], frozenset[str], Mapping[str, float]]:
        """Return the workers that the store has, those whose lease has ended, and when each answered last, in seconds
        since 1970.
        """
        unleased = frozenset(self._membership.unleased)
        return self._membership.registered, unleased, dict(self._reachability.heard)

    def told(self) -> tuple[Problem, ...]:
        """Return what the other workers tell of their firewalls, about services of their own endpoints."""
        return told_problems(self._membership.registered, self.view().endpoints, self._worker)

    @override
    def view(self) -> ClusterView:
        return self._cluster.view or ClusterView()


class ClusterFollower:
    """Follows the cluster view and publishes this worker's health reports."""

    def __init__(
        self,
        sync: ClusterExchange,
        cluster: ClusterState,
        *,
        health_monitor: HealthMonitor,
        reachability: Reachability,
        conditions: LoopConditions,
        store_trouble: Callable[[], CodedText | None],
        wake: Callable[[], None],
    ) -> None:
        """`store_trouble`: why the store does not answer; None if it does. `wake` is called after each new view."""
        self._sync = sync
        self._cluster = cluster
        self._health_monitor = health_monitor
        self._reachability = reachability
        self._conditions = conditions
        self._store_trouble = store_trouble
        self._wake = wake
        self._adopted: frozenset[RealKey] = frozenset()

    async def run(self, adopted: frozenset[RealKey], *, patient: bool) -> None:
        """Follow the view, until cancelled.

        `adopted`: real servers that carried traffic before this process started; their endpoints are presumed healthy
        until a probe fails. `patient`: the first view waits for the sources.
        """
        self._adopted = adopted
        await self._sync.run(self._take_view, patient=patient)

    def review(self) -> None:
        """Update, before a pass, which workers answer and which leases have ended."""
        self._sync.review()
        self._reachability.lease_ended(self._sync.unleased)
        self._conditions.found(ProblemPart.PEERS, self._reachability.cut_off(self._store_trouble()).problems)

    def publish_health(self) -> None:
        """Tell the other workers what the own probes say."""
        self._sync.judge(self._health_monitor.reports())

    def _take_view(self, seen: ClusterView) -> None:
        view = self._cluster.see(seen)
        kept: frozenset[EndpointKey] = self._sync.formerly_kept()
        former = self._sync.former_endpoints() if self._adopted else {}
        self._health_monitor.watch(view, self._adopted, kept, former)
        # Only the first view counts: a later endpoint must pass a probe, even at an adopted address.
        self._adopted = frozenset()
        self._wake()
