"""A copy of the keys below a prefix in etcd, updated by watch events.

A watch yields complete snapshots, each with the keys that have changed since the previous one, because a search for
differences among ten thousand records would be slow.
"""

from collections.abc import Callable

from mesh.model.codes import Code
from mesh.model.persistent_map import PersistentMap
from mesh.store import ACTING_KEY, StoreError, StoreSnapshot
from mesh.store.etcd.messages import KeyValue, WatchResponse
from mesh.util.sized_cache import SizedCache

SHARED_VALUES = 1 << 23
"""Bytes of values that are stored once for all records that have them: all workers of a service declare it in the same
way. Whoever writes the store chooses how long they are, so that their number would be no limit.
"""


MAX_VALUE_BYTES = 256 << 10
"""The most bytes of a value. What is longer is no record of vipmesh: it counts as an empty one, which is refused."""
MAX_KEYS = 500_000
"""The most keys below the prefix."""


class MirrorLostError(Exception):
    """The store cannot be followed any further from here: list all keys again."""


class KeyMirror:
    """The keys as of one revision. Fill it from a list with `put` for every key, and set `revision`."""

    def __init__(self, prefix: bytes, cluster: int, is_own: Callable[[bytes], bool]) -> None:
        """`cluster` is the ID of the etcd cluster; `is_own` says whether a key belongs to this worker."""
        self._prefix = prefix
        self._records: PersistentMap[str, bytes] = PersistentMap()
        """The records as of the last snapshot."""
        self._since: dict[str, bytes | None] = {}
        """Changes since the last snapshot; None: deleted."""
        self._is_own = is_own
        self._is_new = True
        """Whether there was no snapshot yet."""
        self.cluster = cluster
        self.origin = b""
        """Identifies the incarnation of the store, from its key `origin`; empty: the key does not exist."""
        self.revision = 0
        self.newest = KeyValue(b"")
        """The key that was written last. It is evidence: only this incarnation of the store has it at that revision."""
        self.own: dict[bytes, KeyValue] = {}
        """The keys of this worker, by whole key."""

    def put(self, kv: KeyValue) -> bool:
        """Add or change a key. Return whether that changes a record."""
        if kv.mod_revision > self.newest.mod_revision:
            self.newest = kv
        if kv.key == self._prefix + b"origin":
            self.origin = kv.value
            return False
        if kv.key == self._prefix + ACTING_KEY.encode():
            return False  # it is no record, and changes of it are of no interest to a view
        name = kv.key.removeprefix(self._prefix).decode(errors="replace")
        if len(kv.value) > MAX_VALUE_BYTES:
            kv = KeyValue(kv.key, b"", kv.mod_revision, kv.lease)
        if len(self._records) + len(self._since) > MAX_KEYS:
            reason = f"more than {MAX_KEYS} keys are below the prefix in [store] url; remove what is not vipmesh's"
            raise StoreError(Code.STORE_REFUSES, reason)
        if self._is_own(kv.key):
            self.own[kv.key] = kv
        if self._get(name) == kv.value:
            return False
        self._since[name] = _one_of(kv.value)
        return True

    def apply(self, answer: WatchResponse) -> bool:
        """Apply a response of the watch. Return whether that changes a record. Raises `MirrorLostError`."""
        if answer.canceled:
            raise MirrorLostError
        changed = False
        for event in answer.events:
            if event.kv.mod_revision <= self.revision:
                continue
            if event.kv.key == self._prefix + b"origin" and (event.type, event.kv.value) != ("PUT", self.origin):
                raise MirrorLostError
            if event.type == "PUT":
                changed |= self.put(event.kv)
            else:
                changed |= self._delete(event.kv.key)
        if answer.events:
            self.revision = max(self.revision, answer.events[-1].kv.mod_revision)
        elif not answer.created:
            self.revision = max(self.revision, answer.header.revision)  # a progress notification: all was sent so far
        return changed

    def snapshot(self) -> StoreSnapshot:
        """Return the records, and the keys that have changed since the last call."""
        keys = None if self._is_new else frozenset(self._since)
        self._records, self._since, self._is_new = self._records.changed(self._since), {}, False
        return StoreSnapshot(self.revision, self._records, self.life, keys)

    @property
    def life(self) -> str:
        """The incarnation of the store, with the ID of the etcd cluster."""
        return f"{self.origin.decode(errors='replace')}@{self.cluster:x}"

    def _delete(self, key: bytes) -> bool:
        if key == self._prefix + ACTING_KEY.encode():
            return False
        name = key.removeprefix(self._prefix).decode(errors="replace")
        self.own.pop(key, None)
        was, self._since[name] = self._get(name), None
        return was is not None

    def _get(self, name: str) -> bytes | None:
        return self._since[name] if name in self._since else self._records.get(name)


_SHARED: SizedCache[bytes, bytes] = SizedCache(SHARED_VALUES)


def _one_of(value: bytes) -> bytes:
    """Return the first of all equal values, so that they share memory."""
    if (first := _SHARED.get(value)) is not None:
        return first
    _SHARED.put(value, value, len(value))
    return value
