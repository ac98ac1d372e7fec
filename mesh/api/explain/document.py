"""The answer of `vipmesh explain`: the way of a request, and for everything that is not in the way the reason.

One value, served as JSON by the admin API and shown as text to people. `mesh/api/explain/query.py` finds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mesh.model.problem import Notices
from mesh.model.service import Address, Name


class Cause(StrEnum):
    """Why something is not in the way of a request. Stable: programs may compare it."""

    PROBE_FAILED = "probe-failed"
    NOT_PROBED_YET = "not-probed-yet"
    """It runs, and has not answered its first probe yet."""
    ENGINE_UNHEALTHY = "engine-unhealthy"
    """The container engine's own health check failed."""
    ENGINE_STARTING = "engine-starting"
    DRAINING = "draining"
    WEIGHT_ZERO = "weight-zero"
    OTHER_FAMILY = "other-family"
    """An IPv4 endpoint behind an IPv6 address, or the other way round."""
    NAME_TAKEN = "name-taken"
    VIP_TAKEN = "vip-taken"
    PORT_TAKEN = "port-taken"
    PORT_CONTESTED = "port-contested"
    """A program of this worker listens on a published port."""
    UNCLAIMED = "unclaimed"
    """The store has not given it out yet."""
    REFUSED = "refused"
    """What is written in a label, or asked of the cluster, is refused."""
    NOT_PROGRAMMED = "not-programmed"
    """The data plane does not have it, though it should."""
    NO_ENDPOINT = "no-endpoint"
    NOT_ROUTED = "not-routed"
    """No label leads to the container."""
    FROZEN = "frozen"
    """The last good state stays in force because something does not answer."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is not in the way."""

    cause: Cause
    text: str
    """What was found, with times, addresses and names."""
    remedy: str | None = None
    """What to do, an imperative; None: time does it."""

    def __str__(self) -> str:
        return self.text if self.remedy is None else f"{self.text}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class NameStep:
    """A routing name and what it resolves to."""

    name: Name
    vip: Address | None
    """What the name server of this worker answers; None: it does not."""
    why_not: Reason | None = None


@dataclass(frozen=True, slots=True)
class RealServerStep:
    """An endpoint behind the virtual servers of one container port."""

    endpoint: str
    """`EndpointStep.id`; of an endpoint that is gone, its address."""
    address: str
    """`10.2.0.1:8080`, where connections are sent."""
    weight: int
    """As programmed: 0 takes no new connection."""
    share: float
    """Of the new connections, from 0 to 1, by the weights alone."""


@dataclass(frozen=True, slots=True)
class PortStep:
    """The virtual servers that lead to one container port."""

    virtual_servers: tuple[str, ...]
    """`tcp://10.112.0.7:80`; those of a published port on the worker's own addresses."""
    published: bool
    container_port: int
    scheduler: str
    sticky_seconds: int
    """0: every connection is balanced by itself."""
    real_servers: tuple[RealServerStep, ...] = ()
    why_not: tuple[Reason, ...] = ()
    """Why nothing answers there; empty: it works."""


@dataclass(frozen=True, slots=True)
class EndpointStep:
    """One instance, and whether it is in the way."""

    id: str
    name: str | None
    worker: str
    address: str
    """Where it is reached; with its port if that is the same for all container ports."""
    release: str | None
    serving: bool
    probe: str | None
    """What it is asked: `GET http://10.2.0.1:8080/health`; None: it has no probe."""
    last_probe: str | None
    """What the last probe found and when, if this worker asks: `status 200, 2 s ago`."""
    why_not: tuple[Reason, ...] = ()
    in_spite_of: tuple[Reason, ...] = ()
    """Why it should not be in the way, and is: too many have failed at once, or there is nobody better."""


