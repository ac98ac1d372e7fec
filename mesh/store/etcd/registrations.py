"""Keeps the records of this worker registered under its lease, so that they expire when the worker stays away.

The keeper is level-triggered: the records of the last registration must be there, and after any doubt (a write without
a response, a lease that ended) it reads what is there first. A daemon that restarts takes over the lease of its
previous run, so that the other workers do not notice. Every write is idempotent.

What the watch shows is compared with what was written: the records may be changed by hand, or etcd may apply a write
whose response was lost after a later one. A difference is written again, unless another daemon has taken the name over:
then this one keeps no lease alive and writes nothing until the other's lease has ended. The watch reports a takeover
with a delay, so every write names the daemon's record that it expects, and etcd refuses it if that record has changed.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.store import StoreError
from mesh.store.etcd.client import EtcdClient
from mesh.store.etcd.errors import EtcdRequestRefusedError
from mesh.store.etcd.messages import (
    KeyValue,
    LeaseGrant,
    LeaseKeepAlive,
    RangeResponse,
    RequestBody,
    TransactionResponse,
    prefix_end,
)
from mesh.util.backoff import Backoff
from mesh.util.bulkhead import Bulkhead

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.STORE)

_BATCH = 100
"""Operations per transaction; etcd accepts 128 (--max-txn-ops)."""
_BATCH_BYTES = 500_000
"""Bytes of keys and values per transaction; etcd accepts 1.5 MiB (--max-request-bytes)."""
_RETRY = 0.5
"""Seconds after a keepalive without a response: a lease may be short."""
_LONGEST_REST = 5 / 3
"""Maximum seconds between two keepalives, however long the lease is: they also detect that etcd does not answer."""
_ACCESS = "access"
"""The name of the work that checks whether etcd still serves this worker's user."""
_ACCESS_REST = 4.0
"""Maximum seconds between two of these checks."""
_REPAIR_REST = 2.0
"""Minimum seconds between two repairs. The first is immediate, and a program that keeps writing causes little load."""
_ATTEMPTS = 4
"""Attempts at one write. The daemon's record may have changed at the first, and the lease may be lost at the others."""


