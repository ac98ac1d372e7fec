"""Converts the containers that the engine lists into instances. Pure.

Compose and swarm label their containers with project and service, and these say which containers belong to the same
service. Containers that were started by hand are one service if they have the same first routing name, so that a second
`docker run` adds an endpoint.

`InstanceRules` decide where an endpoint is reached: at the container's own address, or at the worker's address and the
port that the worker publishes for it.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import pairwise

from mesh.config.labels.parse import LABEL_PREFIXES, ParsedLabels, parse_labels
from mesh.config.labels.reader import SCALED_LABEL
from mesh.config.labels.values import escape_unprintable
from mesh.config.settings import EndpointAddress
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, DrainReason, Health, HostPort, Instance, Name, Service, Transport
from mesh.sources.docker.identity import (
    ContainerIdentity,
    LabelOrigins,
    LabelRules,
    counting_labels,
    identify_container,
    ignored_label_problems,
    unmet_constraints,
)
from mesh.sources.docker.inspection import ContainerInspection, start_time
from mesh.sources.docker.messages import ContainerSummary

MAX_LABELS = 256
"""Labels of the mesh on one container; more of them are an attack or a mistake."""
MAX_LABEL_LENGTH = 4096
"""Characters of a label of the mesh and its value."""

TEST_LABEL = "io.vipmesh.test"
"""The label of short-lived containers that send requests for a test. A container with it is never an endpoint."""

_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)")
_WORKER_HAS_NO_WAY = frozenset({"overlay"})
"""Network drivers whose addresses only containers can reach."""
_OTHERS_HAVE_NO_WAY = frozenset({"bridge", "overlay", "nat"})
"""Network drivers whose addresses other workers cannot reach unless there are routes to them."""
_CHAIN = 8
"""Maximum number of containers in a chain of which each uses the network of the next."""

_KEPT_LABELS = (*LABEL_PREFIXES, SCALED_LABEL)


@dataclass(frozen=True, slots=True)
class InstanceRules:
    """Inputs that do not depend on the containers."""

    domain: Name
    """Appended to routing names without a dot."""
    endpoint_address: EndpointAddress = EndpointAddress.AUTO
    alone: bool = True
    """Whether no other worker sends traffic to these endpoints."""
    worker: Address | None = None
    """This worker's address, or None if it is not known."""
    version: int = 4
    """IP version of the VIPs, 4 or 6. Connections are not translated between versions."""
    labels: LabelRules = field(default_factory=LabelRules)
    """Which labels count."""
    most_labels: int = MAX_LABELS
    """The most labels of the mesh on one container."""
    label_length: int = MAX_LABEL_LENGTH
    """The most characters of a label of the mesh and its value."""


@dataclass(frozen=True, slots=True)
class ContainerHistory:
    """Facts that the list lacks, by container ID."""

    drains: Mapping[str, DrainReason] = field(default_factory=dict)
    healthy: Collection[str] = ()
    """Containers that were healthy since their start."""
    inspected: Mapping[str, ContainerInspection] = field(default_factory=dict)
    """The last inspection of each container that matters: labelled ones, and those whose network they use."""
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The labels of images, by the ID of the image. One that is not known has none."""
    tasks: Mapping[str, Mapping[str, str]] | None = None
    """The labels of the tasks of a swarm on this engine, by container ID; None if the engine is no manager."""

    awaited: Collection[str] = ()
    """Containers that the manager may yet learn to be of a task. They are left out, which is no problem."""

    def origins(self, container: ContainerSummary) -> LabelOrigins:
        """Return where the labels of a container come from."""
        image = self.images.get(container.image_id, {})
        if self.tasks is None:
            return LabelOrigins(image)
        return LabelOrigins(image, asks_manager=True, task=self.tasks.get(container.id))

    def network_mode(self, container: ContainerSummary) -> str:
        """Return the network mode of a container. Podman's list does not contain it."""
        listed = container.host_config.network_mode
        return listed or self.inspected.get(container.id, ContainerInspection()).network_mode or "default"

    def health(self, container: ContainerSummary) -> Health | None:
        """Return the health of a container by its HEALTHCHECK. Podman's list does not contain it."""
        listed = container_health(container)
        if listed is None and not container.host_config.network_mode:
            return self.inspected.get(container.id, ContainerInspection()).health
        if listed is Health.STARTING and container.id in self.healthy:
            return Health.HEALTHY  # the engine was restarted and counts from zero again; the process is the same
        return listed

    def run(self, container: ContainerSummary) -> str | None:
        """Return the run of a container, or None if it is not known."""
        return self.inspected.get(container.id, ContainerInspection()).run


