"""A persistent map: an immutable mapping whose changed copies cost as much as what has changed.

When one endpoint among ten thousand changes its health, or one name among forty thousand its records, copying a
dictionary would take longer than all the rest of the work. So the map consists of many small dictionaries, selected by
the hash of the key. A changed copy contains new dictionaries only where something has changed, and shares all others
with the original. That also makes it cheap to find what differs between two maps (`changed_keys`), which is what every
incremental step starts from. Libraries such as `immutables` do not offer that difference at this cost.

The order of the keys depends on their hashes; callers that need an order must sort.
"""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Any, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

SHARDS = 256
"""How many dictionaries a map has. A copy costs this list and each dictionary that has changed; at our sizes the two
cost about the same.
"""
_MASK = SHARDS - 1
_EMPTY: dict[Any, Any] = {}


class PersistentMap(Mapping[K, V]):
    """An immutable mapping in shards. Values must not be None, which stands for "no value" in `changed`."""

    __slots__ = ("_before", "_count", "_itself", "_shards", "_since")

    def __init__(self, content: Mapping[K, V] = _EMPTY) -> None:
        self._shards: list[dict[K, V]] = [_EMPTY] * SHARDS
        self._put(content)
        self._count = len(content)
        self._itself = object()
        """A token for this content. Other maps hold the token and so do not keep the content alive."""
        self._before: object = None
        """The token of the content that this map was made from; None if it was not made by `changed`."""
        self._since: frozenset[K] = frozenset()
        """The keys whose values are not the same objects as in that content."""

    @classmethod
    def of(cls, content: Mapping[K, V]) -> "PersistentMap[K, V]":
        """Return `content` as a `PersistentMap`: itself if it is one, else a copy."""
        return content if isinstance(content, PersistentMap) else cls(content)

    def changed(self, changes: Mapping[K, V | None]) -> "PersistentMap[K, V]":
        """Return a map with these values set; None removes a key.

        Returns this map itself if all values are the same objects already.
        """
        real = {key: value for key, value in changes.items() if self.get(key) is not value}
        if not real:
            return self
        made: PersistentMap[K, V] = PersistentMap()
        made._shards = list(self._shards)
        made._count = self._count + made._put(real)
        made._before, made._since = self._itself, frozenset(real)
        return made

    def _put(self, changes: Mapping[K, V | None]) -> int:
        """Apply changes to the shards of a map that is not in use yet. Returns by how many keys it has grown."""
        shards, own, more = self._shards, set[int](), 0
        for key, value in changes.items():
            at = hash(key) & _MASK
            # Other maps may share this shard: copy it before the first change.
            if at not in own:
                own.add(at)
                shards[at] = shards[at].copy()
            shard = shards[at]
            before = len(shard)
            if value is None:
                shard.pop(key, None)
            else:
                shard[key] = value
            more += len(shard) - before
        return more

    def __getitem__(self, key: K) -> V:
        return self._shards[hash(key) & _MASK][key]

    @overload
    def get(self, key: K, /) -> V | None: ...

    @overload
    def get(self, key: K, /, default: V | D) -> V | D: ...

    def get(self, key: K, /, default: Any = None) -> Any:
        """Return the value of a key, or `default`."""
        return self._shards[hash(key) & _MASK].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._shards[hash(key) & _MASK]

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._shards)

    def __len__(self) -> int:
        return self._count

    def items(self) -> ItemsView[K, V]:
        """Return a view of the keys and values."""
        return _MapItems(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values."""
        return _MapValues(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PersistentMap):
            return self._count == other._count and self._shards == other._shards
        if isinstance(other, Mapping):
            return self._count == len(other) and dict(self.items()) == dict(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # no mapping is hashable

    def __repr__(self) -> str:
        return f"PersistentMap({dict(self.items())!r})"


class _MapItems(ItemsView[K, V]):
    """Iterates over the shards directly, without a look-up for each key."""

    _mapping: PersistentMap[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return chain.from_iterable(map(dict.items, self._mapping._shards))


class _MapValues(ValuesView[V]):
    """Iterates over the shards directly, without a look-up for each key."""

    _mapping: PersistentMap[Any, V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(map(dict.values, self._mapping._shards))


def changed_keys(old: Mapping[K, Any], new: Mapping[K, Any]) -> set[K]:
    """Return the keys whose values are not the same object in both mappings, including keys of only one of them."""
    if old is new:
        return set()
    if not (isinstance(old, PersistentMap) and isinstance(new, PersistentMap)):
        return _differing(old, new)
    # The usual case: `new` was made from `old`, and recorded its changes.
    if new._before is old._itself:
        return set(new._since)
    found: set[K] = set()
    for before, after in zip(old._shards, new._shards, strict=True):
        if before is not after:
            found |= _differing(before, after)
    return found


def _differing(old: Mapping[K, Any], new: Mapping[K, Any]) -> set[K]:
    """Compare two mappings key by key."""
    return {*[key for key, value in new.items() if value is not old.get(key)], *(old.keys() - new.keys())}
