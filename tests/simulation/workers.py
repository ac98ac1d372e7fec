"""The parts of a simulated cluster: workers, witnesses among them, and counters of store operations."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.cluster.claims import ClaimRequest
from mesh.cluster.records.encode import encode_daemon, encode_registration, encode_verdict
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.control.digest import TableDigest
from mesh.control.planner import Plan, make_plan
from mesh.model.service import Endpoint, Health, Service
from mesh.model.view import ClusterView


@dataclass
class Counts:
    """What the store had to do."""

    requests: Counter[str] = field(default_factory=Counter)
    """By kind: `write`, `claim`, `grant`, `keepalive`, `list`."""
    written: int = 0
    """Bytes of all requests and their answers, lists included."""
    events: int = 0
    """Changes told to watches, each once for every watch."""
    told: int = 0
    """Bytes of them."""


@dataclass
class Worker:
    """What one daemon knows of itself."""

    name: str
    services: tuple[Service, ...]
    endpoints: tuple[Endpoint, ...]
    health: dict[str, Health]
    session: int = 0
    revision: int = -1
    """Up to where it has followed the store; -1: it has to list."""
    cut: bool = False
    """From the store."""
    alive: bool = False
    leased: float = 0.0
    """Until when its lease lasts."""
    expiring: bool = False
    """Whether the store has an eye on that."""
    there: dict[str, bytes] | None = None
    """What it believes to be registered; None: it has to read that first."""
    writing: bool = False
    asked: set[ClaimRequest] = field(default_factory=set)
    """Claims under way."""
    awake: bool = False
    """Whether a look at the store is due."""
    witness: "Witness | None" = None
    _offered: dict[str, bytes] = field(default_factory=dict)

    def wanted(self) -> dict[str, bytes]:
        """All that shall be under its lease."""
        if not self._offered:
            self._offered = encode_registration(self.name, self.services, self.endpoints)
        said = dict(encode_verdict(self.name, (self.name, id), health) for id, health in self.health.items())
        return self._offered | said | encode_daemon(self.name, "0", str(self.session))


class Witness:
    """Makes its own pictures and plans, from nothing but the changes."""

    def __init__(self) -> None:
        self._reader, self._digest = ViewBuilder(), TableDigest()
        self._plan: Plan | None = None
        self.pictures = 0

    def list(self, records: Mapping[str, bytes]) -> None:
        """Everything, at the start or when the changes since are forgotten."""
        self._look(self._reader.view(records)[0])

    def follow(self, changes: Mapping[str, bytes | None]) -> None:
        """What has become of some records."""
        self._look(self._reader.follow(changes)[0])

    def digest(self) -> str | None:
        """Of its table; None: it has none yet."""
        return None if self._plan is None else self._digest(self._plan)

    def _look(self, seen: ClusterView) -> None:
        self._plan = make_plan(seen, seen.health, before=self._plan)
        self.pictures += 1
