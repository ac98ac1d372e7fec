"""The `Store` of a cluster on etcd (v3.4 and newer).

A watch lists all keys once, then follows from that revision on, across failed members, lost connections and elections.
Only if etcd has compacted the revisions in between, or is another incarnation of the store (its disks were lost, a
backup was restored), everything is listed again; consumers compare whole views anyway.

The incarnation is in a key of its own, `origin`, which the first worker writes and no record shows. A backup contains
it too, so a worker that finds that the store is not the one it followed writes a new one, for all workers to see.
"""

import asyncio
import logging
import random
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from datetime import datetime

from typing_extensions import override

from mesh.config.etcd_url import EtcdUrl
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.store import Store, StoreError, StoreSnapshot
from mesh.store.etcd.client import EtcdClient
from mesh.store.etcd.errors import EtcdRequestRefusedError, EtcdResponseTooLargeError, EtcdUnreachableError
from mesh.store.etcd.held_keys import EtcdHeldKeys
from mesh.store.etcd.messages import KeyValue, RangeResponse, RequestBody, TransactionResponse, prefix_end
from mesh.store.etcd.mirror import KeyMirror, MirrorLostError
from mesh.store.etcd.registrations import RegistrationKeeper
from mesh.util.backoff import Backoff

log = logging.getLogger("vipmesh")

_PAGE = 2000
"""Keys per response: few enough for the request timeout."""
_RETRY = 0.2
"""Maximum seconds before a watch that ended is opened again; at random down to half of it."""


