"""Converts the plan to the services of the DNS zone. Pure, except for the cache of `ZonePublisher`.

The plan reuses the parts of services that have not changed; so does the zone: a part is converted once.
"""

import re
import threading
from collections.abc import Callable, Mapping

from mesh.control.service_plan import ServicePlan, ServicePlanInput
from mesh.model.eligibility import effective_health
from mesh.model.part import DaemonPart
from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.service import Endpoint, Health, Name
from mesh.util.bulkhead import Bulkhead
from meshdns import service_records as dns

bulkhead = Bulkhead(DaemonPart.NAMES)


class ZonePublisher:
    """Converts the parts of the plan, by name, to services of the zone, and passes each result to `publish`."""

    def __init__(self, publish: Callable[[Mapping[str, dns.DnsService]], None]) -> None:
        """`publish` may be called in any thread, but by one at a time."""
        self._publish = publish
        self._lock = threading.Lock()
        """A pass that was cancelled leaves its thread behind."""
        self._parts: Mapping[Name, ServicePlan] = {}
        self._made: PersistentMap[Name, dns.DnsService] = PersistentMap()

    def __call__(self, names: Mapping[Name, ServicePlan]) -> None:
        """Publish the services of these names: all names, each with the part of the plan that it leads to."""
        with self._lock:
            self._replace(names)

    def _replace(self, names: Mapping[Name, ServicePlan]) -> None:
        made: dict[Name, dns.DnsService | None] = {}
        for name in changed_keys(self._parts, names):
            part, before = names.get(name), self._parts.get(name)
            known = None if before is None or name not in self._made else (before, self._made[name])
            with bulkhead.contain(f"name {name}"):
                made[name] = None if part is None else dns_service(name, part, known)
        published = self._made.changed(made)
        self._publish(published)
        self._parts, self._made = names, published


def dns_service(
    name: Name, part: ServicePlan, before: tuple[ServicePlan, dns.DnsService] | None = None
) -> dns.DnsService:
    """The DNS service for one of a service's names. `before` is an earlier part and its DNS service: endpoints that
    have not changed are reused as the same objects. None if there was none.
    """
    inputs = part.inputs
    endpoints = _endpoints(inputs, before)
    serving = sum(endpoint.serving for endpoint in endpoints)
    return dns.DnsService(
        addresses=(part.vip,),
        endpoints=endpoints,
        ports=tuple(
            sorted({dns.DnsPort(r.listen_port, r.transport.value) for r in inputs.service.routes if r.name == name})
        ),
        about=(
            f"owner={inputs.service.owner}",
            f"state={'serving' if serving else 'unhealthy' if endpoints else 'empty'}",
            f"serving={serving}/{len(endpoints)}",
        ),
        canonical=name == part.names[0],
    )


def _endpoints(
    inputs: ServicePlanInput, before: tuple[ServicePlan, dns.DnsService] | None
) -> tuple[dns.DnsEndpoint, ...]:
    known: dict[int, tuple[Health | None, dns.DnsEndpoint]] = {}
    if before is not None and before[0].inputs.service is inputs.service:
        # `before` keeps the old endpoints alive, so their `id()` identifies them: cheaper than hashing endpoints.
        old = before[0].inputs
        rows = zip(old.endpoints, old.verdicts, before[1].endpoints, strict=True)
        known = {id(endpoint): (probed, made) for endpoint, probed, made in rows}
    found = []
    for endpoint, probed in zip(inputs.endpoints, inputs.verdicts, strict=True):
        verdict, made = known.get(id(endpoint), (None, None))
        if made is None or verdict is not probed:
            made = _endpoint(endpoint, effective_health(inputs.service, endpoint, probed))
        found.append(made)
    return tuple(found)


def _endpoint(endpoint: Endpoint, verdict: Health | None) -> dns.DnsEndpoint:
    about = [
        f"worker={endpoint.worker}",
        f"health={verdict.value if verdict is not None else 'not probed'}",
        f"weight={endpoint.weight}",
    ]
    if endpoint.port is not None:
        about.append(f"port={endpoint.port}")
    if endpoint.release:
        about.append(f"release={endpoint.release}")
    if endpoint.drain is not None:
        about.append("draining")
    serving = endpoint.drain is None and verdict in {None, Health.HEALTHY}
    return dns.DnsEndpoint(endpoint_label(endpoint.id), endpoint.address, serving, tuple(about))


def endpoint_label(id: str) -> str:
    """The last part of an endpoint's ID as one DNS label: `demo/web/10.2.0.1` -> `10-2-0-1`."""
    return re.sub(r"[^a-z0-9]+", "-", id.rpartition("/")[2].lower())[:63].strip("-") or "endpoint"
