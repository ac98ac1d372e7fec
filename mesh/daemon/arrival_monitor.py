"""Checks by itself whether requests from each network of containers arrive: a few connections at a time.

It enters the network namespaces of containers, which needs root. Without that right it does nothing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from mesh.api.connectivity.plan import ConnectivityPlan
from mesh.api.connectivity.report import ConnectivityRow
from mesh.api.connectivity.sampling import SampleTurn, choose_targets, read_observations
from mesh.control.arrival import ArrivalCheck, ArrivalObservation, ArrivalPair, ArrivalTracker
from mesh.daemon.connectivity import run_connectivity_test
from mesh.daemon.loss_finder import LossTools
from mesh.daemon.request_clients import HostClient, NamespaceClient, RequestClient
from mesh.host.namespaces import may_enter_namespaces
from mesh.model.part import DaemonPart
from mesh.sources.docker.client import CLIENT_ERRORS
from mesh.sources.docker.networks import ContainerNetwork
from mesh.util.bulkhead import Bulkhead

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.DAEMON)

MAX_NETWORKS = 16
"""Networks that are checked in a round; further ones have their turn in the next rounds."""
MAX_REQUESTS = 4
"""Requests from each network in a round."""
AGAIN_AFTER = 5.0
"""Seconds until the next round after one with a failure that is not confirmed yet; and until the first round."""

HOST_CLIENT = HostClient()

ReadNetworks = Callable[[str, int], Awaitable[Sequence[ContainerNetwork]]]
"""Reads the networks of the container engine at a URL, for an IP version. Raises `CLIENT_ERRORS`."""
MakeClient = Callable[[str, ContainerNetwork], RequestClient]
"""Makes a client in a network of the engine at a URL, which has a container."""


def make_namespace_client(engine: str, network: ContainerNetwork) -> RequestClient:
    """Return a client in the namespace of the network's first container."""
    return NamespaceClient(engine, network, network.clients[0])


class ArrivalMonitor:
    """Checks a few pairs of network and service in each round, and reports what came back."""

    def __init__(
        self,
        make_plan: Callable[[], Awaitable[ConnectivityPlan]],
        tracker: ArrivalTracker,
        interval: float,
        *,
        read_networks: ReadNetworks,
        tools: LossTools,
        make_client: MakeClient = make_namespace_client,
        host: RequestClient = HOST_CLIENT,
    ) -> None:
        """`interval`: seconds between two rounds. `host`: sends the same requests from this host."""
        self._make_plan = make_plan
        self._tracker = tracker
        self._interval = interval
        self._read_networks = read_networks
        self._tools = tools
        self._make_client = make_client
        self._host = host
        self._round = 0

    async def run(self) -> None:
        """Check round after round, until cancelled. Without the right to enter namespaces it returns at once."""
        if not may_enter_namespaces():
            log.info("whether requests arrive is not checked from networks of containers: that needs root")
            return
        pause = AGAIN_AFTER
        while True:
            await asyncio.sleep(min(pause, self._interval))
            confirmed = await self.check()
            pause = self._interval if confirmed else AGAIN_AFTER

    async def check(self) -> bool:
        """Run one round. Return whether every failure is confirmed or gone; else the next round is due soon."""
        plan = await self._make_plan()
        self._tracker.retain({target.owner for target in plan.targets}, time.time())
        if plan.engine is None or plan.is_local or not plan.targets:
            return True
        try:
            found = await self._read_networks(plan.engine, 6 if ":" in plan.pool else 4)
        except CLIENT_ERRORS as error:
            log.debug("networks of containers cannot be read: %s", error)  # the source reports it
            return True
        networks = [network for network in found if network.clients and not network.internal]
        start = self._round * MAX_NETWORKS % len(networks) if len(networks) > MAX_NETWORKS else 0
        due = [*networks[start:], *networks[:start]][:MAX_NETWORKS]
        check = partial(self._check_network, plan, plan.engine)
        observed = await asyncio.gather(
            *(bulkhead.run(f"requests from network {network.name}", check, network) for network in due)
        )
        observations = [observation for found in observed if found is not None for observation in found]
        self._round += 1
        self._tracker.observe(observations, time.time())
        return not any(self._is_unconfirmed(observation.pair) for observation in observations)

    async def _check_network(
        self, plan: ConnectivityPlan, engine: str, network: ContainerNetwork
    ) -> Sequence[ArrivalObservation]:
        subnet = network.subnets[0]
        failing = frozenset(
            pair.owner
            for (pair, check), record in self._tracker.arrivals.records.items()
            if pair.network == subnet and check is ArrivalCheck.CONNECTION and record.failures
        )
        targets = choose_targets(plan.targets, network.subnets, SampleTurn(self._round, MAX_REQUESTS, failing))
        if not targets:
            return ()
        few = replace(plan, targets=targets)
        client = self._make_client(engine, network)
        report = await run_connectivity_test(few, [client], tools=self._tools)
        if not report.rows:
            return ()
        control: Sequence[ConnectivityRow] = report.rows
        if report.failed:
            control = (await run_connectivity_test(few, [self._host])).rows
        return tuple(read_observations(subnet, targets, report.rows, control))

    def _is_unconfirmed(self, pair: ArrivalPair) -> bool:
        """Return whether requests of a pair have failed, and it does not count as failing yet."""
        record = self._tracker.arrivals.records[pair, ArrivalCheck.CONNECTION]
        return record.failures == 1
