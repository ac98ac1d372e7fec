"""What all workers offer, as one of them sees it: the records of the store, with its own offer over them.

Of its own offer a worker knows more than the store does. What remains of a store that was lost, and of workers whose
lease has ended while they answer, stands under all of it.
The reader is told of what has changed; only where nobody can say what that is does it look at everything.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from mesh.cluster.records.view_builder import ViewBuilder
from mesh.model.problem import Problem
from mesh.model.view import ClusterView
from mesh.store import StoreSnapshot
from mesh.util.offload import compute


class ViewOverlay:
    """Of one worker; `own` is the prefix of what it offers."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._reader = ViewBuilder()
        self._behind: set[str] | None = None
        """Keys that the reader has not been told of; None: it is to look at all of them."""

    def changed(self, keys: Iterable[str] | None) -> None:
        """These records may be other ones by now, in the store or in the own offer; None: any of them."""
        if keys is None or self._behind is None:
            self._behind = None
        else:
            self._behind.update(keys)

    def offered(self, before: Mapping[str, bytes] | None, now: Mapping[str, bytes]) -> None:
        """The own offer is another one; `before` is None for the first."""
        if before is None:
            self.changed(None)
        else:
            self.changed({key for key in before.keys() | now.keys() if before.get(key) != now.get(key)})

    async def look(
        self, snapshot: StoreSnapshot, offered: Mapping[str, bytes] | None, under: Mapping[str, bytes]
    ) -> tuple[ClusterView, tuple[Problem, ...]]:
        """The picture now, and what could not be understood. `offered` is None while nothing is known of the own offer;
        `under` are records that count where the store has none.
        """
        behind, self._behind = self._behind, None if under else set()
        if behind is None or under:
            records = self._overlaid({**under, **snapshot.records}, offered)
            return await compute(len(records), partial(self._reader.view, records))
        changes = {key: self._record(key, snapshot, offered) for key in behind}
        return await compute(len(changes), partial(self._reader.follow, changes))

    def _overlaid(self, records: dict[str, bytes], offered: Mapping[str, bytes] | None) -> dict[str, bytes]:
        if offered is None:
            return records
        return {key: value for key, value in records.items() if not key.startswith(self._own)} | dict(offered)

    def _record(self, key: str, snapshot: StoreSnapshot, offered: Mapping[str, bytes] | None) -> bytes | None:
        """As `_overlaid` has it."""
        return (snapshot.records if offered is None or not key.startswith(self._own) else offered).get(key)
