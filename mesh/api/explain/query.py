"""Finds what a question is about, and explains it: from a name, VIP, port or container to its request paths. Pure.

A question may be a name or `name:port`, a URL, a VIP, the address of an endpoint, a published port as `30080` or
`53/udp`, a service as `project/service` or `service`, or a container by its name, its id or the beginning of its id. If
nothing is found, the answer names what comes nearest.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import replace

from mesh.api.explain.document import Cause, Explanation, Reason
from mesh.api.explain.past import NO_EVENTS, KeptEvents, gone_reasons
from mesh.api.explain.question import ExplainQuery, TraceScope, is_address, parse_question
from mesh.api.explain.trace import ServiceTracer
from mesh.cluster.cut_off import statements_about
from mesh.control.snapshot import DetailedSnapshot
from mesh.model.part import ProblemPart
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, Instance, Service
from mesh.model.view import ClusterView

_LABEL = 4096
"""The most characters of a label that are searched for names."""
_ID = 4
"""The shortest beginning of a container id that is understood, in characters, if only one id begins with it."""


def explain(asked: str, evidence: DetailedSnapshot, past: KeptEvents = NO_EVENTS) -> Explanation:
    """Return the request paths of what is asked, or the reasons why there are none. `past` says what became of what is
    gone.
    """
    found = _explain(asked, evidence, past)
    workers = {endpoint.worker for way in found.ways for endpoint in way.endpoints}
    if not workers:
        # What is not there may be on any of them, and a worker is not a way.
        workers = {*evidence.observed.unleased, *evidence.observed.registered}
        workers |= {worker for worker, _ in evidence.observed.lost}
    about = statements_about(evidence.observed.problems.get(ProblemPart.PEERS, ()), workers)
    return replace(found, cut_off=tuple(map(str, about)))


def _explain(asked: str, evidence: DetailedSnapshot, past: KeptEvents) -> Explanation:
    observed, question = evidence.observed, parse_question(asked)
    nothing = Explanation(
        asked=asked,
        kind="nothing",
        worker=observed.facts.worker,
        data_plane=observed.facts.data_plane,
        frozen=tuple(str(observed.frozen[part]) for part in sorted(observed.frozen)),
        acting=observed.acting,
        failures=tuple(map(str, observed.failures)),
    )
    effective = observed.effective()
    if effective is None:
        reason = Reason(Cause.FROZEN, "nothing is known yet: the store has not answered since the daemon started")
        return replace(nothing, why_not=(reason,))
    view = effective.known
    for kind, services, place in _found(question, evidence, view):
        if services:
            ways = ServiceTracer(evidence, effective, past)
            return replace(nothing, kind=kind, ways=tuple(ways.of(service, place) for service in services))
    if (instance := _container(question.text, evidence)) is not None:
        return replace(nothing, kind="container", why_not=tuple(_unrouted(instance, evidence)))
    return replace(nothing, why_not=tuple(_unknown(question, evidence, view, past)))


def _found(
    question: ExplainQuery, evidence: DetailedSnapshot, view: ClusterView
) -> Iterator[tuple[str, tuple[Service, ...], TraceScope]]:
    """Yield every way to understand the question, with the services it is then about, the likeliest first."""
    host, place = question.host, question.place
    if not host:
        yield "port", _with_port(view, place) if place.port is not None else (), place
        return
    if is_address(host):
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
    # The text has the case of the owner; the host behind which a port was written does not.
    named = question.text.rpartition(":")[0] if place.port is not None and ":" in question.text else question.text
    yield "service", tuple(s for s in view.services if s.owner == named or s.owner.endswith(f"/{named}")), place


def _of_endpoints(kind: str, found: list[Endpoint], view: ClusterView) -> tuple[str, tuple[Service, ...], TraceScope]:
    """Return the services of these endpoints, limited to the endpoint if there is only one."""
    owners = {endpoint.owner for endpoint in found}
    one = found[0].key if len(found) == 1 else None
    return kind, tuple(service for service in view.services if service.owner in owners), TraceScope(endpoint=one)


def _endpoints(text: str, view: ClusterView) -> list[Endpoint]:
    """Return the endpoints with this id or name, or else the only one whose id begins with it."""
    exact = [e for e in view.endpoints if text in (e.id, e.name, f"{e.worker}/{e.id}", e.id.rpartition("/")[2])]
    if exact or len(text) < _ID:
        return exact
    begun = [e for e in view.endpoints if e.id.rpartition("/")[2].startswith(text)]
    return begun if len(begun) == 1 else []


def _with_port(view: ClusterView, place: TraceScope) -> tuple[Service, ...]:
    """Return the services that publish the port or want to; if there are none, those that listen there on their VIP."""
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
    """Return the worker's own addresses, on which published ports answer."""
    plan = evidence.observed.plan
    return frozenset(address for part in (plan.parts.values() if plan else ()) for address in part.inputs.own)


