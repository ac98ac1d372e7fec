"""A short digest of what every worker of a cluster must agree on: equal digests mean equal tables.

Twenty workers with a thousand services each cannot be compared by eye. Each worker shows this digest of its plan; a
worker whose digest differs for longer than a change takes to propagate has missed something. The digest covers:

* for each service, its owner, its VIP and the names it holds;
* its virtual servers on the VIP: port, transport, scheduler, affinity, flags, and for every real server the address,
  port, weight, forwarding method and thresholds;
* the same for its published ports, each counted once;
* the real servers whose connections are to be reset because their probes failed.

It leaves out what is local by nature: the worker's addresses that published ports are bound to, published ports left to
a program of the worker, what endpoints lack of their weight while they ramp, VIPs that are not bound since they are in
a network of the host, the resolver's address, real servers that still drain here, operations that the data plane
refused.

The digest is computed from the plan, not from the kernel: differences between the two are reported as failures and
repairs. 48 bits are enough against accidental collisions, and a metric, which is a double, holds them exactly.
"""

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType

import msgspec

from mesh.control.planner import Plan
from mesh.control.service_plan import ServicePlan, plan_service
from mesh.model.service import EndpointKey, Transport
from mesh.model.table import RealKey, RealServer, VirtualServer

BITS = 48


class TableDigest:
    """Computes the digest of successive plans. A part that a plan took over from the last one is not encoded again."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[ServicePlan, bytes]] = {}

    def __call__(self, planned: Plan, settled: Mapping[str, Mapping[EndpointKey, int]] = MappingProxyType({})) -> str:
        """The digest of a plan, twelve hexadecimal digits. `settled`: the weights that endpoints would have if none
        ramped, by owner, of the services of which some do.
        """
        before, self._parts = self._parts, {}
        for owner, part in planned.parts.items():
            last = before.get(owner)
            if last is not None and last[0] is part:
                self._parts[owner] = last
                continue
            weights = settled.get(owner)
            self._parts[owner] = part, _part_digest(owner, part if weights is None else _with_weights(part, weights))
        whole = b"".join(self._parts[owner][1] for owner in sorted(self._parts))
        return blake2b(whole, digest_size=BITS // 8).hexdigest()


def plan_digest(planned: Plan) -> str:
    """The digest of one plan, twelve hexadecimal digits."""
    return TableDigest()(planned)


def digest_number(digest: str) -> int:
    """The digest as a number that a double holds exactly, for the metric."""
    return int(digest, 16)


def _with_weights(part: ServicePlan, weights: Mapping[EndpointKey, int]) -> ServicePlan:
    endpoints = tuple(
        endpoint.with_weight(weights.get(endpoint.key, endpoint.weight), endpoint.asked_weight)
        for endpoint in part.inputs.endpoints
    )
    return plan_service(part.inputs._replace(endpoints=endpoints))


def _part_digest(owner: str, part: ServicePlan) -> bytes:
    on_vip = {
        (key.transport, key.port): server for key, server in part.virtual_servers.items() if key.address == part.vip
    }
    content = [owner, part.vip, sorted(part.names), _servers(on_vip), _servers(part.published), sorted(part.failed)]
    return blake2b(msgspec.json.encode(content), digest_size=16).digest()


def _servers(servers: Mapping[tuple[Transport, int], VirtualServer]) -> list[object]:
    return [
        (where, server.scheduler, server.persistence, sorted(server.flags), _real_servers(server))
        for where, server in sorted(servers.items(), key=lambda item: item[0])
    ]


def _real_servers(server: VirtualServer) -> list[tuple[RealKey, RealServer]]:
    return sorted(server.real_servers.items(), key=lambda item: item[0])
