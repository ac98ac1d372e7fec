"""What this worker registers lives under its lease: it goes by itself when the worker stays away.

Level-triggered: the last registration is what shall be there, and after any doubt (a write without an answer, a lease
that ended) what is there is read first. A daemon that was restarted takes over the lease of its former life, so that
the others see nothing of it. Every write is idempotent.

What a watch shows is compared with what was written: somebody may write by hand, or etcd may apply a write without an
answer later than one that came after it. What differs is written again, unless another daemon has taken the name over:
then this one keeps no lease alive and writes nothing, until the other's lease has ended. The watch reports a takeover
with a delay, so every write names the daemon's record that it expects, and etcd refuses it if that record has changed.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping

from mesh.model.codes import Code
from mesh.model.errors import CodedText
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

log = logging.getLogger("vipmesh")

_BATCH = 100
"""Operations in one transaction; etcd takes 128 (--max-txn-ops)."""
_BATCH_BYTES = 500_000
"""Of keys and values in one transaction; etcd takes 1.5 MiB (--max-request-bytes)."""
_RETRY = 0.5
"""Seconds after a keepalive that nobody answered: a lease may be short."""
_LONGEST_REST = 5 / 3
"""Seconds between two keepalives, however long the lease is: they are also what finds that etcd does not answer."""
_REPAIR_REST = 2.0
"""Seconds from one repair to the next: the first comes at once, and who writes against us all the time costs little."""
_ATTEMPTS = 4
"""Attempts at one write. The daemon's record may have changed at the first, and the lease may be lost at the others."""


class RegistrationKeeper:
    """The leased keys of one worker."""

    # Over 12 attributes: what is wanted, what is known to be there, the lease and who has the name are one state. Each
    # write and each look at a watch reads and changes most of it, under one lock.

    def __init__(
        self, gateway: EtcdClient, own: tuple[bytes, ...], ttl: int, session_of: Callable[[bytes], str | None]
    ) -> None:
        """`own`: prefixes below which nobody else writes; `ttl`: seconds; `session_of`: which run of a daemon wrote a
        daemon record, None if the value is not one."""
        self._gateway = gateway
        self._session_of = session_of
        self._own = own
        self._daemon = own[0] + b"daemon"
        """Written last, and by whoever has the name."""
        self._ttl = ttl
        self._lease = 0
        """0: none."""
        self._wanted: Mapping[bytes, bytes] | None = None
        """None: nothing was registered yet, and what a former life left stays."""
        self._there: dict[bytes, KeyValue] | None = None
        """What the store is known to hold; None: it is to be read."""
        self._there_at = 0
        """As of which revision."""
        self._seen: tuple[Mapping[bytes, KeyValue], int] | None = None
        """What a watch shows, and as of which revision; None: nothing that was not compared yet."""
        self._repaired_at = -_REPAIR_REST
        self._had_name = self._stepped_back = False
        """Whether this daemon was the one with the name, and whether another one is by now."""
        self._lives = 1
        """Of the store, as far as is known here."""
        self._writing = asyncio.Lock()
        self._missed = asyncio.Event()
        self.trouble: CodedText | None = None

    async def register(self, records: Mapping[bytes, bytes]) -> None:
        """Make the leased keys exactly these; while another daemon has the name, as soon as it is gone."""
        self._wanted = records
        await self._write()

    def is_own(self, key: bytes) -> bool:
        """Whether it is below a prefix of this worker."""
        return key.startswith(self._own)

    def look(self, seen: Mapping[bytes, KeyValue], revision: int) -> None:
        """What a watch shows of the own keys. What is missing or is not as it was written is written again."""
        self._seen = seen, revision
        self._compare()

    def follow(self, revision: int) -> None:
        """The watch has come this far, and nothing of the own keys has changed since the last look."""
        if self._seen is not None:
            self.look(self._seen[0], revision)

    def begin_anew(self) -> None:
        """The store is another one: nothing is known of what it holds, and everything is written again."""
        self._lives += 1
        self._there, self._there_at, self._seen = None, 0, None
        self._had_name = self._stepped_back = False
        if self._wanted is not None:
            self._missed.set()

    async def keep(self) -> None:
        """Keep the lease alive, and get another one if it is lost; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._keep_alive), name="lease")
            tasks.create_task(self._repeat(self._keep_written), name="leased keys")

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Call `work` for ever, with a pause after each `StoreError`."""
        backoff = Backoff(_RETRY)
        while True:
            try:
                await work()
            except StoreError as error:
                if self.trouble is None:
                    log.warning("lease of this worker: %s", error, extra=Code.LEASE_LOST.extra)
                self.trouble = error.coded
                await asyncio.sleep(backoff.next_pause())
            else:
                self.trouble = None
                backoff.reset()

    async def _keep_alive(self) -> None:
        """Beside all writing: that may take long when etcd is busy, and the lease must not end over it."""
        lease = self._lease
        if lease and not await self._is_alive(lease) and self._lease == lease:
            log.warning(
                "the lease of this worker has ended: what it offers is registered anew", extra=Code.LEASE_LOST.extra
            )
            self._lease, self._there = 0, None
            self._missed.set()
        await asyncio.sleep(min(self._ttl / 3, _LONGEST_REST) * random.uniform(0.8, 1))

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
        """What a watch shows with what was written, once it has come as far."""
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
                "%d records of this worker are not what it wrote, %s is one: written again",
                len(odd),
                one,
                extra=Code.RECORDS_CHANGED_OUTSIDE.extra,
            )
            self._there = None
            self._missed.set()

    def _is_of_another(self, there: KeyValue | None) -> bool:
        """Whether this record is of another daemon with this name. One without a lease is of none that is alive."""
        mine = (self._wanted or {}).get(self._daemon)
        if there is None or mine is None or not there.lease:
            return False
        return self._session_of(there.value) not in (None, self._session_of(mine))

    def _step_back(self) -> None:
        """The other one may have taken over the lease, which must not outlive it."""
        self._stepped_back, self._lease, self._there = True, 0, None
        self._missed.clear()

    async def _write(self) -> None:
        life = self._lives
        await self._write_alone()
        if life != self._lives:  # some of it may be of the former one
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
            Code.LEASE_LOST, f"etcd ends the lease of {self._ttl} s at once; see that its members' clocks run evenly"
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
        """The one of a former life if it lives and is as long as ours, else a new one."""
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
