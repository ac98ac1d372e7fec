"""What `vipmesh explain` answers: from a name, VIP, port or container to the ways of its requests. Pure.

Whatever a user has at hand is understood: a name or `name:port`, a URL, a VIP, an address of an endpoint, a published
port as `30080` or `53/udp`, a service as `project/service` or `service`, a container by name, id or the beginning of
its id. What is not found is answered with what comes nearest.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mesh.api.explain.document import Cause, Explanation, Reason
from mesh.api.explain.trace import ServiceTracer, TraceScope
from mesh.control.snapshot import DetailedSnapshot
from mesh.model.service import Endpoint, Instance, Service, Transport
from mesh.model.view import ClusterView

_URL = re.compile(r"(?:(?P<scheme>[a-z]+)://)?(?P<rest>.*?)(?(scheme)(?:/.*)?)", re.DOTALL)
_HOST_PORT = re.compile(r"\[?(?P<host>[^][]+?)\]?:(?P<port>\d{1,5})")
_PORT = re.compile(r"(?P<port>\d{1,5})(?:/(?P<transport>tcp|udp|sctp))?")
_SCHEMES = {"http": 80, "https": 443}
_ID = 4
"""Characters of a container's id that suffice, if only one begins with them."""


@dataclass(frozen=True, slots=True)
class _ExplainQuery:
    host: str
    """Lower case; empty: only a port."""
    text: str
    """As it was asked, without scheme and path."""
    place: TraceScope


def explain(asked: str, evidence: DetailedSnapshot) -> Explanation:
    """The ways of what is asked; with a reason and no way if there is nothing of it."""
    observed, question = evidence.observed, _understood(asked)
    nothing = Explanation(
        asked=asked,
        kind="nothing",
        worker=observed.facts.worker,
        data_plane=observed.facts.data_plane,
        frozen=tuple(str(observed.frozen[part]) for part in sorted(observed.frozen)),
        failures=tuple(map(str, observed.failures)),
    )
    effective = observed.effective()
    if effective is None:
        reason = Reason(Cause.FROZEN, "nothing is known yet: the store has not answered since the start")
        return replace(nothing, why_not=(reason,))
    view = effective.known
    for kind, services, place in _found(question, evidence, view):
        if services:
            ways = ServiceTracer(evidence, effective)
            return replace(nothing, kind=kind, ways=tuple(ways.of(service, place) for service in services))
    if (instance := _container(question.text, evidence)) is not None:
        return replace(nothing, kind="container", why_not=tuple(_unrouted(instance, evidence)))
    return replace(nothing, why_not=tuple(_unknown(question, evidence, view)))


