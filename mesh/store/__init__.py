"""What the workers share: a small ordered set of keys with revisions, leases and a watch.

Keys are text with slashes, values are bytes (JSON; the records are in `store/records.py`). SQLite is the embedded
store of a single worker; a cluster uses one that is shared.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from mesh.model.errors import CodedText, MeshError


class StoreError(MeshError):
    """The store does not answer or refuses as a whole. The text ends with the remedy."""


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """All keys as of one revision."""

    revision: int
    records: Mapping[str, bytes]
    origin: str = ""
    """Which life of the store this is. Another one than before: it lost what it knew, or a backup was put back."""
    changed: frozenset[str] | None = None
    """The keys that may differ from the last snapshot of the same watch; None: any of them."""


class Store(Protocol):
    """Every write is durable when it returns, and idempotent: repeated, it changes nothing and succeeds.

    All methods raise `StoreError` if the store is out of reach; the caller keeps its last picture.
    """

    async def read(self) -> StoreSnapshot:
        """Everything. A new store: no records."""
        ...

    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Create all of the keys in one transaction, or none.

        Returns an empty mapping if all of them now hold these values (created now or by an earlier attempt),
        otherwise the keys that stand in the way with the values they hold. Claims have no lease.
        """
        ...

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Change a claim if it still holds `old`; False if it does not. Holding `new` already counts as done."""
        ...

    async def register(self, records: Mapping[str, bytes]) -> None:
        """Make this worker's leased records exactly these: puts what differs, deletes what is no longer named.

        Empty: the worker offers nothing. They go by themselves when the worker stays away longer than its lease;
        the embedded store, whose only worker is this one, keeps them over a restart.
        """
        ...

    def watch(self) -> AsyncIterator[StoreSnapshot]:
        """Yields the state at once, then again after changes; several changes may come as one snapshot.

        Never ends by itself. Goes on by itself after the store was away.
        """
        ...

    @property
    def trouble(self) -> CodedText | None:
        """Why the last picture is frozen, in one line; None while the store answers."""
        ...

    async def run(self) -> None:
        """Keep what was registered alive; goes beside everything else, until cancelled. Returns if there is no need."""
        ...

    async def close(self) -> None:
        """Let go of files and sockets; keeps every record."""
        ...
