"""One short word for what every worker of a cluster must agree on: equal words, equal tables.

Twenty workers with a thousand services each cannot be compared by eye. Each shows this digest of its plan, and who
shows another one for longer than a change takes to arrive has missed something. What counts:

* of each service its owner, its VIP and the names it holds;
* its virtual servers on the VIP: port, transport, scheduler, affinity, flags, and of every real server address, port,
  weight, forwarding and thresholds;
* its published ports with the same, once each;
* the real servers whose connections are to be reset because their probes failed.

What is local by nature does not: the worker's own addresses that published ports stand on, published ports that it
leaves to a program of its own, the resolver's address, what still drains here, what the data plane refused.

It follows from the plan and not from the kernel: what is between the two is told as failures and repairs. Against
chance 48 bits are plenty, and a metric, a double, holds them exactly; nobody gains by a collision.
"""

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from mesh.control.planner import Plan
from mesh.control.service_plan import ServicePlan
from mesh.model.service import Transport
from mesh.model.table import RealKey, RealServer, VirtualServer

BITS = 48


class TableDigest:
    """Of one plan after another. A part that the plan took over is not looked at again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[ServicePlan, bytes]] = {}

    def __call__(self, planned: Plan) -> str:
        """Twelve hexadecimal digits."""
        known, self._known = self._known, {}
        for owner, part in planned.parts.items():
            before = known.get(owner)
            self._known[owner] = before if before is not None and before[0] is part else (part, _of_part(owner, part))
        whole = b"".join(self._known[owner][1] for owner in sorted(self._known))
        return blake2b(whole, digest_size=BITS // 8).hexdigest()


def plan_digest(planned: Plan) -> str:
    """The digest of one plan: see `TableDigest`."""
    return TableDigest()(planned)


def digest_number(digest: str) -> int:
    """The same for a metric: it fits a double."""
    return int(digest, 16)


def _of_part(owner: str, part: ServicePlan) -> bytes:
    on_vip = {
        (key.transport, key.port): server for key, server in part.virtual_servers.items() if key.address == part.vip
    }
    said = [owner, part.vip, sorted(part.names), _servers(on_vip), _servers(part.published), sorted(part.failed)]
    return blake2b(msgspec.json.encode(said), digest_size=16).digest()


def _servers(servers: Mapping[tuple[Transport, int], VirtualServer]) -> list[object]:
    return [
        (where, server.scheduler, server.persistence, sorted(server.flags), _real_servers(server))
        for where, server in sorted(servers.items(), key=lambda item: item[0])
    ]


def _real_servers(server: VirtualServer) -> list[tuple[RealKey, RealServer]]:
    return sorted(server.real_servers.items(), key=lambda item: item[0])
