"""Plan -> what the name server shall know. Pure, but for the cache of `ZonePublisher`.

The plan takes over the parts of services of which nothing has changed, and so does this: what a part becomes is made
once.
"""

import re
from collections.abc import Callable, Mapping

from mesh.control.service_plan import ServicePlan, ServicePlanInput
from mesh.model.eligibility import effective_health
from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.service import Endpoint, Health, Name
from meshdns import service_records as dns


class ZonePublisher:
    """Parts of the plan by name -> services of the zone, handed on to `publish` each time."""

    def __init__(self, publish: Callable[[Mapping[str, dns.DnsService]], None]) -> None:
        self._publish = publish
        self._parts: Mapping[Name, ServicePlan] = {}
        self._made: PersistentMap[Name, dns.DnsService] = PersistentMap()

    def __call__(self, names: Mapping[Name, ServicePlan]) -> None:
        """The names that shall resolve, all of them, and what each leads to."""
        made: dict[Name, dns.DnsService | None] = {}
        for name in changed_keys(self._parts, names):
            part, before = names.get(name), self._parts.get(name)
            known = None if before is None else (before, self._made[name])
            made[name] = None if part is None else dns_service(name, part, known)
        self._parts, self._made = names, self._made.changed(made)
        self._publish(self._made)


def dns_service(
    name: Name, part: ServicePlan, before: tuple[ServicePlan, dns.DnsService] | None = None
) -> dns.DnsService:
    """What one of a service's names leads to. From what was made of an earlier part what has not changed is taken over:
    the same objects.
    """
    grounds = part.grounds
    endpoints = _endpoints(grounds, before)
    serving = sum(endpoint.serving for endpoint in endpoints)
    return dns.DnsService(
        addresses=(part.vip,),
        endpoints=endpoints,
        ports=tuple(
            sorted({dns.DnsPort(r.listen_port, r.transport.value) for r in grounds.service.routes if r.name == name})
        ),
        about=(
            f"owner={grounds.service.owner}",
            f"state={'serving' if serving else 'unhealthy' if endpoints else 'empty'}",
            f"serving={serving}/{len(endpoints)}",
        ),
        canonical=name == part.names[0],
    )


def _endpoints(
    grounds: ServicePlanInput, before: tuple[ServicePlan, dns.DnsService] | None
) -> tuple[dns.DnsEndpoint, ...]:
    known: dict[int, tuple[Health | None, dns.DnsEndpoint]] = {}
    if before is not None and before[0].grounds.service is grounds.service:
        old = before[0].grounds  # it is alive, and so are its endpoints: ids stand for them
        rows = zip(old.endpoints, old.verdicts, before[1].endpoints, strict=True)
        known = {id(endpoint): (probed, made) for endpoint, probed, made in rows}
    found = []
    for endpoint, probed in zip(grounds.endpoints, grounds.verdicts, strict=True):
        verdict, made = known.get(id(endpoint), (None, None))
        is_same = made is not None and verdict is probed
        found.append(
            made if is_same and made else _endpoint(endpoint, effective_health(grounds.service, endpoint, probed))
        )
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
    """The last part of an endpoint's id as one label: `demo/web/10.2.0.1` -> `10-2-0-1`."""
    return re.sub(r"[^a-z0-9]+", "-", id.rpartition("/")[2].lower())[:63].strip("-") or "endpoint"