@dataclass(frozen=True, slots=True)
class InstanceListing:
    """The instances on this worker."""

    instances: tuple[Instance, ...] = ()
    """In order of their ID."""
    problems: tuple[Problem, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    """Instance ID -> container name."""
    containers: Mapping[str, str] = field(default_factory=dict)
    """Container ID -> instance ID."""


@dataclass(frozen=True, slots=True)
class _EngineState:
    """All inputs of one listing."""

    everything: Mapping[str, ContainerSummary]
    """The containers by ID."""
    drivers: Mapping[str, str]
    """The driver of each network, by network name."""
    rules: InstanceRules
    known: ContainerHistory


class _ContainerRefusedError(MeshError):
    def __init__(self, code: Code, reason: str, remedy: str) -> None:
        super().__init__(code, f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def read_instances(
    containers: Sequence[ContainerSummary], drivers: Mapping[str, str], rules: InstanceRules, known: ContainerHistory
) -> InstanceListing:
    """Return the instances among the containers, and the problems of the rest. `drivers`: network name -> driver."""
    state = _EngineState({container.id: container for container in containers}, drivers, rules, known)
    instances: list[Instance] = []
    problems: list[Problem] = []
    names: dict[str, str] = {}
    ids: dict[str, str] = {}
    for container in sorted(containers, key=lambda container: container.id):
        name = container_name(container)
        subject = f"container {escape_unprintable(name)}"
        try:
            instance, found = _instance(container, state)
        except _ContainerRefusedError as refused:
            problems.append(Problem(refused.code, Severity.ERROR, subject, refused.reason, refused.remedy, where=None))
            continue
        except (ValueError, RecursionError) as error:  # such as an address that is none
            reason = f"what the engine tells of it cannot be used: {escape_unprintable(str(error))}"
            remedy = "look at it with `docker inspect`, and start it again"
            problems.append(Problem(Code.CONTAINER_UNUSABLE, Severity.ERROR, subject, reason, remedy, where=None))
            continue
        problems.extend(replace(problem, where=subject) for problem in found)
        if instance is not None:
            instances.append(instance)
            names[instance.id], ids[container.id] = name, instance.id
    instances.sort(key=lambda instance: instance.id)
    return InstanceListing(tuple(instances), tuple(problems), names, ids)


def has_mesh_label(labels: Mapping[str, str] | None) -> bool:
    """Return whether any label has a prefix of the mesh."""
    return any(key.startswith(LABEL_PREFIXES) for key in labels or ())


def container_name(container: ContainerSummary) -> str:
    """Return the container's own name. Names from links contain another slash."""
    own = [name.removeprefix("/") for name in container.names or () if "/" not in name.removeprefix("/")]
    return own[0] if own else container.id[:12]


def is_test(container: ContainerSummary) -> bool:
    """Return whether it is a short-lived container of a test, whatever labels its image has."""
    return TEST_LABEL in (container.labels or {})


def container_health(container: ContainerSummary) -> Health | None:
    """Return the health by the container's own HEALTHCHECK, or None if it has none."""
    match = _HEALTH.search(container.status)
    return Health(match[1]) if match else None


def _instance(container: ContainerSummary, state: _EngineState) -> tuple[Instance | None, Sequence[Problem]]:
    if container.unreadable and (container.labels is None or has_mesh_label(container.labels)):
        raise _ContainerRefusedError(
            Code.CONTAINER_UNUSABLE,
            f"what the engine tells of it cannot be read: {escape_unprintable(container.unreadable)}",
            "look at it with `docker inspect`, and start it again",
        )
    labels = {key: value for key, value in (container.labels or {}).items() if key.startswith(_KEPT_LABELS)}
    if not labels or container.state not in ("running", "paused") or is_test(container):
        return None, ()
    most, length = state.rules.most_labels, state.rules.label_length
    if len(labels) > most or any(len(key) + len(value) > length for key, value in labels.items()):
        raise _ContainerRefusedError(
            Code.CONTAINER_UNUSABLE,
            f"it has {len(labels)} labels of the mesh, or one of them is too long",
            f"give it at most {most}, each of at most {length} characters, or raise [source.docker] labels and "
            "label_length",
        )
    origins, rules = state.known.origins(container), state.rules.labels
    subject = f"container {escape_unprintable(container_name(container))}"
    ignored = ignored_label_problems(labels, origins, rules, subject)
    labels = counting_labels(labels, origins, rules)
    if not labels:
        return None, ignored
    _require_labels(container, origins, rules)
    identity = _identity(container, origins)
    if identity.one_off or (identity.unconfirmed is not None and container.id in state.known.awaited):
        return None, ()
    _require_confirmation(identity)
    owner, parsed = _declared(container, labels, identity, state.rules.domain)
    if parsed.service is None:
        return None, (*ignored, *parsed.problems)
    address, host_ports = _place(container, parsed.service, state)
    health = state.known.health(container)
    drain = DrainReason.PAUSED if container.state == "paused" else state.known.drains.get(container.id)
    id = f"{owner}/{container.id[:12]}"
    found = Instance(
        id,
        owner,
        address,
        labels,
        host_ports=host_ports,
        health=health,
        drain=drain,
        name=container_name(container),
        runs_commands=True,
        run=state.known.run(container),
    )
    return found, ignored


def _require_labels(container: ContainerSummary, origins: LabelOrigins, rules: LabelRules) -> None:
    """Refuse a container that lacks a label that the operator requires."""
    lacking = unmet_constraints(container.labels or {}, origins, rules)
    if lacking:
        raise _ContainerRefusedError(
            Code.REQUIRED_LABEL_MISSING,
            f"it has no label {escape_unprintable(str(lacking[0]))}, which [source.docker] require asks for",
            "give it that label if it is to be an instance",
        )


def _identity(container: ContainerSummary, origins: LabelOrigins) -> ContainerIdentity:
    """Return which service its labels make it an instance of."""
    try:
        identity = identify_container(container.labels or {}, origins)
    except ValueError as error:
        raise _ContainerRefusedError(
            Code.CONTAINER_UNUSABLE, str(error), "let Compose set this label, or remove it"
        ) from error
    return identity


def _require_confirmation(identity: ContainerIdentity) -> None:
    """Refuse a container that only says that it is a task."""
    if identity.unconfirmed is not None:
        raise _ContainerRefusedError(
            Code.SWARM_TASK_UNKNOWN,
            f"its labels say that it is a task of {escape_unprintable(identity.unconfirmed)[:80]}, "
            "and the manager of the swarm knows no such task",
            "start it as a task of that service, or without labels of swarm",
        )


def _declared(
    container: ContainerSummary, labels: Mapping[str, str], identity: ContainerIdentity, domain: Name
) -> tuple[str, ParsedLabels]:
    """Return the owner, and what the labels declare."""
    if identity.owner is not None:
        project, service = identity.owner
        owner = f"{project}/{service}"
        return owner, parse_labels(labels, owner=owner, subject=f"service {service}", domain=domain)
    name = container_name(container)
    parsed = parse_labels(labels, owner=f"docker/{name}", subject=f"service {name}", domain=domain)
    if parsed.service is not None and parsed.service.routes:
        return f"docker/{parsed.service.name}", parsed
    return f"docker/{name}", parsed


# ------------------------------------------------------------------------------------------------ where it is reached


def _place(container: ContainerSummary, service: Service, state: _EngineState) -> tuple[Address, tuple[HostPort, ...]]:
    """Return the address, and the ports that differ from the container's."""
    container, rules, known = _network_of(container, state), state.rules, state.known
    attached = container.network_settings.networks or {}
    if "host" in attached or known.network_mode(container) == "host":
        return _worker(rules), ()
    mine = next(_addresses(container, state), None)
    if rules.endpoint_address is not EndpointAddress.HOST and mine is not None:
        address, driver = mine
        if rules.endpoint_address is EndpointAddress.CONTAINER or rules.alone or driver not in _OTHERS_HAVE_NO_WAY:
            return address, ()
    elif rules.endpoint_address is EndpointAddress.CONTAINER or not container.ports:
        raise _ContainerRefusedError(
            Code.CONTAINER_UNUSABLE,
            f"it has no IPv{rules.version} address that this worker can reach",
            f"attach it to a network that gives it an IPv{rules.version} address, or publish its ports",
        )
    return _published(container, service, rules)


def _network_of(container: ContainerSummary, state: _EngineState) -> ContainerSummary:
    """Return the container whose network it uses, usually itself."""
    known = state.known
    chain = network_chain(container, state.everything, known)
    if chain is None:
        raise _ContainerRefusedError(
            Code.CONTAINER_UNUSABLE,
            "the container whose network it shares does not run",
            "start that container, then restart this one",
        )
    if known.network_mode(chain[-1]) != "host":  # the host's network outlives every container
        for borrower, lender in pairwise(chain):
            if _started_after(known.run(lender), known.run(borrower)):
                raise _ContainerRefusedError(
                    Code.CONTAINER_UNUSABLE,
                    f"it has no network since the container whose network it shares, "
                    f"{escape_unprintable(container_name(lender))}, has restarted",
                    f"restart {escape_unprintable(container_name(borrower))}",
                )
    return chain[-1]


def network_chain(
    container: ContainerSummary, everything: Mapping[str, ContainerSummary], known: ContainerHistory
) -> Sequence[ContainerSummary] | None:
    """Return the container, the one whose network it uses, and so on; None if one of them does not run."""
    chain = [container]
    while (mode := known.network_mode(chain[-1])).startswith("container:"):
        lender = everything.get(mode.removeprefix("container:"))
        if lender is None or len(chain) >= _CHAIN:
            return None
        chain.append(lender)
    return chain


def _started_after(run: str | None, other: str | None) -> bool:
    """Return whether a run began after another one; both times are of the engine's clock. False if one is not known."""
    began, before = start_time(run), start_time(other)
    return began is not None and before is not None and began > before


def _addresses(container: ContainerSummary, state: _EngineState) -> Iterator[tuple[Address, str]]:
    """Yield its addresses that this worker can reach, with the driver of their network, the preferred one first."""
    drivers, rules = state.drivers, state.rules
    attached, mode = container.network_settings.networks or {}, state.known.network_mode(container)
    first = "bridge" if mode == "default" else mode

    def preference(name: str) -> tuple[bool, bool, str]:
        narrow = not rules.alone and drivers.get(name, "bridge") in _OTHERS_HAVE_NO_WAY
        return narrow, name != first, name

    for name in sorted(attached, key=preference):
        attachment, driver = attached[name], drivers.get(name, "bridge")
        if attachment is None or driver in _WORKER_HAS_NO_WAY:
            continue
        text = attachment.ip_address if rules.version == 4 else attachment.ip6_address
        if text:
            yield str(ip_address(text)), driver


def _published(
    container: ContainerSummary, service: Service, rules: InstanceRules
) -> tuple[Address, tuple[HostPort, ...]]:
    worker = _worker(rules)
    every = {"", "0.0.0.0" if rules.version == 4 else "::"}
    there = {
        (port.type, port.private_port): port.public_port
        for port in container.ports or ()
        if port.public_port is not None and (port.ip in every or port.ip == worker)
    }
    found = []
    for transport, port in sorted(service.declared):
        public = there.get((transport, port))
        if public is None:
            text = f"{port}{'/udp' if transport is Transport.UDP else ''}"
            raise _ContainerRefusedError(
                Code.CONTAINER_UNUSABLE,
                f"other workers cannot reach its network, and its port {text} is not published on {worker}",
                f"run it with -p {text}, or set [source.docker] endpoint_address to container if the workers have "
                f"routes to its network",
            )
        found.append(HostPort(transport, port, public))
    return worker, tuple(found)


def _worker(rules: InstanceRules) -> Address:
    if rules.worker is None or ip_address(rules.worker).version != rules.version:
        raise _ContainerRefusedError(
            Code.CONTAINER_UNUSABLE,
            f"it is reached at the worker's IPv{rules.version} address, which is not known",
            "set [node] address",
        )
    return rules.worker
