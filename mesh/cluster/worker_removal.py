"""Removes what a worker that is not trusted any more has left in the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import build_view, daemon_keys, own_prefixes
from mesh.config.values import parse_host_name
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.store import MAX_CHANGES, Store, StoreError
from mesh.util.offload import compute

_ATTEMPTS = 5
"""How often a removal is repeated because somebody has changed the same records at the same time."""


@dataclass(frozen=True, slots=True)
class RemovedWorker:
    """What was removed."""

    worker: str
    records: int
    """The number of records; 0 if it had left none, since its lease has ended."""


class WorkerRemoval:
    """Carries out `vipmesh workers remove`. Raises `ActionRefusedError` with a remedy if it cannot be done."""

    def __init__(self, own: str, store: Store) -> None:
        """`own` is this worker, which is never removed."""
        self._own = own
        self._store = store

    async def remove(self, worker: str, *, force: bool = False) -> RemovedWorker:
        """Delete the records of a worker, and the declarations in force that no other worker declares.

        Its claims stay: services keep their VIPs and names. A worker whose daemon is registered, which lasts as long as
        its lease, is refused unless `force` is true.
        """
        try:
            parse_host_name(worker)
        except ValueError as error:
            raise _refused(f"{worker[:80]!r} is no worker: {error}", "write its [node] name") from error
        if worker == self._own:
            raise _refused(f"{worker} is the worker that is asked", "ask another one with --admin")
        for _ in range(_ATTEMPTS):
            records = await self._records()
            if not force and worker in daemon_keys(records):
                raise _refused(
                    f"the daemon of {worker} is registered",
                    "stop it and wait until its lease ends, or type "
                    f"`vipmesh workers remove {worker} --force` once its rights in etcd are taken",
                )
            keys = await compute(len(records), partial(_keys, worker, records))
            if await self._delete(records, keys):
                return RemovedWorker(worker, len(keys))
        raise _refused(f"the records of {worker} keep changing", "stop its daemon, and try again")

    async def _records(self) -> Mapping[str, bytes]:
        try:
            return (await self._store.read()).records
        except StoreError as error:
            raise ActionRefusedError(error.code, str(error)) from error

    async def _delete(self, records: Mapping[str, bytes], keys: tuple[str, ...]) -> bool:
        """Delete the keys in their order; return whether nobody has changed them meanwhile."""
        try:
            for first in range(0, len(keys), MAX_CHANGES):
                part = keys[first : first + MAX_CHANGES]
                if not await self._store.change({key: records[key] for key in part}, dict.fromkeys(part)):
                    return False
        except StoreError as error:
            raise ActionRefusedError(error.code, str(error)) from error
        return True


def _keys(worker: str, records: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the keys of what a worker has written, that of its daemon last: until then the others keep none of it."""
    prefixes = own_prefixes(worker)
    of_worker = [key for key in records if key.startswith(prefixes)]
    others = {key: value for key, value in records.items() if not key.startswith(prefixes)}
    alone = {s.owner for s in build_view(records)[0].services} - {s.owner for s in build_view(others)[0].services}
    declared = (record_key("claims", "declarations", owner) for owner in sorted(alone))
    daemon = record_key("workers", worker, "daemon")
    rest = sorted(of_worker, key=lambda key: (key == daemon, key))
    return (*(key for key in declared if key in records), *rest)


def _refused(reason: str, remedy: str) -> ActionRefusedError:
    return ActionRefusedError(Code.WORKER_NOT_REMOVED, f"{reason}; {remedy}")