def _understood(asked: str) -> _ExplainQuery:
    match = _URL.fullmatch(asked.strip())
    assert match is not None, "it matches everything"
    scheme, rest = match["scheme"], match["rest"]
    transport = Transport(scheme) if scheme in set(Transport) else None
    if (only := _PORT.fullmatch(rest)) and scheme is None:
        return _ExplainQuery(
            "", rest, TraceScope(int(only["port"]), Transport(only["transport"]) if only["transport"] else None)
        )
    if (both := _HOST_PORT.fullmatch(rest)) and not _is_address(rest):
        return _ExplainQuery(both["host"].lower().rstrip("."), rest, TraceScope(int(both["port"]), transport))
    return _ExplainQuery(
        rest.strip("[]").lower().rstrip("."), rest, TraceScope(_SCHEMES.get(scheme) if rest else None, transport)
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _found(
    question: _ExplainQuery, evidence: DetailedSnapshot, view: ClusterView
) -> Iterator[tuple[str, tuple[Service, ...], TraceScope]]:
    """Every way to understand the question, with the services that it then is about, the likeliest first."""
    host, place = question.host, question.place
    if not host:
        yield "port", _with_port(view, place) if place.port is not None else (), place
        return
    if _is_address(host):
        host = str(ipaddress.ip_address(host))
        holders = {view.claims.holders.get(host), *(n for n, vip in view.claims.vips.items() if vip == host)}
        yield "vip", tuple(s for s in view.services if s.name in holders or s.fixed_vip == host), place
        if place.port is not None and host in _own_addresses(evidence):
            yield "port", _with_port(view, place), place
        yield _of_endpoints("endpoint", [e for e in view.endpoints if e.address == host], view)
        return
    names = {host, f"{host}.{evidence.domain}" if "." not in host else host}
    yield "name", tuple(service for service in view.services if names.intersection(service.names)), place
    yield _of_endpoints("endpoint", _endpoints(question.text, view), view)
    suffix = f"/{question.text}"
    yield "service", tuple(s for s in view.services if s.owner == question.text or s.owner.endswith(suffix)), place


def _of_endpoints(kind: str, found: list[Endpoint], view: ClusterView) -> tuple[str, tuple[Service, ...], TraceScope]:
    owners = {endpoint.owner for endpoint in found}
    one = found[0].key if len(found) == 1 else None
    return kind, tuple(service for service in view.services if service.owner in owners), TraceScope(endpoint=one)


def _endpoints(text: str, view: ClusterView) -> list[Endpoint]:
    exact = [e for e in view.endpoints if text in (e.id, e.name, f"{e.worker}/{e.id}", e.id.rpartition("/")[2])]
    if exact or len(text) < _ID:
        return exact
    begun = [e for e in view.endpoints if e.id.rpartition("/")[2].startswith(text)]
    return begun if len(begun) == 1 else []


def _with_port(view: ClusterView, place: TraceScope) -> tuple[Service, ...]:
    """Those that publish the port or ask for it; if there are none, those that listen there on their VIP."""
    holders = {
        name
        for (transport, port), (name, _) in view.claims.ports.items()
        if port == place.port and place.transport in (None, transport)
    }
    published = tuple(
        service
        for service in view.services
        if service.name in holders
        or any(p.port == place.port and place.transport in (None, p.transport) for p in service.publishes)
    )
    return published or tuple(
        service
        for service in view.services
        if any(r.listen_port == place.port and place.transport in (None, r.transport) for r in service.routes)
    )


def _own_addresses(evidence: DetailedSnapshot) -> frozenset[str]:
    plan = evidence.observed.plan
    return frozenset(address for part in (plan.parts.values() if plan else ()) for address in part.grounds.own)


# ----------------------------------------------------------------------------------------------- nothing in the way


def _container(text: str, evidence: DetailedSnapshot) -> Instance | None:
    for instance in evidence.observed.instances or ():
        if text in (instance.id, instance.name, instance.id.rpartition("/")[2], instance.owner, instance.address):
            return instance
    return None


def _unrouted(instance: Instance, evidence: DetailedSnapshot) -> Iterator[Reason]:
    refused = [problem for problem in evidence.problems if problem.owner == instance.owner]
    for problem in refused:
        where = f"{problem.where}: " if problem.where else ""
        yield Reason(Cause.REFUSED, f"{where}{problem.subject}: {problem.reason}", problem.remedy)
    if not refused:
        text = f"it runs here at {instance.address}, and no label leads to it"
        yield Reason(Cause.NOT_ROUTED, text, "give it a label such as mesh.routing.port_80: web.local")


def _unknown(question: _ExplainQuery, evidence: DetailedSnapshot, view: ClusterView) -> Iterator[Reason]:
    about = [
        p for p in evidence.problems if question.text and question.text in f"{p.where} {p.subject} {p.reason}".split()
    ]
    for problem in about:
        yield Reason(Cause.REFUSED, f"{problem.subject}: {problem.reason}", problem.remedy)
    if about:
        return
    if (name := view.claims.holders.get(question.host)) is not None:
        yield Reason(Cause.UNKNOWN, f"the VIP is kept for {name}, which no worker runs now", "start it again")
        return
    if question.place.port is not None and not question.host:
        text = f"no service publishes port {question.text} or listens there on its VIP"
        yield Reason(Cause.UNKNOWN, text, "`vipmesh status` lists the ports")
        return
    known = [name for service in view.services for name in (*service.names, service.owner.rpartition("/")[2])]
    known += [endpoint.name or endpoint.id for endpoint in view.endpoints]
    near = difflib.get_close_matches(question.host, known, n=1)
    remedy = f"did you mean {near[0]}?" if near else "`vipmesh status` lists what there is"
    yield Reason(Cause.UNKNOWN, "no name, VIP, service, endpoint or container of the mesh is called so", remedy)
