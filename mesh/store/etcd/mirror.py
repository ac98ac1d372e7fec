"""What etcd holds below a prefix, followed event by event.

Whoever watches gets whole snapshots, and with each the keys that have changed since the last one: at ten thousand
records nobody wants to look for them.
"""

from collections.abc import Callable
from functools import lru_cache

from mesh.model.persistent_map import PersistentMap
from mesh.store import StoreSnapshot
from mesh.store.etcd.messages import KeyValue, WatchResponse

MAX_SHARED_VALUES = 16384
"""Values that are kept once although many records have them: all workers that run a service declare it alike."""


class MirrorLostError(Exception):
    """What is mirrored cannot be followed any further: list again."""


class KeyMirror:
    """As of one revision. A list begins it: `put` with everything, and `revision`."""

    def __init__(self, prefix: bytes, cluster: int, is_own: Callable[[bytes], bool]) -> None:
        """`cluster` is its number; `is_own` knows the keys of this worker."""
        self._prefix = prefix
        self._records: PersistentMap[str, bytes] = PersistentMap()
        """As of the last snapshot."""
        self._since: dict[str, bytes | None] = {}
        """What has changed since; None: gone."""
        self._is_own = is_own
        self._is_new = True
        """There was no snapshot yet."""
        self.cluster = cluster
        self.origin = b""
        """Which life of the store this is, as a key of its own says; empty: it has not begun."""
        self.revision = 0
        self.newest = KeyValue(b"")
        """What was put last, a witness: in this life of the store, and in no other, it was put at that revision."""
        self.own: dict[bytes, KeyValue] = {}
        """Those of this worker, by whole key."""

    def put(self, kv: KeyValue) -> bool:
        """Whether that changes anything."""
        if kv.mod_revision > self.newest.mod_revision:
            self.newest = kv
        if kv.key == self._prefix + b"origin":
            self.origin = kv.value
            return False
        name = kv.key.removeprefix(self._prefix).decode(errors="replace")
        if self._is_own(kv.key):
            self.own[kv.key] = kv
        if self._get(name) == kv.value:
            return False
        self._since[name] = _one_of(kv.value)
        return True

    def apply(self, answer: WatchResponse) -> bool:
        """Follow; whether that changes anything. Raises `MirrorLostError`."""
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
            self.revision = max(self.revision, answer.header.revision)  # all up to here was sent
        return changed

    def snapshot(self) -> StoreSnapshot:
        """What is there, and what has changed since the last call."""
        keys = None if self._is_new else frozenset(self._since)
        self._records, self._since, self._is_new = self._records.changed(self._since), {}, False
        return StoreSnapshot(self.revision, self._records, self.life, keys)

    @property
    def life(self) -> str:
        """Which life of which cluster this is."""
        return f"{self.origin.decode(errors='replace')}@{self.cluster:x}"

    def _delete(self, key: bytes) -> bool:
        name = key.removeprefix(self._prefix).decode(errors="replace")
        self.own.pop(key, None)
        was, self._since[name] = self._get(name), None
        return was is not None

    def _get(self, name: str) -> bytes | None:
        return self._since[name] if name in self._since else self._records.get(name)


@lru_cache(MAX_SHARED_VALUES)
def _one_of(value: bytes) -> bytes:
    """The first of those that are equal."""
    return value
