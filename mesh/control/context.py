"""Shared state of the parts of one control loop. It is created first, so that each part gets it by its constructor."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mesh.cluster.claims import claims_in_force
from mesh.config.name_policy import EVERY_NAME, NamePolicy
from mesh.config.values import Network
from mesh.control.own_commands import DeclaredCommands
from mesh.control.stats import LoopStats
from mesh.model.claims import Claims
from mesh.model.service import Address, Endpoint
from mesh.model.view import ClusterView
from mesh.util.signal import Signal


class LoopEvents:
    """The events of one control loop. A part that sets one does not know which parts wait for it."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        """A pass is due: its inputs may have changed."""
        self.registration = asyncio.Event()
        """The instances on this worker may have changed: they are to be registered again."""
        self.passed = asyncio.Event()
        """A pass has ended, whether it had an effect or not: for watchers."""
        self.recording = asyncio.Event()
        """The same, for the recorder of past events."""
        self.pass_ended = Signal(self.passed, self.recording)
        # Traffic to an instance that stops must not wait for the store: a pass is due at once, beside the registration.
        self.instances_changed = Signal(self.registration, self.wake)


class ClusterState:
    """Holds the newest view from the store and the worker's own addresses."""

    def __init__(self, pool: Network, policy: NamePolicy = EVERY_NAME) -> None:
        """Claims of VIPs outside `pool`, and of names that `policy` refuses, are not in force on this worker."""
        self.view: ClusterView | None = None
        """The newest view with only the claims in force; None until the store has answered once."""
        self.addresses: frozenset[Address] | None = None
        """The worker's own addresses; None until the host has answered once."""
        self._pool = pool
        self._policy = policy
        self._former_addresses: set[Address] = set()
        self._claimed = (Claims(), Claims())
        """All claims of the newest view, and the claims among them that are in force."""

    def see(self, seen: ClusterView) -> ClusterView:
        """Store the newest view; return it with only the claims in force."""
        if seen.claims is not self._claimed[0]:
            self._claimed = seen.claims, claims_in_force(seen.claims, self._pool, self._policy)
        self.view = seen if self._claimed[1] is seen.claims else seen.with_claims(self._claimed[1])
        return self.view

    def move(self, addresses: frozenset[Address]) -> None:
        """Store the worker's current addresses."""
        self.addresses = addresses
        self._former_addresses |= addresses

    def claims(self) -> Claims:
        """The claims in force; empty before the first view."""
        return Claims() if self.view is None else self.view.claims

    def all_addresses(self) -> Collection[Address]:
        """Every address that the worker has or had. Virtual servers on a former address still have to be removed."""
        return self._former_addresses


class OwnEndpoints:
    """Holds the addresses of the endpoints that this worker offers, for what follows them."""

    def __init__(self) -> None:
        self.addresses: frozenset[Address] | None = None
        """The addresses; None until every source has answered once."""
        self.changed = asyncio.Event()
        """The addresses have changed."""

    def offer(self, endpoints: Iterable[Endpoint]) -> None:
        """Store the addresses of the endpoints that are offered now."""
        addresses = frozenset(endpoint.address for endpoint in endpoints)
        if addresses != self.addresses:
            self.addresses = addresses
            self.changed.set()


@dataclass(frozen=True, slots=True)
class LoopContext:
    """The shared state of one control loop."""

    cluster: ClusterState
    events: LoopEvents = field(default_factory=LoopEvents)
    stats: LoopStats = field(default_factory=LoopStats)
    commands: DeclaredCommands = field(default_factory=DeclaredCommands)
    """The commands that may run in containers of this worker."""
