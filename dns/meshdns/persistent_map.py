"""A mapping that never changes, and of which a changed copy costs as much as what has changed.

One endpoint among ten thousand is judged anew, one name among forty thousand leads elsewhere: to copy a dictionary for
that takes longer than all the rest of the work. So it is many small dictionaries, by the hash of the key, and a copy
makes only those anew that have changed; the others are the same objects in both. That also tells cheaply what is not
the same in two of them, which is what everything that follows changes starts from.

The order of the keys follows from their hashes: whoever needs one sorts.
"""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Any, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

SHARDS = 256
"""A copy is a list of so many and each dictionary that has changed: about even at the sizes that we have."""
_MASK = SHARDS - 1
_EMPTY: dict[Any, Any] = {}


class PersistentMap(Mapping[K, V]):
    """Values are never None."""

    __slots__ = ("_before", "_count", "_itself", "_shards", "_since")

    def __init__(self, content: Mapping[K, V] = _EMPTY) -> None:
        self._shards: list[dict[K, V]] = [_EMPTY] * SHARDS
        self._put(content)
        self._count = len(content)
        self._itself = object()
        """Stands for this content: who holds it does not hold the content."""
        self._before: object = None
        """What stands for the content that this one was made from."""
        self._since: frozenset[K] = frozenset()
        """The keys of what is not the same object there."""

    @classmethod
    def of(cls, content: Mapping[K, V]) -> "PersistentMap[K, V]":
        """Itself, if it is one."""
        return content if isinstance(content, PersistentMap) else cls(content)

    def changed(self, changes: Mapping[K, V | None]) -> "PersistentMap[K, V]":
        """With these values, None: there is none any more; itself where they are the same objects already."""
        real = {key: value for key, value in changes.items() if self.get(key) is not value}
        if not real:
            return self
        made: PersistentMap[K, V] = PersistentMap()
        made._shards = list(self._shards)
        made._count = self._count + made._put(real)
        made._before, made._since = self._itself, frozenset(real)
        return made

    def _put(self, changes: Mapping[K, V | None]) -> int:
        """How many more there are then."""
        shards, own, more = self._shards, set[int](), 0
        for key, value in changes.items():
            at = hash(key) & _MASK
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
        """As of any mapping."""
        return self._shards[hash(key) & _MASK].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._shards[hash(key) & _MASK]

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._shards)

    def __len__(self) -> int:
        return self._count

    def items(self) -> ItemsView[K, V]:
        """As of any mapping."""
        return _MapItems(self)

    def values(self) -> ValuesView[V]:
        """As of any mapping."""
        return _MapValues(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PersistentMap):
            return self._count == other._count and self._shards == other._shards
        if isinstance(other, Mapping):
            return self._count == len(other) and dict(self.items()) == dict(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as of any mapping

    def __repr__(self) -> str:
        return f"PersistentMap({dict(self.items())!r})"


class _MapItems(ItemsView[K, V]):
    """Without a look-up for each key."""

    _mapping: PersistentMap[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return chain.from_iterable(map(dict.items, self._mapping._shards))


class _MapValues(ValuesView[V]):
    _mapping: PersistentMap[Any, V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(map(dict.values, self._mapping._shards))


def changed_keys(old: Mapping[K, Any], new: Mapping[K, Any]) -> set[K]:
    """The keys of what is not the same object in both."""
    if old is new:
        return set()
    if not (isinstance(old, PersistentMap) and isinstance(new, PersistentMap)):
        return _differing(old, new)
    if new._before is old._itself:
        return set(new._since)
    found: set[K] = set()
    for before, after in zip(old._shards, new._shards, strict=True):
        if before is not after:
            found |= _differing(before, after)
    return found


def _differing(old: Mapping[K, Any], new: Mapping[K, Any]) -> set[K]:
    return {*[key for key, value in new.items() if value is not old.get(key)], *(old.keys() - new.keys())}
