"""Plan -> what the name server shall know. Pure, but for the cache of `Names`.

The plan takes over the parts of services of which nothing has changed, and so does this: what a part becomes is made
once.
"""

import re
from collections.abc import Callable, Mapping

from mesh.control.service_plan import Grounds, Part
from mesh.model.eligibility import said
from mesh.model.persistent_map import ShardedMap, differing
from mesh.model.service import Endpoint, Health, Name
from meshdns import service_records as dns


class Names:
    """Parts of the plan by name -> services of the zone, handed on to `publish` each time."""

    def __init__(self, publish: Callable[[Mapping[str, dns.Service]], None]) -> None:
        self._publish = publish
        self._parts: Mapping[Name, Part] = {}
        self._made: ShardedMap[Name, dns.Service] = ShardedMap()

    def __call__(self, names: Mapping[Name, Part]) -> None:
        """The names that shall resolve, all of them, and what each leads to."""
        made: dict[Name, dns.Service | None] = {}
        for name in differing(self._parts, names):
            part, before = names.get(name), self._parts.get(name)
            known = None if before is None else (before, self._made[name])
            made[name] = None if part is None else named(name, part, known)
        self._parts, self._made = names, self._made.changed(made)
        self._publish(self._made)


def named(name: Name, part: Part, before: tuple[Part, dns.Service] | None = None) -> dns.Service:
    """What one of a service's names leads to. From what was made of an earlier part what has not changed is taken over:
    the same objects.
    """
    grounds = part.grounds
    endpoints = _endpoints(grounds, before)
    serving = sum(endpoint.serving for endpoint in endpoints)
    return dns.Service(
        addresses=(part.vip,),
        endpoints=endpoints,
        ports=tuple(
            sorted({dns.Port(r.listen_port, r.transport.value) for r in grounds.service.routes if r.name == name})
        ),
        about=(
            f"owner={grounds.service.owner}",
            f"state={'serving' if serving else 'unhealthy' if endpoints else 'empty'}",
            f"serving={serving}/{len(endpoints)}",
        ),
        canonical=name == part.names[0],
    )


def _endpoints(grounds: Grounds, before: tuple[Part, dns.Service] | None) -> tuple[dns.Endpoint, ...]:
    known: dict[int, tuple[Health | None, dns.Endpoint]] = {}
    if before is not None and before[0].grounds.service is grounds.service:
        old = before[0].grounds  # it is alive, and so are its endpoints: ids stand for them
        rows = zip(old.endpoints, old.verdicts, before[1].endpoints, strict=True)
        known = {id(endpoint): (probed, made) for endpoint, probed, made in rows}
    found = []
    for endpoint, probed in zip(grounds.endpoints, grounds.verdicts, strict=True):
        verdict, made = known.get(id(endpoint), (None, None))
        is_same = made is not None and verdict is probed
        found.append(made if is_same and made else _endpoint(endpoint, said(grounds.service, endpoint, probed)))
    return tuple(found)


def _endpoint(endpoint: Endpoint, verdict: Health | None) -> dns.Endpoint:
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
    return dns.Endpoint(label(endpoint.id), endpoint.address, serving, tuple(about))


def label(id: str) -> str:
    """The last part of an endpoint's id as one label: `demo/web/10.2.0.1` -> `10-2-0-1`."""
    return re.sub(r"[^a-z0-9]+", "-", id.rpartition("/")[2].lower())[:63].strip("-") or "endpoint"