# ------------------------------------------------------------------------------------------------- no request path


def _container(text: str, evidence: DetailedSnapshot) -> Instance | None:
    for instance in evidence.observed.instances or ():
        if text in (instance.id, instance.name, instance.id.rpartition("/")[2], instance.owner, instance.address):
            return instance
    return None


def _unrouted(instance: Instance, evidence: DetailedSnapshot) -> Iterator[Reason]:
    """Yield the reasons why no request path leads to a container of this worker."""
    refused = [problem for problem in evidence.problems if problem.owner == instance.owner]
    for problem in refused:
        where = f"{problem.where}: " if problem.where else ""
        yield Reason(Cause.REFUSED, f"{where}{problem.subject}: {problem.reason}", problem.remedy)
    if not refused:
        text = f"it runs on worker {evidence.observed.facts.worker} at {instance.address}, and no label routes to it"
        yield Reason(Cause.NOT_ROUTED, text, "give it a label such as mesh.routing.port_80: web.local")


def _unknown(
    question: ExplainQuery, evidence: DetailedSnapshot, view: ClusterView, past: KeptEvents
) -> Iterator[Reason]:
    """Yield the reasons why nothing was found: a problem that mentions it or a label that wants the name, a container
    without labels, what became of it, a reserved VIP, or else the nearest name.
    """
    about = [
        problem for problem in evidence.problems if _mentions(problem, question) or _wants(problem, question, evidence)
    ]
    for problem in about:
        where = f"{problem.where}: " if problem.where else ""
        yield Reason(Cause.REFUSED, f"{where}{problem.subject}: {problem.reason}", problem.remedy)
    if about:
        return
    if (container := _unlabelled(question.text, evidence)) is not None:
        text = f"the container {container} runs on worker {evidence.observed.facts.worker}, and no label routes to it"
        yield Reason(Cause.NOT_ROUTED, text, "give it a label such as mesh.routing.port_80: web.local")
        return
    gone = tuple(gone_reasons(question, past, view, evidence.domain))
    yield from gone
    if gone:
        return
    if (name := view.claims.holders.get(question.host)) is not None:
        yield Reason(Cause.UNKNOWN, f"the VIP is reserved for {name}, which no worker runs now", "start it again")
        return
    if question.place.port is not None and not question.host:
        text = f"no service publishes port {question.text} or listens on it at its VIP"
        yield Reason(Cause.UNKNOWN, text, "`vipmesh status` lists the ports")
        return
    known = [name for service in view.services for name in (*service.names, service.owner.rpartition("/")[2])]
    known += [endpoint.name or endpoint.id for endpoint in view.endpoints]
    near = difflib.get_close_matches(question.host, known, n=1)
    remedy = f"did you mean {near[0]}?" if near else "`vipmesh status` lists what there is"
    yield Reason(Cause.UNKNOWN, "no name, VIP, service, endpoint or container of the mesh matches", remedy)


def _mentions(problem: Problem, question: ExplainQuery) -> bool:
    """Return whether the text of a problem has what is asked as a word, in quotes or not."""
    words = f"{problem.where} {problem.subject} {problem.reason}".split()
    return bool(question.text) and question.text in {each for word in words for each in (word, word.strip("\"'`,;:()"))}


def _wants(problem: Problem, question: ExplainQuery, evidence: DetailedSnapshot) -> bool:
    """Return whether the label that a problem is about asks for the name in question."""
    if problem.label is None or not question.host:
        return False
    wanted = {question.host, f"{question.host}.{evidence.domain}" if "." not in question.host else question.host}
    return any(
        not wanted.isdisjoint(_names_in(instance.labels.get(problem.label, "")))
        for instance in evidence.observed.instances or ()
        if instance.owner == problem.owner
    )


def _names_in(value: str) -> Iterator[str]:
    """Yield the names in the value of a label, without scheme, port and path, however malformed it is."""
    for item in re.split(r"[;,\s]+", value[:_LABEL]):
        yield parse_question(item).host
        yield item.lower()


def _unlabelled(text: str, evidence: DetailedSnapshot) -> str | None:
    """Return the name of a running container without labels of the mesh; None if none has this name or id."""
    for id, name in evidence.unlabelled.items():
        if text and (text == name or (len(text) >= _ID and id.startswith(text))):
            return name
    return None
