"""The document that `vipmesh explain` shows: the path of a request, and why other endpoints get no traffic.

One value, which the admin API serves as JSON and `render_explanation` turns into text. `mesh/api/explain/query.py`
makes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mesh.model.problem import Notices
from mesh.model.service import Address, Name, WeightOrigin


class Cause(StrEnum):
    """Why something gets no traffic. The values are stable: programs may compare them."""

    PROBE_FAILED = "probe-failed"
    """The endpoint's probe fails."""
    NOT_PROBED_YET = "not-probed-yet"
    """The endpoint runs, and its first probe has not succeeded yet."""
    ENGINE_UNHEALTHY = "engine-unhealthy"
    """The container engine's own health check fails."""
    ENGINE_STARTING = "engine-starting"
    """The container engine's own health check has not succeeded yet."""
    DRAINING = "draining"
    """The endpoint takes no new connections; the text says why."""
    WEIGHT_ZERO = "weight-zero"
    """The endpoint's weight is 0."""
    NO_SHARE = "no-share"
    """Its release has a share of 0 % of new connections."""
    OTHER_FAMILY = "other-family"
    """An IPv4 endpoint behind an IPv6 address, or the other way round."""
    NAME_TAKEN = "name-taken"
    """Another service holds the name."""
    VIP_TAKEN = "vip-taken"
    """Another service holds the VIP."""
    VIP_WITHHELD = "vip-withheld"
    """The VIP is in a network of this host, so this worker does not bind it."""
    PORT_TAKEN = "port-taken"
    """Another service holds the published port."""
    PORT_CONTESTED = "port-contested"
    """A program on this worker listens on the published port."""
    UNCLAIMED = "unclaimed"
    """The name, VIP or port has not been claimed in the store yet."""
    REFUSED = "refused"
    """A label, or a request to the cluster, was refused."""
    NOT_PROGRAMMED = "not-programmed"
    """The data plane does not have it, although it should."""
    NOT_ARRIVING = "not-arriving"
    """Requests from a network are not answered, although everything is programmed and an endpoint is healthy."""
    NO_ENDPOINT = "no-endpoint"
    """No endpoint takes connections: clients are refused."""
    NOT_LISTENING = "not-listening"
    """The service has no such port."""
    GONE = "gone"
    """It was there; the text says what became of it, and when."""
    NOT_ROUTED = "not-routed"
    """No label routes to the container."""
    FROZEN = "frozen"
    """A part does not answer, so its last good state stays in force."""
    UNKNOWN = "unknown"
    """This worker knows nothing about it."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something gets no traffic."""

    cause: Cause
    """The kind of reason, for programs."""
    text: str
    """The finding, with times, addresses and names."""
    remedy: str | None = None
    """The action to take, an imperative; None if waiting is enough."""
    about: str | None = None
    """The endpoint that is gone, `worker/id`; None for other reasons."""

    def __str__(self) -> str:
        return self.text if self.remedy is None else f"{self.text}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class NameStep:
    """A routing name and the VIP that it resolves to."""

    name: Name
    vip: Address | None
    """The answer of this worker's name server; None if the name does not resolve."""
    why_not: Reason | None = None
    """Why the name does not resolve; None if it does."""


@dataclass(frozen=True, slots=True)
class RealServerStep:
    """A real server behind the virtual servers of one container port."""

    endpoint: str
    """`EndpointStep.id`; the address if the endpoint is gone."""
    address: str
    """Where connections are sent: `10.2.0.1:8080`."""
    weight: int
    """The programmed weight; 0 takes no new connections."""
    share: float
    """Its share of new connections, from 0 to 1, by the weights alone."""


@dataclass(frozen=True, slots=True)
class PortStep:
    """The virtual servers that lead to one container port."""

    virtual_servers: tuple[str, ...]
    """`tcp://10.112.0.7:80`; for a published port, one on each of the worker's own addresses."""
    published: bool
    """Whether it is a published port, not a port of the VIP."""
    container_port: int
    scheduler: str
    """The scheduler, as in the label `routing.scheduler`."""
    sticky_seconds: int
    """Seconds that a client keeps its endpoint on this port; 0 if every connection is balanced on its own."""
    real_servers: tuple[RealServerStep, ...] = ()
    why_not: tuple[Reason, ...] = ()
    """Why nothing answers there, or not every endpoint that should; empty if it works."""