class RegistrationKeeper:
    """Keeps the leased keys of one worker in the store."""

    # Over 12 attributes: what is wanted, what is known to be there, the lease and who has the name are one state. Each
    # write and each look at a watch reads and changes most of it, under one lock.

    def __init__(
        self, gateway: EtcdClient, own: tuple[bytes, ...], ttl: int, session_of: Callable[[bytes], str | None]
    ) -> None:
        """`own` are prefixes below which only this worker writes, `ttl` is in seconds.

        `session_of` returns which run of a daemon wrote a daemon record, or None if the value is not such a record.
        """
        self._gateway = gateway
        self._session_of = session_of
        self._own = own
        self._daemon = own[0] + b"daemon"
        """The daemon's record. It is written last, and only by the daemon that has the name."""
        self._ttl = ttl
        self._lease = 0
        """ID of the lease; 0: none."""
        self._wanted: Mapping[bytes, bytes] | None = None
        """Records to register; None: nothing was registered yet, and what a previous run left stays."""
        self._there: dict[bytes, KeyValue] | None = None
        """Records that the store is known to have; None: read them first."""
        self._there_at = 0
        """The revision that `_there` is from."""
        self._seen: tuple[Mapping[bytes, KeyValue], int] | None = None
        """Own keys as the watch shows them, and their revision; None: nothing new to compare."""
        self._repaired_at = -_REPAIR_REST
        self._had_name = self._stepped_back = False
        """`_had_name`: whether this daemon has had the name; `_stepped_back`: whether another daemon has it now."""
        self._lives = 1
        """Incarnations of the store seen so far."""
        self._writing = asyncio.Lock()
        self._missed = asyncio.Event()
        self._troubles: dict[str, CodedText] = {}
        """Why each of the works of `keep` fails, by its name; only those that fail."""

    @property
    def trouble(self) -> CodedText | None:
        """Why the records cannot be kept; None while they can."""
        return next(iter(self._troubles.values()), None)

    async def register(self, records: Mapping[bytes, bytes]) -> None:
        """Make these the complete leased keys. While another daemon has the name, this waits until that one is gone."""
        self._wanted = records
        await self._write()

    def is_own(self, key: bytes) -> bool:
        """Return whether the key is below a prefix of this worker."""
        return key.startswith(self._own)

    def look(self, seen: Mapping[bytes, KeyValue], revision: int) -> None:
        """Compare the own keys as the watch shows them. Keys that are missing or changed are written again."""
        self._seen = seen, revision
        self._compare()

    def follow(self, revision: int) -> None:
        """Note that the watch has come this far without a change of the own keys."""
        if self._seen is not None:
            self.look(self._seen[0], revision)

    def begin_anew(self) -> None:
        """Forget what the store contains and write everything again, because it is another incarnation of the store."""
        self._lives += 1
        self._there, self._there_at, self._seen = None, 0, None
        self._had_name = self._stepped_back = False
        if self._wanted is not None:
            self._missed.set()

    async def keep(self) -> None:
        """Keep the lease alive and replace it if it is lost, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            works = {"lease": self._keep_alive, "leased keys": self._keep_written, _ACCESS: self._check_access}
            for name, work in works.items():
                tasks.create_task(bulkhead.keep_running(name, partial(self._repeat, name, work)), name=name)

    async def _repeat(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Call `work` for ever, with a pause after each `StoreError`."""
        backoff = Backoff(_RETRY)
        while True:
            try:
                await work()
            except StoreError as error:
                if not self._troubles:
                    code = error.code if name == _ACCESS else Code.LEASE_LOST
                    log.warning(
                        "%s of this worker: %s", _ACCESS if name == _ACCESS else "lease", error, extra=code.extra
                    )
                self._troubles[name] = error.coded
                await asyncio.sleep(backoff.next_pause())
            else:
                self._troubles.pop(name, None)
                backoff.reset()

    async def _keep_alive(self) -> None:
        """Send one keepalive. This runs beside all writes, which may take long: the lease must not end meanwhile.

        Without a lease something else is asked, since the watch alone does not detect that etcd hangs.
        """
        lease = self._lease
        if not lease:
            await self._gateway.call("kv/range", {"key": self._daemon}, RangeResponse)
        elif not await self._is_alive(lease) and self._lease == lease:
            log.warning(
                "the lease of this worker has ended: its records are registered again", extra=Code.LEASE_LOST.extra
            )
            self._lease, self._there = 0, None
            self._missed.set()
        await asyncio.sleep(min(self._ttl / 3, _LONGEST_REST) * random.uniform(0.8, 1))

    async def _check_access(self) -> None:
        """Read one key as this worker's user.

        An open watch and the keepalives of a lease go on when etcd begins to require a user, or when the user or its
        role loses its rights: nothing else would notice before the next write.
        """
        await asyncio.sleep(_ACCESS_REST * random.uniform(0.8, 1))
        await self._gateway.call(
            "kv/range", {"key": self._daemon, "keys_only": True, "serializable": True}, RangeResponse
        )

    async def _keep_written(self) -> None:
        await self._missed.wait()
        await asyncio.sleep(self._repaired_at + _REPAIR_REST - asyncio.get_running_loop().time())
        if self._wanted is not None:
            await self._write()
            self._repaired_at = asyncio.get_running_loop().time()
            if self._there is not None:
                self._missed.clear()

    async def _is_alive(self, lease: int) -> bool:
        answer = await self._gateway.call("lease/keepalive", {"ID": lease}, LeaseKeepAlive, within=self._ttl)
        return answer.result.ttl > 0

    def _compare(self) -> None:
        """Compare what the watch shows with what was written, once the watch has reached the last write."""
        if self._seen is None or self._writing.locked() or self._seen[1] < self._there_at:
            return
        seen, there = self._seen[0], self._there
        another = self._is_of_another(seen.get(self._daemon))
        if self._stepped_back:
            self._seen = None
            if not another:
                self._stepped_back = False
                self._missed.set()
            return
        if there is None:
            return
        self._seen = None
        if another:
            self._step_back()
            return
        odd = [key for key in seen.keys() | there.keys() if not _are_alike(seen.get(key), there.get(key))]
        if odd:
            one = min(odd).decode(errors="replace")
            log.warning(
                "%d records of this worker differ from what it wrote, such as %s; they are written again",
                len(odd),
                one,
                extra=Code.RECORDS_CHANGED_OUTSIDE.extra,
            )
            self._there = None
            self._missed.set()

    def _is_of_another(self, there: KeyValue | None) -> bool:
        """Return whether the record is of another live daemon with this name. A record without a lease is of none."""
        mine = (self._wanted or {}).get(self._daemon)
        if there is None or mine is None or not there.lease:
            return False
        return self._session_of(there.value) not in (None, self._session_of(mine))

    def _step_back(self) -> None:
        """Give up the name. The other daemon may have taken over the lease, which must not outlive it."""
        self._stepped_back, self._lease, self._there = True, 0, None
        self._missed.clear()

    async def _write(self) -> None:
        life = self._lives
        await self._write_alone()
        if life != self._lives:  # part of the write may have gone to the previous incarnation
            self._there, self._there_at = None, 0
            self._missed.set()
        self._compare()

    async def _write_alone(self) -> None:
        async with self._writing:
            for _ in range(_ATTEMPTS):
                try:
                    if await self._write_under_lease():
                        return
                    self._there = None
                except EtcdRequestRefusedError as error:
                    self._there = None
                    if not error.lease_is_lost:
                        raise
                    self._lease = 0
                except BaseException:
                    self._there = None  # a write may have been applied or not
                    raise
            if self._lease:  # the lease is good, but the daemon's record changes all the time
                self._missed.set()
                return
        raise StoreError(
            Code.LEASE_LOST,
            f"etcd ends the lease of {self._ttl} s immediately; check that the clocks of its members run evenly",
        )

    async def _write_under_lease(self) -> bool:
        """Return True if nothing is left to write, False if the daemon's record has changed since it was read."""
        if self._stepped_back:
            return True
        wanted = self._wanted or {}
        if self._there is None:
            self._there = await self._read()
            if self._had_name and self._is_of_another(self._there.get(self._daemon)):
                self._step_back()
                return True
        if not self._lease and (wanted or self._there):
            await self._take_lease(self._there)
        there = self._there
        puts = [k for k in wanted if k not in there or (there[k].value, there[k].lease) != (wanted[k], self._lease)]
        deletes = [k for k in there if k not in wanted]
        for batch in _batches(wanted, [*puts, *deletes]):
            body: RequestBody = {"success": [self._write_of(wanted, k) for k in batch]}
            if self._had_name:  # another daemon may have taken the name over, which no watch has shown yet
                body["compare"] = [_unchanged(self._daemon, there.get(self._daemon))]
            answer = await self._gateway.call("kv/txn", body, TransactionResponse)
            if not answer.succeeded:
                return False
            self._there_at = max(self._there_at, answer.header.revision)
            for key in batch:
                there.pop(key, None)
                if key in wanted:
                    there[key] = KeyValue(key, wanted[key], lease=self._lease)
        self._had_name = self._daemon in wanted
        return True

    def _write_of(self, wanted: Mapping[bytes, bytes], key: bytes) -> RequestBody:
        if key in wanted:
            return {"request_put": {"key": key, "value": wanted[key], "lease": self._lease}}
        return {"request_delete_range": {"key": key}}

    async def _read(self) -> dict[bytes, KeyValue]:
        found: dict[bytes, KeyValue] = {}
        for prefix in self._own:
            body: RequestBody = {"key": prefix, "range_end": prefix_end(prefix)}
            answer = await self._gateway.call("kv/range", body, RangeResponse)
            found |= {kv.key: kv for kv in answer.kvs}
            self._there_at = answer.header.revision
        return found

    async def _take_lease(self, there: Mapping[bytes, KeyValue]) -> None:
        """Take over the lease of the previous run if it is alive and has the same TTL, or request a new one."""
        for former, _ in Counter(kv.lease for kv in there.values() if kv.lease).most_common(1):
            alive = await self._gateway.call("lease/keepalive", {"ID": former}, LeaseKeepAlive)
            if alive.result.ttl == self._ttl:
                self._lease = former
                return
        self._lease = (await self._gateway.call("lease/grant", {"TTL": self._ttl}, LeaseGrant)).id


def _unchanged(key: bytes, known: KeyValue | None) -> RequestBody:
    """The condition (etcd's `Compare`) that a record has not changed; `known` is None if there was none."""
    if known is None:
        return {"key": key, "target": "CREATE", "create_revision": 0}
    return {"key": key, "target": "VALUE", "value": known.value}


def _are_alike(one: KeyValue | None, other: KeyValue | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.value, one.lease) == (other.value, other.lease)


def _batches(wanted: Mapping[bytes, bytes], keys: list[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for key in keys:
        length = len(key) + len(wanted.get(key, b""))
        if batch and (len(batch) == _BATCH or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(key)
        size += length
    if batch:
        yield batch
