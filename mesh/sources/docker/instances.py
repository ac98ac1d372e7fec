"""What the engine lists -> instances. Pure.

The containers of one service are told by whoever made them: compose and swarm label their containers with project and
service. Containers that somebody ran by hand are one service when they have the same first routing name, so that
`docker run` a second time adds an endpoint.

An endpoint is reached where `InstanceRules` says: at the container's own address, or at the worker's address and the
port that the worker publishes for it.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from mesh.config.labels.parse import LABEL_PREFIXES, ParsedLabels, parse_labels
from mesh.config.labels.values import escape_unprintable
from mesh.config.settings import EndpointAddress
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, DrainReason, Health, HostPort, Instance, Name, Service, Transport
from mesh.sources.docker.messages import ContainerSummary, NetworkAttachment

MAX_LABELS = 256
"""Labels of ours on one container; more is no declaration but an attack or a mistake."""
MAX_LABEL_LENGTH = 4096
"""Characters of a label of ours and its value."""

_PROJECT, _SERVICE, _ONE_OFF = "com.docker.compose.project", "com.docker.compose.service", "com.docker.compose.oneoff"
_STACK, _SWARM = "com.docker.stack.namespace", "com.docker.swarm.service.name"
_OWNER_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)")
_WORKER_HAS_NO_WAY = frozenset({"overlay"})
"""Drivers whose addresses only containers can reach."""
_OTHERS_HAVE_NO_WAY = frozenset({"bridge", "overlay", "nat"})
"""Drivers whose addresses no other worker can reach, unless somebody routes to them."""
_CHAIN = 8
"""Containers that share the network of one that shares ... : no more steps than that."""


@dataclass(frozen=True, slots=True)
class InstanceRules:
    """What does not depend on the containers."""

    domain: Name
    """Completes bare routing names."""
    endpoint_address: EndpointAddress = EndpointAddress.AUTO
    alone: bool = True
    """No other worker sends to these endpoints."""
    worker: Address | None = None
    """This worker's address; None: not known."""
    version: int = 4
    """4 or 6: that of the VIPs, since connections are not translated from one to the other."""