@dataclass(frozen=True, slots=True)
class EndpointStep:
    """One endpoint, and whether it gets traffic."""

    id: str
    name: str | None
    """The container's name; None if it has none."""
    worker: str
    """The worker that runs it."""
    address: str
    """Where it is reached, with the port if it is the same for all container ports."""
    release: str | None
    """The release that its label names; None without one."""
    serving: bool
    """Whether new connections go to it."""
    probe: str | None
    """The request of its probe: `GET http://10.2.0.1:8080/health`; None if it has no probe."""
    last_probe: str | None
    """The result and age of the last probe: `status 200, 2 s ago`; None if this worker has not probed it."""
    why_not: tuple[Reason, ...] = ()
    """Why it gets no traffic; empty if it serves."""
    in_spite_of: tuple[Reason, ...] = ()
    """Why it should get no traffic although it serves: too many have failed at once, or no better endpoint exists."""
    weight_from: str = "label"
    """Where its weight comes from, as in the status: `label` or `operator`."""
    since: str | None = None
    """Since when this worker has seen it in its state: `2026-11-30 14:02:40 UTC, 5 min ago`; None if not known."""
    drained_by: str | None = None
    """The operator who drained it; None if nobody did, or if that is not known."""
    slow_start: str | None = None
    """How much of its weight it has while it ramps, and until when, in words; None if it has all of it."""


