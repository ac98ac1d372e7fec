"""Lays this worker's own offer over the records of the store, and retained records under them.

This worker knows its own offer before the store does. Retained records (`mesh.cluster.retained`) apply where the store
has none. The view is updated from the changed records; all records are read only if the changes are not known.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from mesh.cluster.endpoint_authority import is_at
from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import own_prefixes
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.model.problem import Problem
from mesh.model.service import Address, Endpoint
from mesh.model.view import ClusterView
from mesh.store import StoreSnapshot
from mesh.util.offload import compute


class ViewOverlay:
    """Builds one view after another for this worker."""

    def __init__(self, worker: str, refusal: Callable[[Endpoint], str | None] = lambda _: None) -> None:
        """`refusal` says why an endpoint of another worker may not be used; None if it may."""
        self._refusal = refusal
        self._own = own_prefixes(worker)
        self._of_daemon = frozenset(record_key("workers", worker, part) for part in ("daemon", "digest"))
        self._offered: Mapping[str, bytes] | None = None
        """The own offer; None until all sources have answered once."""
        self._builder = ViewBuilder(refusal)
        self._changed: set[str] | None = None
        """Keys that may have changed since the last view; None if any may have changed."""

    def offer(self, records: Mapping[str, bytes]) -> None:
        """Replace the records of everything that this worker runs."""
        before, self._offered = self._offered, records
        if before is None:
            self.changed(None)
        else:
            self.changed({key for key in before.keys() | records.keys() if before.get(key) != records.get(key)})

    def changed(self, keys: Iterable[str] | None) -> None:
        """Mark records that may have changed, in the store or in the own offer; None marks all of them."""
        if keys is None or self._changed is None:
            self._changed = None
        else:
            self._changed.update(keys)

    def judge_again(self, addresses: frozenset[Address]) -> bool:
        """Whether endpoints at these addresses are to be judged again in the next view; False if there are none."""
        found = any(is_at(endpoint, addresses) for endpoint in self._builder.endpoints())
        if found:
            # Seldom: a host gets an address that another worker has registered, or loses one. All records are read.
            self.begin_again()
        return found

    def begin_again(self) -> None:
        """Build the next view from all records: the last one may have ended half-way."""
        self._builder = ViewBuilder(self._refusal)
        self._changed = None

    def knows_own_offer(self, snapshot: StoreSnapshot) -> bool:
        """Whether this worker has offered something, or the store has what an earlier run of it wrote.

        The record of the daemon alone says nothing: it is written before the sources have answered.
        """
        return self._offered is not None or any(
            key.startswith(self._own) and key not in self._of_daemon for key in snapshot.records
        )

    async def build(
        self, snapshot: StoreSnapshot, under: Mapping[str, bytes]
    ) -> tuple[ClusterView, tuple[Problem, ...]]:
        """The view now, and the problems of records that cannot be read. `under` are records that count where the store
        has none.
        """
        # With records under those of the store the changed keys are not enough: they differ without any notice.
        changed, self._changed = self._changed, None if under else set()
        if changed is None or under:
            records = self._with_own_offer({**under, **snapshot.records})
            return await compute(len(records), partial(self._builder.view, records))
        changes = {key: self._current(key, snapshot) for key in changed}
        return await compute(len(changes), partial(self._builder.follow, changes))

    def _with_own_offer(self, records: dict[str, bytes]) -> dict[str, bytes]:
        """All records, with this worker's registration replaced by its own offer; its verdicts stay as they were
        written last.
        """
        if self._offered is None:
            return records
        return {key: value for key, value in records.items() if not self._is_offer(key)} | dict(self._offered)

    def _current(self, key: str, snapshot: StoreSnapshot) -> bytes | None:
        """One record as in `_with_own_offer`; None if there is none."""
        source = snapshot.records if self._offered is None or not self._is_offer(key) else self._offered
        return source.get(key)

    def _is_offer(self, key: str) -> bool:
        return key.startswith(self._own[0])