@dataclass(frozen=True, slots=True)
class ContainerHistory:
    """What the list does not tell: drains by container id, and containers that were healthy since they started."""

    drains: Mapping[str, DrainReason] = field(default_factory=dict)
    healthy: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class InstanceListing:
    """What runs, as the mesh sees it."""

    instances: tuple[Instance, ...] = ()
    """In order of their id."""
    problems: tuple[Problem, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    """Instance id -> container name."""
    containers: Mapping[str, str] = field(default_factory=dict)
    """Container id -> instance id."""


class _ContainerRefusedError(MeshError):
    def __init__(self, code: Code, reason: str, remedy: str) -> None:
        super().__init__(code, f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def read_instances(
    containers: Sequence[ContainerSummary], drivers: Mapping[str, str], rules: InstanceRules, known: ContainerHistory
) -> InstanceListing:
    """The instances among the containers, and what is wrong with the others. `drivers`: network name -> its driver."""
    everything = {container.id: container for container in containers}
    instances: list[Instance] = []
    problems: list[Problem] = []
    names: dict[str, str] = {}
    ids: dict[str, str] = {}
    for container in sorted(containers, key=lambda container: container.id):
        name = container_name(container)
        subject = f"container {escape_unprintable(name)}"
        try:
            instance, found = _instance(container, everything, drivers, rules, known)
        except _ContainerRefusedError as refused:
            problems.append(Problem(refused.code, Severity.ERROR, subject, refused.reason, refused.remedy, where=None))
            continue
        problems.extend(replace(problem, where=subject) for problem in found)
        if instance is not None:
            instances.append(instance)
            names[instance.id], ids[container.id] = name, instance.id
    instances.sort(key=lambda instance: instance.id)
    return InstanceListing(tuple(instances), tuple(problems), names, ids)


def has_mesh_label(labels: Mapping[str, str] | None) -> bool:
    """Whether any label is ours."""
    return any(key.startswith(LABEL_PREFIXES) for key in labels or ())


def container_name(container: ContainerSummary) -> str:
    """The container's own name; names that links gave it have a slash more."""
    own = [name.removeprefix("/") for name in container.names or () if "/" not in name.removeprefix("/")]
    return own[0] if own else container.id[:12]


def container_health(container: ContainerSummary) -> Health | None:
    """What the container's own HEALTHCHECK says; None: it has none."""
    match = _HEALTH.search(container.status)
    return Health(match[1]) if match else None


def _instance(
    container: ContainerSummary,
    everything: Mapping[str, ContainerSummary],
    drivers: Mapping[str, str],
    rules: InstanceRules,
    known: ContainerHistory,
) -> tuple[Instance | None, Sequence[Problem]]:
    labels = {key: value for key, value in (container.labels or {}).items() if key.startswith(LABEL_PREFIXES)}
    if not labels or container.state not in ("running", "paused") or _is_one_off(container):
        return None, ()
    if len(labels) > MAX_LABELS or any(len(key) + len(value) > MAX_LABEL_LENGTH for key, value in labels.items()):
        raise _ContainerRefusedError(
            Code.CONTAINER_UNUSABLE,
            f"it has {len(labels)} labels of the mesh or one that is too long",
            f"give it at most {MAX_LABELS}, each of at most {MAX_LABEL_LENGTH} characters",
        )
    owner, parsed = _declared(container, labels, rules.domain)
    if parsed.service is None:
        return None, parsed.problems
    address, host_ports = _place(container, parsed.service, everything, drivers, rules)
    health = container_health(container)
    if health is Health.STARTING and container.id in known.healthy:
        health = Health.HEALTHY  # the engine was restarted and begins to count anew; the process is the same
    drain = DrainReason.PAUSED if container.state == "paused" else known.drains.get(container.id)
    id = f"{owner}/{container.id[:12]}"
    found = Instance(
        id, owner, address, labels, None, host_ports, health, drain, container_name(container), runs_commands=True
    )
    return found, ()


def _is_one_off(container: ContainerSummary) -> bool:
    """Made by `docker compose run`: it has the labels of its service and is not one of its instances."""
    return (container.labels or {}).get(_ONE_OFF, "").lower() == "true"


def _declared(container: ContainerSummary, labels: Mapping[str, str], domain: Name) -> tuple[str, ParsedLabels]:
    """The owner, and what the labels declare."""
    given = container.labels or {}
    project, service = given.get(_PROJECT), given.get(_SERVICE)
    if _SWARM in given:
        project, service = given.get(_STACK, "swarm"), given[_SWARM]
    if project is not None and service is not None:
        for part in (project, service):
            if not _OWNER_PART.fullmatch(part):
                raise _ContainerRefusedError(
                    Code.CONTAINER_UNUSABLE,
                    f"its project or service is called {escape_unprintable(part)[:80]!r}",
                    "let compose label it, or remove that",
                )
        owner = f"{project}/{service}"
        return owner, parse_labels(labels, owner=owner, subject=f"service {service}", domain=domain)
    name = container_name(container)
    parsed = parse_labels(labels, owner=f"docker/{name}", subject=f"service {name}", domain=domain)
    if parsed.service is not None and parsed.service.routes:
        return f"docker/{parsed.service.name}", parsed
    return f"docker/{name}", parsed


# ------------------------------------------------------------------------------------------------ where it is reached


def _place(
    container: ContainerSummary,
    service: Service,
    everything: Mapping[str, ContainerSummary],
    drivers: Mapping[str, str],
    rules: InstanceRules,
) -> tuple[Address, tuple[HostPort, ...]]:
    """The address, and the ports that differ from the container's."""
    container = _network_of(container, everything)
    attached = container.network_settings.networks or {}
    if "host" in attached or container.host_config.network_mode == "host":
        return _worker(rules), ()
    mine = next(_addresses(container, attached, drivers, rules), None)
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


def _network_of(container: ContainerSummary, everything: Mapping[str, ContainerSummary]) -> ContainerSummary:
    """The container whose network it uses, mostly its own."""
    for _ in range(_CHAIN):
        mode = container.host_config.network_mode
        if not mode.startswith("container:"):
            return container
        other = everything.get(mode.removeprefix("container:"))
        if other is None:
            break
        container = other
    raise _ContainerRefusedError(
        Code.CONTAINER_UNUSABLE,
        "the container whose network it shares does not run",
        "start that one, then this one again",
    )


def _addresses(
    container: ContainerSummary,
    attached: Mapping[str, NetworkAttachment | None],
    drivers: Mapping[str, str],
    rules: InstanceRules,
) -> Iterator[tuple[Address, str]]:
    """Its addresses that this worker can reach, with the driver of their network, the preferred one first."""

    def preference(name: str) -> tuple[bool, bool, str]:
        first = "bridge" if container.host_config.network_mode == "default" else container.host_config.network_mode
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