@dataclass(frozen=True, slots=True)
class ServiceTrace:
    """The request path through one service: names, VIP, ports and endpoints."""

    service: Name
    """The first routing name."""
    owner: str
    """The declaration that it comes from, `project/service`."""
    vip: Address | None
    """The VIP; None if the service has none."""
    names: tuple[NameStep, ...]
    ports: tuple[PortStep, ...]
    endpoints: tuple[EndpointStep, ...]
    why_not: tuple[Reason, ...] = ()
    """Why the service has no VIP, or no port that was asked for; empty if it has both."""
    problems: tuple[str, ...] = ()
    """The refused or ignored settings of this service, as the log has them."""
    not_arriving: tuple[Reason, ...] = ()
    """The networks whose requests were seen without an answer; empty if none were."""
    gone: tuple[Reason, ...] = ()
    """What became of the endpoints that the service had and has no more; empty if it has as many as before, or if that
    is not known.
    """
    shares: tuple[str, ...] = ()
    """The shares of its releases that are in force, in words; empty if none are."""

    @property
    def works(self) -> bool:
        """Whether every port leads to an endpoint, at least one of the endpoints in question serves, and no requests
        were seen that do not arrive.
        """
        reasons = [*self.why_not, *self.not_arriving, *(reason for port in self.ports for reason in port.why_not)]
        return not reasons and bool(self.ports) and any(endpoint.serving for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class OtherWorker:
    """The answer of another worker to the same question."""

    worker: str
    reasons: tuple[Reason, ...] = ()
    """Its findings, without those that the worker which was asked has too."""
    error: str | None = None
    """Why it did not answer, and what to do; None if it did."""
    code: str | None = None
    """The code of the error."""

    @property
    def is_silent(self) -> bool:
        """Whether it did not answer."""
        return self.error is not None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The document of `vipmesh explain --json`."""

    asked: str
    """The question, as the user wrote it."""
    kind: str
    """How it was understood: `name`, `vip`, `port`, `endpoint`, `service`, `container`, `nothing`."""
    worker: str
    """The worker that answers."""
    data_plane: str
    """`ipvs`, `nftables` or `userspace`."""
    ways: tuple[ServiceTrace, ...] = ()
    """The request path through each service in question."""
    why_not: tuple[Reason, ...] = ()
    """Why there is no request path at all; empty if there is one."""
    frozen: tuple[str, ...] = ()
    """The parts that do not answer, so that their last good state stays in force, one line each."""
    failures: tuple[str, ...] = ()
    """The operations that the data plane refused, one line each."""
    cut_off: tuple[str, ...] = ()
    """Which of the workers in question are cut off, this one included, one line each, as in the status."""
    elsewhere: tuple[OtherWorker, ...] = ()
    """The answers of the other workers; empty if they were not asked, or add nothing."""
    acting: str | None = None
    """The worker whose daemon acts for the swarm, as in the status."""

    @property
    def found(self) -> bool:
        """Whether a service or container was found."""
        return self.kind != "nothing"

    @property
    def works(self) -> bool:
        """Whether a request reaches an endpoint on every path in question.

        If several services declare one name, one working path is enough: requests go to the service that holds it.
        """
        working = [way.works for way in self.ways]
        return any(working) if self.kind == "name" else bool(working) and all(working)


def render_explanation(explanation: Explanation, notices: Notices) -> str:
    """Return the text for people. `notices` has the messages of the explanation with their codes."""
    return "\n".join(_lines(explanation, notices))


def _lines(explanation: Explanation, notices: Notices) -> Iterator[str]:
    for reason in explanation.why_not:
        yield f"{explanation.asked}: {reason}"
    for number, way in enumerate(explanation.ways):
        if number or explanation.why_not:
            yield ""
        yield from _way(way, notices)
    yield from _elsewhere(explanation)
    cut_off = tuple(problem.coded for problem in notices.problems if str(problem) in explanation.cut_off)
    for title, lines in (
        ("frozen", notices.frozen),
        ("cut off", cut_off),
        ("the data plane refused", notices.failures),
    ):
        if lines:
            yield ""
            yield f"{title}:"
            yield from (f"  {message.line}" for message in lines)


def _elsewhere(explanation: Explanation) -> Iterator[str]:
    """Yield what other workers say, and which of them did not answer if that may matter."""
    found = [each for each in explanation.elsewhere if each.reasons]
    if found and not explanation.ways and not explanation.why_not:
        for each in found:
            yield from (f"{explanation.asked}: worker {each.worker}: {reason}" for reason in each.reasons)
    elif found:
        yield ""
        yield "on other workers:"
        for each in found:
            yield from (f"  {each.worker}: {reason.cause}: {reason}" for reason in each.reasons)
    if explanation.ways and explanation.works and not any(way.gone for way in explanation.ways):
        return
    missing: dict[tuple[str, str], list[str]] = {}
    for each in explanation.elsewhere:
        if each.error is not None:
            text = each.error.removeprefix(f"worker {each.worker}: ")
            missing.setdefault((text, "" if each.code is None else f" [{each.code}]"), []).append(each.worker)
    if missing:
        yield ""
    for (text, code), workers in missing.items():
        yield f"without the answer of {', '.join(workers)}: {text}{code}"


def _way(way: ServiceTrace, notices: Notices) -> Iterator[str]:
    yield f"service {way.service}  ({way.owner})"
    yield from _reasons("  ", way.why_not)
    yield from _reasons("  ", way.not_arriving)
    for name in way.names:
        yield f"  {name.name}  ->  {name.vip or 'does not resolve here'}"
        yield from _reasons("    ", () if name.why_not is None else (name.why_not,))
    before: tuple[RealServerStep, ...] = ()
    steps = {endpoint.id: endpoint for endpoint in way.endpoints}
    for port in way.ports:
        seconds = port.sticky_seconds
        sticky = f", a client keeps its endpoint on this port for {seconds} s" if seconds else ""
        what = "published port" if port.published else "virtual server"
        yield f"  {what} {'  '.join(port.virtual_servers)}  ->  container port {port.container_port}"
        yield f"    {port.scheduler}{sticky}"
        yield from _reasons("    ", port.why_not)
        if port.real_servers and port.real_servers == before:
            yield "    the same endpoints as above"
            continue
        before = port.real_servers
        for real in before:
            yield f"    {real.share:4.0%}  weight {real.weight:<4} {real.address:<22}{_about(steps.get(real.endpoint))}"
    yield from (f"  share of release {share}" for share in way.shares)
    absent = [endpoint for endpoint in way.endpoints if endpoint.why_not]
    if absent:
        yield "  no traffic:"
    for endpoint in absent:
        yield f"    {endpoint.address:<22}{_about(endpoint)}"
        yield from _reasons("      ", endpoint.why_not)
    if way.gone:
        yield "  gone:"
        yield from (f"    {reason}" for reason in way.gone)
    shown = {str(problem) for problem in notices.problems if problem.owner == way.owner}.intersection(way.problems)
    if problems := [problem for problem in notices.problems if str(problem) in shown]:
        yield "  problems:"
        yield from (f"    {problem.coded.line}" for problem in problems)


def _about(endpoint: EndpointStep | None) -> str:
    """Describe an endpoint in one line; None stands for a real server whose endpoint is gone."""
    if endpoint is None:
        return "  gone, its connections are finishing"
    words = [f"  {endpoint.name or endpoint.id} on {endpoint.worker}"]
    if endpoint.weight_from == WeightOrigin.OPERATOR:
        words.append("weight set by an operator")
    if endpoint.release:
        words.append(f"release {endpoint.release}")
    if endpoint.slow_start:
        words.append(endpoint.slow_start)
    if endpoint.since and not endpoint.serving:
        words.append(f"since {endpoint.since}")
    if endpoint.drained_by:
        words.append(f"drained by {endpoint.drained_by}")
    if endpoint.serving and any(reason.cause is Cause.NOT_ARRIVING for reason in endpoint.in_spite_of):
        words.append("requests of other workers do not arrive there; its own probe:")
    if endpoint.serving and endpoint.probe:
        words.append(f"{endpoint.probe}: {endpoint.last_probe}" if endpoint.last_probe else endpoint.probe)
    return "  ".join(words)


def _reasons(indent: str, reasons: tuple[Reason, ...]) -> Iterator[str]:
    yield from (f"{indent}{reason.cause}: {reason}" for reason in reasons)
