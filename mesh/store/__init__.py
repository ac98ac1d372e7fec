"""The key-value store that the workers share: an ordered set of keys with revisions, leases and a watch.

Keys are text with slashes, values are bytes (JSON; `mesh.cluster.records` defines the records). SQLite is the embedded
store of a single worker; the workers of a cluster share etcd.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from mesh.model.errors import CodedText, MeshError

ACTING_KEY = "acting"
"""The key of `Store.hold` that says which daemon acts for the swarm."""
MAX_CHANGES = 100
"""The most keys of one `Store.change`; etcd permits 128 operations in a transaction."""

Redaction: TypeAlias = Callable[[str, bytes], bytes | None]
"""What may stay on this worker's disk of the record with this key and value; None if nothing may."""


def keep_record(key: str, value: bytes) -> bytes | None:  # noqa: ARG001 -- the signature of a `Redaction`
    """Keep the record as it is."""
    return value


class StoreError(MeshError):
    """The store does not answer, or refuses a request as a whole. The text ends with the remedy."""


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """All keys as of one revision."""

    revision: int
    records: Mapping[str, bytes]
    origin: str = ""
    """The incarnation of the store. A change means that the store has lost its data, or a backup was restored."""
    changed: frozenset[str] | None = None
    """Keys that may differ from the previous snapshot of the same watch; None: any of them."""
    saved: Mapping[str, bytes] = field(default_factory=dict)
    """In the first snapshot: the records that this worker saved on its disk, some of which the store may have dropped
    since. Empty if it saves none.
    """


class Store(Protocol):
    """The interface of a store. Every write is durable when it returns, and idempotent.

    All methods raise `StoreError` if the store cannot be reached; the caller keeps its last view.
    """

    async def read(self) -> StoreSnapshot:
        """Return all keys; a new store has no records."""
        ...

    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Create all of the keys in one transaction, or none.

        Returns an empty mapping if all of them now have these values (created now or by an earlier attempt). Otherwise
        returns the keys that already exist, with their values. Claims have no lease.
        """
        ...

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Change a claim whose value is `old`. Return False if it has another value; `new` counts as success."""
        ...

    async def change(self, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bool:
        """Change several claims in one transaction, if all of them are as they are in `before`.

        Both have the same keys, at most `MAX_CHANGES`; None: the key does not exist, or is deleted. Returns True if all
        keys are as in `after` now (changed now or by an earlier attempt), else False, and nothing was changed.
        """
        ...

    async def register(self, records: Mapping[str, bytes]) -> None:
        """Make these the complete leased records of this worker: write what differs, delete what is missing.

        Empty: the worker offers nothing. The records expire when the worker is absent for longer than its lease. The
        embedded store, whose only worker is this one, keeps them over a restart.
        """
        ...

    async def hold(self, key: str, value: bytes | None) -> bytes | None:
        """Have a key under a lease of its own if nobody has it, and prolong it; return the value of who has it now.

        `key` is `ACTING_KEY`. It goes to another worker when it is released, or when this one has not called for as
        long as a lease lasts. `value` says who asks, other than any other worker and any earlier run of this one; None:
        only ask who has it. No snapshot has the key. In the embedded store, whose only worker is this one, it is always
        this one.
        """
        ...

    async def release(self, key: str, value: bytes) -> None:
        """Give up the key, if it has this value."""
        ...

    def watch(self) -> AsyncIterator[StoreSnapshot]:
        """Yield the current snapshot immediately, and again after changes. Several changes may come as one snapshot.

        The iterator never ends by itself, and continues after the store was not available.
        """
        ...

    @property
    def trouble(self) -> CodedText | None:
        """Why the last view is frozen, in one line; None while the store answers."""
        ...

    async def run(self) -> None:
        """Keep the registered records alive until cancelled, in the background. Returns if there is no need for it."""
        ...

    async def close(self) -> None:
        """Close files and sockets. All records stay."""
        ...
