"""Explains why an endpoint gets no traffic, and what its probe does. Pure.

Each function yields every reason, not only the first one: after removing one, users must not run into the next.
"""

from collections.abc import Iterator

from mesh.api.explain.document import Cause, Reason
from mesh.cluster.cut_off import statement_of
from mesh.control.snapshot import DetailedSnapshot
from mesh.health.state_machine import Verdict
from mesh.model.eligibility import effective_health, probe_of, real_keys
from mesh.model.part import ProblemPart
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import DrainReason, Endpoint, EndpointKey, Health, Service, WeightOrigin
from mesh.model.table import RealKey

_DRAINS = {
    DrainReason.ASKED: ("an operator drains it", "end this with `vipmesh undrain {}`"),
    DrainReason.STOPPING: ("its container is being stopped", None),
    DrainReason.PAUSED: ("its container is paused", "unpause it"),
    DrainReason.MAINTENANCE: ("it is in maintenance and not probed", "end this with `vipmesh undrain {}`"),
    DrainReason.UNREACHABLE: (
        "this worker can reach neither it nor its worker",
        "check that its worker runs and is connected",
    ),
}


def endpoint_reasons(
    service: Service,
    endpoint: Endpoint,
    probed: Health | None,
    asked: tuple[Probe, RealKey] | None,
    evidence: DetailedSnapshot,
) -> Iterator[Reason]:
    """Yield the reasons why no new connection goes to the endpoint.

    `probed` is the verdict of its probes, None before the first one. `asked` is its probe and the address that is
    probed, None if it has no probe.
    """
    if endpoint.drain is not None:
        yield _draining(service, endpoint, evidence)
    health = effective_health(service, endpoint, probed)
    probe = probe_of(service, endpoint)
    if probe is None:
        yield from _by_engine(endpoint, health)
    elif health is not Health.HEALTHY:
        yield _by_probe(endpoint, probe, health, asked, evidence)
    if endpoint.weight == 0:
        yield _weight_zero(endpoint)


def describe_probe(probe: Probe, place: RealKey) -> str:
    """Return what a probe does, in words; `place` is the address that it is sent to."""
    match probe.kind:
        case ProbeKind.HTTP | ProbeKind.HTTPS:
            return f"{probe.method} {probe.kind}://{place}{probe.path}"
        case ProbeKind.TCP:
            return f"connect to {place}"
        case ProbeKind.UDP:
            return f"send to {place} over UDP"
        case ProbeKind.GRPC | ProbeKind.GRPCS:
            about = probe.path.strip("/")
            return f"ask {probe.kind}://{place} for the health of {about or 'the server'}"
        case ProbeKind.COMMAND:
            return f"run `{probe.command}` in the container"


def describe_last_probe(key: EndpointKey, evidence: DetailedSnapshot) -> str | None:
    """Return the result and age of the last probe: `status 200, 2 s ago`; None if this worker has not probed it."""
    history = evidence.verdicts.get(key, ())
    return f"{history[-1].reason}, {_ago(history[-1], evidence)}" if history else None


def _draining(service: Service, endpoint: Endpoint, evidence: DetailedSnapshot) -> Reason:
    """Return the reason of an endpoint that drains. It must drain."""
    assert endpoint.drain is not None
    text, remedy = _DRAINS[endpoint.drain]
    used = {real for server in evidence.programmed.virtual_servers.values() for real in server.real_servers}
    finishing = not used.isdisjoint(real_keys(service, endpoint))
    text += ": established connections finish, new ones go elsewhere" if finishing else ": no connection is left"
    if remedy is not None:
        remedy = remedy.format(endpoint.name or endpoint.id)
    if endpoint.drain is DrainReason.UNREACHABLE:
        told = statement_of(evidence.observed.problems.get(ProblemPart.PEERS, ()), endpoint.worker)
        remedy = remedy if told is None else told.remedy
    return Reason(Cause.DRAINING, text, remedy)


def _weight_zero(endpoint: Endpoint) -> Reason:
    if endpoint.weight_from is WeightOrigin.LABEL:
        return Reason(Cause.WEIGHT_ZERO, "its weight is 0", "set its label routing.weight to 1 or more")
    remedy = f"end this with `vipmesh weight {endpoint.name or endpoint.id} reset`"
    return Reason(Cause.WEIGHT_ZERO, "an operator set its weight to 0", remedy)


def _by_engine(endpoint: Endpoint, health: Health | None) -> Iterator[Reason]:
    if health is Health.UNHEALTHY:
        text = "the container engine's own health check fails"
        yield Reason(Cause.ENGINE_UNHEALTHY, text, f"see `docker inspect {endpoint.name or endpoint.id}`")
    elif health is Health.STARTING:
        yield Reason(Cause.ENGINE_STARTING, "the container engine's own health check has not succeeded yet")


def _by_probe(
    endpoint: Endpoint,
    probe: Probe,
    health: Health | None,
    asked: tuple[Probe, RealKey] | None,
    evidence: DetailedSnapshot,
) -> Reason:
    """Return the reason of an endpoint whose probe does not succeed."""
    failed = health is Health.UNHEALTHY
    cause = Cause.PROBE_FAILED if failed else Cause.NOT_PROBED_YET
    if endpoint.worker != evidence.observed.facts.worker:
        # Of the verdicts of other workers, only the answer that decided is known.
        what = "reports that its probe fails" if failed else "has not reported a first success yet"
        view = evidence.observed.view
        answer = view.reasons.get(endpoint.key) if view is not None and failed else None
        what += f": {answer}" if answer is not None else ""
        what += f" ({describe_probe(*asked)})" if asked is not None else ""
        remedy = f"see the log of {endpoint.name or endpoint.id} on {endpoint.worker}"
        return Reason(cause, f"worker {endpoint.worker} {what}", remedy)
    what = describe_probe(*asked) if asked is not None else "its probe"
    history = evidence.verdicts.get(endpoint.key, ())
    if not history:
        delay = f", probing begins {probe.initial_delay:g} s after the start" if probe.initial_delay else ""
        return Reason(cause, f"{what}: not answered yet{delay}")
    last = history[-1]
    run = next((n for n, verdict in enumerate(reversed(history)) if verdict.ok is not last.ok), len(history))
    found = f"{what}: {last.reason}, {_ago(last, evidence)}, took {last.duration:.2g} s"
    if last.ok:
        return Reason(cause, f"{found}; {run} of the {probe.healthy_threshold} successes in a row that it needs")
    enough = "the first success makes it serve"
    if failed:
        enough = f"{probe.healthy_threshold} successes make it serve again"
    # The history is bounded: if all of it failed, there may have been more failures before.
    count = f"{run} or more" if run == len(history) > 1 else str(run)
    return Reason(
        cause,
        f"{found}; {count} failed in a row, {enough}",
        f"see the log of {endpoint.name or endpoint.id} on {endpoint.worker}",
    )


def _ago(verdict: Verdict, evidence: DetailedSnapshot) -> str:
    return f"{max(0.0, evidence.now - verdict.at):.0f} s ago"
