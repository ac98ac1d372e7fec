"""Which containers run while their engine is away: what was known of them, and what the kernel tells of processes.

An engine that restarts without live-restore ends its containers and starts them again, the first of them long before
it answers. A restart keeps a container's ID, which is in the cgroup of its processes, but it may give its address to
another container. So a container counts as begun when a new process of it runs and the address that it has now is
certain. Whoever was seen to run and whose process has ended does not run.

Evidence is never taken from what is not seen: a container of which no process was visible while the engine answered
counts as the last list says.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from mesh.sources.docker.inspection import ContainerInspection
from mesh.sources.docker.instances import (
    ContainerHistory,
    InstanceListing,
    InstanceRules,
    container_health,
    has_mesh_label,
    read_instances,
)
from mesh.sources.docker.messages import ContainerNetworks, ContainerSummary, NetworkAttachment
from mesh.sources.docker.process_facts import ContainerProcess, ObservedContainer, moved_address
from mesh.sources.docker.processes import ContainerProcesses

REMEMBERED = 120.0
"""Seconds for which a container that has ended is remembered: an engine ends all of them before it goes."""
MAX_REMEMBERED = 1000
"""The most containers that have ended and are remembered."""


@dataclass(frozen=True, slots=True)
class RememberedContainer:
    """A container as it was when it ran last."""

    summary: ContainerSummary
    inspection: ContainerInspection
    process: ContainerProcess
    """Its first process, which was visible."""


@dataclass(frozen=True, slots=True)
class LastListing:
    """What was known when the engine went away."""

    containers: Sequence[ContainerSummary] = ()
    """Those that ran."""
    drivers: Mapping[str, str] = field(default_factory=dict)
    known: ContainerHistory = field(default_factory=ContainerHistory)
    remembered: Mapping[str, RememberedContainer] = field(default_factory=dict)
    """Containers with labels of the mesh of which a process was visible, also those that have ended since; by ID."""


def begun_container(last: RememberedContainer, now: ObservedContainer) -> ContainerSummary | None:
    """Return what the engine would list of a container that has begun again; None if not all of it is certain."""
    mode = last.inspection.network_mode or last.summary.host_config.network_mode
    networks = last.summary.network_settings.networks or {}
    if now.process == last.process or mode.startswith("container:"):
        return None
    if mode != "host" and "host" not in networks:
        if not now.interfaces or (moved := _moved(networks, now)) is None:
            return None
        networks = moved
    health = container_health(last.summary)
    return msgspec.structs.replace(
        last.summary,
        state="running",
        status="Up" if health is None else "Up (health: starting)",
        ports=[
            port
            for port in last.summary.ports or ()
            if (port.type, port.private_port, port.public_port) in last.inspection.fixed_ports
        ],
        network_settings=ContainerNetworks(networks),
    )


def listing_without_engine(
    last: LastListing, ended: Collection[str], begun: Mapping[str, ContainerSummary], rules: InstanceRules
) -> InstanceListing:
    """Return the instances while the engine is away. Of what has begun only that counts which has no problem.

    `ended`: containers that do not run any more. `begun`: those that have begun again since, by ID.
    """
    going_on = [each for each in last.containers if each.id not in ended]
    counting = [*(each for each in going_on if has_mesh_label(each.labels)), *begun.values()]
    taken = [address for each in counting for address in _addresses(each)]
    begun = {id: each for id, each in begun.items() if all(taken.count(address) == 1 for address in _addresses(each))}
    known = replace(
        last.known,
        drains={id: drain for id, drain in last.known.drains.items() if id not in begun},
        healthy=[id for id in last.known.healthy if id not in begun],
        inspected={
            **last.known.inspected,
            **{id: replace(last.remembered[id].inspection, run=None) for id in begun},
        },
    )
    listing = read_instances([*going_on, *begun.values()], last.drivers, rules, known)
    if refused := begun.keys() - listing.containers.keys():
        certain = [each for id, each in begun.items() if id not in refused]
        listing = read_instances([*going_on, *certain], last.drivers, rules, known)
    return listing


class ContainerMemory:
    """Remembers the containers that matter once their engine is away."""

    def __init__(self, processes: ContainerProcesses) -> None:
        """`processes`: those of this host."""
        self._processes = processes
        self._visible: dict[str, ContainerProcess] = {}
        self._remembered: dict[str, RememberedContainer] = {}
        self._ended: dict[str, float] = {}
        """When a container was missing in a list, in the time of the caller."""

    def inspected(self, id: str, found: ContainerInspection) -> None:
        """Note the first process of a container, if it is visible. One that has just ended leaves its predecessor."""
        process = self._processes.identify(id, found.pid)
        if process is not None:
            self._visible[id] = process

    def listed(
        self, containers: Sequence[ContainerSummary], inspected: Mapping[str, ContainerInspection], now: float
    ) -> None:
        """Remember the containers of a list. `now`: seconds of any monotonic clock."""
        running = {each.id for each in containers}
        for each in containers:
            process, inspection = self._visible.get(each.id), inspected.get(each.id)
            if process is not None and inspection is not None and has_mesh_label(each.labels):
                self._remembered[each.id] = RememberedContainer(each, inspection, process)
            else:
                self._remembered.pop(each.id, None)
        self._ended = {id: self._ended.get(id, now) for id in self._remembered if id not in running}
        newest = sorted(self._ended, key=self._ended.__getitem__, reverse=True)
        for id in newest:
            if self._ended[id] < now - REMEMBERED or id in newest[MAX_REMEMBERED:]:
                del self._remembered[id], self._ended[id]
        self._visible = {id: process for id, process in self._visible.items() if id in running}

    def absence(
        self, containers: Sequence[ContainerSummary], drivers: Mapping[str, str], known: ContainerHistory
    ) -> "EngineAbsence":
        """Begin to watch what runs without the engine. The arguments are those of the last list."""
        return EngineAbsence(LastListing(tuple(containers), drivers, known, dict(self._remembered)), self._processes)


class EngineAbsence:
    """What runs from the moment when an engine went away until it answers again."""

    def __init__(self, last: LastListing, processes: ContainerProcesses) -> None:
        """`last`: what was known at that moment."""
        self.last = last
        self._processes = processes
        self._listed = frozenset(each.id for each in last.containers)
        self._ended: set[str] = set()
        self._begun: dict[str, tuple[ContainerProcess, ContainerSummary]] = {}
        self._over: set[str] = set()
        """Containers that have begun and ended: they may fail again and again, and wait for the engine."""
        processes.forget()

    @property
    def is_blind(self) -> bool:
        """Whether nothing can be learned, since no process was visible."""
        return not self.last.remembered

    def look(self) -> bool:
        """Look at the processes; return whether anything has changed. It blocks for some milliseconds."""
        before = len(self._ended), len(self._begun), len(self._over)
        for id in (self._listed & self.last.remembered.keys()) - self._ended:
            if not self._processes.is_running(self.last.remembered[id].process):
                self._ended.add(id)
        for id, (process, _) in [*self._begun.items()]:
            if not self._processes.is_running(process):
                del self._begun[id]
                self._over.add(id)
        wanted = [
            id
            for id in self.last.remembered
            if (id in self._ended or id not in self._listed) and id not in self._begun and id not in self._over
        ]
        for id, observed in (self._processes.look(wanted) if wanted else {}).items():
            if (begun := begun_container(self.last.remembered[id], observed)) is not None:
                self._begun[id] = observed.process, begun
        return before != (len(self._ended), len(self._begun), len(self._over))

    def has_seen_end(self, id: str) -> bool:
        """Return whether a container ended while the engine was away."""
        return id in self._ended or id in self._over

    def listing(self, rules: InstanceRules) -> InstanceListing:
        """Return the instances by the last look."""
        return listing_without_engine(
            self.last, self._ended, {id: each for id, (_, each) in self._begun.items()}, rules
        )


def _moved(
    networks: Mapping[str, NetworkAttachment | None], now: ObservedContainer
) -> Mapping[str, NetworkAttachment | None] | None:
    """Return the attachments with the present addresses; None if one of them is not certain."""
    moved: dict[str, NetworkAttachment | None] = {}
    for name, attachment in networks.items():
        if attachment is None:
            moved[name] = None
            continue
        old = attachment.ip_address, attachment.ip6_address
        try:
            new = [moved_address(address, now.interfaces) if address else "" for address in old]
        except ValueError:  # the engine told no address
            return None
        if new[0] is None or new[1] is None:
            return None
        moved[name] = NetworkAttachment(new[0], new[1])
    return moved


def _addresses(container: ContainerSummary) -> Iterator[str]:
    for attachment in (container.network_settings.networks or {}).values():
        if attachment is not None:
            yield from (address for address in (attachment.ip_address, attachment.ip6_address) if address)