@dataclass(frozen=True, slots=True)
class ServiceTrace:
    """One service: from its names over its VIP and ports to its endpoints."""

    service: Name
    owner: str
    """The declaration it comes from, `project/service`."""
    vip: Address | None
    names: tuple[NameStep, ...]
    ports: tuple[PortStep, ...]
    endpoints: tuple[EndpointStep, ...]
    why_not: tuple[Reason, ...] = ()
    """Why none of it is served; empty: it is."""
    problems: tuple[str, ...] = ()
    """What else was refused or ignored of this service, as the log has it."""

    @property
    def works(self) -> bool:
        """Whether a request gets to an endpoint on each of the ports, and each endpoint that was asked for serves."""
        reasons = [*self.why_not, *(reason for port in self.ports for reason in port.why_not)]
        return not reasons and bool(self.ports) and any(endpoint.serving for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer of `vipmesh explain --json`."""

    asked: str
    kind: str
    """As what it was understood: `name`, `vip`, `port`, `endpoint`, `service`, `container`, `nothing`."""
    worker: str
    """Who answers."""
    data_plane: str
    ways: tuple[ServiceTrace, ...] = ()
    why_not: tuple[Reason, ...] = ()
    """What is to be said where no way exists."""
    frozen: tuple[str, ...] = ()
    """What does not answer, so that its last good state stays in force."""
    failures: tuple[str, ...] = ()
    """What the data plane would not do."""

    @property
    def found(self) -> bool:
        """Whether there is a service or container to explain."""
        return self.kind != "nothing"

    @property
    def works(self) -> bool:
        """Whether a request gets somewhere on every way that was asked for.

        Of the services that declare one name it goes to the one that holds it.
        """
        working = [way.works for way in self.ways]
        return any(working) if self.kind == "name" else bool(working) and all(working)


def render_explanation(explanation: Explanation, notices: Notices) -> str:
    """The text for people. `notices`: the messages of the explanation with their codes."""
    return "\n".join(_lines(explanation, notices))


def _lines(explanation: Explanation, notices: Notices) -> Iterator[str]:
    for reason in explanation.why_not:
        yield f"{explanation.asked}: {reason}"
    for number, way in enumerate(explanation.ways):
        if number or explanation.why_not:
            yield ""
        yield from _way(way, notices)
    for title, lines in (("frozen", notices.frozen), ("the data plane refused", notices.failures)):
        if lines:
            yield ""
            yield f"{title}:"
            yield from (f"  {message.line}" for message in lines)


def _way(way: ServiceTrace, notices: Notices) -> Iterator[str]:
    yield f"service {way.service}  ({way.owner})"
    yield from _reasons("  ", way.why_not)
    for name in way.names:
        yield f"  {name.name}  ->  {name.vip or 'does not resolve here'}"
        yield from _reasons("    ", () if name.why_not is None else (name.why_not,))
    before: tuple[RealServerStep, ...] = ()
    steps = {endpoint.id: endpoint for endpoint in way.endpoints}
    for port in way.ports:
        sticky = f", a client stays for {port.sticky_seconds} s" if port.sticky_seconds else ""
        what = "published port" if port.published else "virtual server"
        yield f"  {what} {'  '.join(port.virtual_servers)}  ->  container port {port.container_port}"
        yield f"    {port.scheduler}{sticky}"
        yield from _reasons("    ", port.why_not)
        if port.real_servers and port.real_servers == before:
            yield "    the same endpoints"
            continue
        before = port.real_servers
        for real in before:
            yield f"    {real.share:4.0%}  weight {real.weight:<4} {real.address:<22}{_about(steps.get(real.endpoint))}"
    absent = [endpoint for endpoint in way.endpoints if endpoint.why_not]
    if absent:
        yield "  not in the way:"
    for endpoint in absent:
        yield f"    {endpoint.address:<22}{_about(endpoint)}"
        yield from _reasons("      ", endpoint.why_not)
    if problems := [problem for problem in notices.problems if problem.owner == way.owner]:
        yield "  problems:"
        yield from (f"    {problem.coded.line}" for problem in problems)


def _about(endpoint: EndpointStep | None) -> str:
    if endpoint is None:
        return "  gone, finishing its connections"
    words = [f"  {endpoint.name or endpoint.id} on {endpoint.worker}"]
    if endpoint.release:
        words.append(f"release {endpoint.release}")
    if endpoint.serving and endpoint.probe:
        words.append(f"{endpoint.probe}: {endpoint.last_probe}" if endpoint.last_probe else endpoint.probe)
    return "  ".join(words)


def _reasons(indent: str, reasons: tuple[Reason, ...]) -> Iterator[str]:
    yield from (f"{indent}{reason.cause}: {reason}" for reason in reasons)