class EtcdStore(Store):
    """The `Store` on etcd. Create it in the event loop; `run` is a task that runs beside everything else."""

    def __init__(
        self,
        gateway: EtcdClient,
        prefix: str,
        own: tuple[str, ...],
        lease_ttl: int,
        session_of: Callable[[bytes], str | None],
    ) -> None:
        """`prefix` is that of all keys; `own` are those below it where only this worker writes. All end with a slash.

        `session_of` returns which run of a daemon wrote a daemon record, or None if the value is not such a record.
        """
        self._gateway = gateway
        self._prefix = prefix.encode()
        below = tuple(self._prefix + part.encode() for part in own)
        self._registrations = RegistrationKeeper(gateway, below, lease_ttl, session_of)
        self._held = EtcdHeldKeys(gateway, lease_ttl, lambda key: self._prefix + key.encode())
        self._former: StoreSnapshot | None = None
        self._silent: CodedText | None = None
        self._closed = False

    @classmethod
    def at(
        cls,
        url: EtcdUrl,
        gateway: EtcdClient,
        own: tuple[str, ...],
        lease_ttl: int,
        session_of: Callable[[bytes], str | None],
    ) -> "EtcdStore":
        """Make a store below the URL's prefix."""
        return cls(gateway, url.prefix, own, lease_ttl, session_of)

    def remember(self, seen: StoreSnapshot) -> None:
        """Set the last snapshot that a previous run of this daemon saw. Call it before any request."""
        self._former = seen
        if cluster := re.fullmatch(r".*@([0-9a-f]{1,16})", seen.origin):
            self._gateway.expect(int(cluster[1], 16))

    @property
    @override
    def trouble(self) -> CodedText | None:
        return self._silent or self._registrations.trouble

    @override
    async def run(self) -> None:
        await self._registrations.keep()

    @override
    async def read(self) -> StoreSnapshot:
        self._check_open()
        try:
            return (await self._list()).snapshot()
        except StoreError as error:
            self._is_silent(error)  # so that a watch that starts now need not detect it again
            raise

    @override
    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        self._check_open()
        wanted = {self._prefix + name.encode(): value for name, value in records.items()}
        answer = await self._transaction(
            {
                "compare": [{"key": key, "target": "CREATE", "create_revision": 0} for key in wanted],
                "success": [{"request_put": {"key": key, "value": value}} for key, value in wanted.items()],
                "failure": [{"request_range": {"key": key}} for key in wanted],
            }
        )
        if answer.succeeded:
            return {}
        there = {kv.key: kv.value for kv in answer.found}
        if there == wanted:
            return {}  # an earlier attempt whose answer was lost, or another worker with the same wish
        return {key.removeprefix(self._prefix).decode(): value for key, value in there.items()}

    @override
    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        self._check_open()
        where = self._prefix + key.encode()
        put = [{"request_put": {"key": where, "value": new}}] if old != new else []
        answer = await self._transaction(
            {
                "compare": [{"key": where, "target": "VALUE", "value": old}],
                "success": put,
                "failure": [{"request_range": {"key": where}}],
            }
        )
        return answer.succeeded or [kv.value for kv in answer.found] == [new]

    @override
    async def change(self, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bool:
        self._check_open()
        where = {key: self._prefix + key.encode() for key in before}
        answer = await self._transaction(
            {
                "compare": [_has_value(where[key], value) for key, value in before.items()],
                "success": [_set_value(where[key], value) for key, value in after.items() if value != before[key]],
                "failure": [{"request_range": {"key": key}} for key in where.values()],
            }
        )
        there = {kv.key: kv.value for kv in answer.found}
        return answer.succeeded or {key: there.get(where[key]) for key in before} == after

    @override
    async def register(self, records: Mapping[str, bytes]) -> None:
        self._check_open()
        await self._registrations.register({self._prefix + name.encode(): value for name, value in records.items()})

    @override
    async def hold(self, key: str, value: bytes | None) -> bytes | None:
        self._check_open()
        return await self._held.hold(key, value)

    @override
    async def release(self, key: str, value: bytes) -> None:
        self._check_open()
        await self._held.release(key, value)

    @override
    async def watch(self) -> AsyncIterator[StoreSnapshot]:
        mirror: KeyMirror | None = None
        life: str | None = None
        backoff = Backoff(_RETRY, jitter=0.5, random=random.random)
        while True:
            self._check_open()
            try:
                if mirror is None:
                    mirror = await self._list()
                    if self._is_behind(mirror):
                        await self._begin_life(mirror.origin)
                        mirror = await self._list()
                    self._answers()
                    backoff.reset()
                    if life not in (None, mirror.life):
                        self._registrations.begin_anew()
                    life = mirror.life
                    self._registrations.look(mirror.own, mirror.revision)
                    yield mirror.snapshot()
                async with aclosing(self._follow(mirror)) as following:
                    async for changed in following:
                        self._answers()
                        backoff.reset()
                        if changed:
                            yield mirror.snapshot()
            except MirrorLostError:
                mirror = None
            except StoreError as error:
                self._is_silent(error)
                await asyncio.sleep(backoff.next_pause())

    @override
    async def close(self) -> None:
        """Close the connections. The lease lives on for its time: a daemon that comes back takes it over."""
        self._closed = True
        await self._gateway.close()

    async def _follow(self, mirror: KeyMirror) -> AsyncGenerator[bool, None]:
        """Yield after each batch of events whether it changed a record.

        Raises `MirrorLostError` if it is another incarnation of the store, whose revisions would be lower.
        """
        asked = {
            "key": self._prefix,
            "range_end": prefix_end(self._prefix),
            "start_revision": mirror.revision + 1,
            "progress_notify": True,
        }
        async with self._gateway.stream({"create_request": asked}) as stream:
            if not await self._is_followed_by(mirror.life, mirror.revision, mirror.newest):
                await self._begin_life(mirror.origin)
                raise MirrorLostError
            async for answers in stream:
                changes = [mirror.apply(answer) for answer in answers]  # a list: all are applied before `any` stops
                if any(self._registrations.is_own(event.kv.key) for answer in answers for event in answer.events):
                    self._registrations.look(mirror.own, mirror.revision)
                else:
                    self._registrations.follow(mirror.revision)
                yield any(changes)

    def _is_behind(self, mirror: KeyMirror) -> bool:
        """Return whether a previous run of this daemon has seen a later revision: an older backup was restored."""
        seen = self._former
        return seen is not None and seen.origin == mirror.life and seen.revision > mirror.revision

    async def _is_followed_by(self, life: str, revision: int, newest: KeyValue) -> bool:
        """Return whether the store still has the history that was followed, according to a majority of its members."""
        now = KeyMirror(self._prefix, 0, self._registrations.is_own)
        answer = await self._range({"key": self._prefix + b"origin"})
        now.cluster = answer.header.cluster_id
        for kv in answer.kvs:
            now.put(kv)
        if now.life != life or answer.header.revision < revision:
            return False
        if not newest.key:
            return True  # there was nothing yet
        try:
            there = await self._range({"key": newest.key, "revision": newest.mod_revision})
        except EtcdRequestRefusedError as error:
            if not error.is_compacted:
                raise
            return True  # the revision is compacted: it cannot be verified any more
        return [kv.mod_revision for kv in there.kvs] == [newest.mod_revision]

    async def _begin_life(self, after: bytes | None) -> bytes:
        """Create or read the store's incarnation ID; the first worker wins. `after` is the ID to replace, or None."""
        where, mine = self._prefix + b"origin", uuid.uuid4().hex.encode()
        first: RequestBody = {"key": where, "target": "CREATE", "create_revision": 0}
        answer = await self._transaction(
            {
                "compare": [first if after is None else {"key": where, "target": "VALUE", "value": after}],
                "success": [{"request_put": {"key": where, "value": mine}}],
                "failure": [{"request_range": {"key": where}}],
            }
        )
        return mine if answer.succeeded else next((kv.value for kv in answer.found), b"")

    async def _list(self) -> KeyMirror:
        """List all keys as of one revision. A store that has an incarnation is not written to: it may be full."""
        mirror = await self._pages()
        if not mirror.origin and await self._begin_life(None):
            mirror = await self._pages()
        if not mirror.origin:
            raise EtcdUnreachableError("sent a response that is not from etcd: a key that was written is missing")
        return mirror

    async def _pages(self) -> KeyMirror:
        mirror: KeyMirror | None = None
        body: RequestBody = {"key": self._prefix, "range_end": prefix_end(self._prefix), "limit": _PAGE}
        while True:
            try:
                answer = await self._range(body)
            except EtcdResponseTooLargeError:
                if body["limit"] == 1:
                    raise
                body |= {"limit": max(1, body["limit"] // 8)}  # a few records are large
                continue
            except EtcdRequestRefusedError as error:
                if not error.is_compacted:
                    raise
                return await self._pages()
            if mirror is None:
                mirror = KeyMirror(self._prefix, answer.header.cluster_id, self._registrations.is_own)
                mirror.revision = answer.header.revision
            for kv in answer.kvs:
                mirror.put(kv)
            if not answer.more or not answer.kvs:
                return mirror
            body |= {"key": answer.kvs[-1].key + b"\0", "revision": mirror.revision}

    async def _range(self, body: RequestBody) -> RangeResponse:
        return await self._gateway.call("kv/range", body, RangeResponse)

    async def _transaction(self, body: RequestBody) -> TransactionResponse:
        return await self._gateway.call("kv/txn", body, TransactionResponse)

    def _answers(self) -> None:
        if self._silent is not None:
            log.info("store: etcd answers again; it did not answer %s", self._silent)
            self._silent = None

    def _is_silent(self, error: StoreError) -> None:
        if isinstance(error, EtcdUnreachableError):
            error = StoreError(Code.STORE_UNREACHABLE, f"etcd: {self._gateway.member}: {error}")
        if self._silent is None:
            now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            self._silent = CodedText(f"since {now}: {error}", error.code)
            log.error("store: %s; what was read last stays in force", error, extra=error.code.extra)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(Code.STORE_UNUSABLE, "the store is closed; restart the daemon")


def _has_value(key: bytes, value: bytes | None) -> RequestBody:
    """The condition that a key has this value; None: that it does not exist."""
    if value is None:
        return {"key": key, "target": "CREATE", "create_revision": 0}
    return {"key": key, "target": "VALUE", "value": value}


def _set_value(key: bytes, value: bytes | None) -> RequestBody:
    """The operation that gives a key this value; None: that deletes it."""
    if value is None:
        return {"request_delete_range": {"key": key}}
    return {"request_put": {"key": key, "value": value}}
