"""Holds single keys under a lease: whoever creates such a key first has it, until it is released or its lease ends.

The lease is another one than that of the worker's records: a key must go on to another worker although this one runs.
"""

from collections.abc import Callable

from mesh.store.etcd.client import EtcdClient
from mesh.store.etcd.errors import EtcdRequestRefusedError
from mesh.store.etcd.messages import (
    KeyValue,
    LeaseGrant,
    LeaseKeepAlive,
    RangeResponse,
    RequestBody,
    TransactionResponse,
)


class EtcdHeldKeys:
    """Holds keys of one worker in etcd. Every method raises `StoreError`."""

    def __init__(self, gateway: EtcdClient, ttl: int, whole: Callable[[str], bytes]) -> None:
        """`ttl` is that of the lease, in seconds. `whole` returns a key with the prefix of the store."""
        self._gateway = gateway
        self._ttl = ttl
        self._whole = whole
        self._lease = 0
        """The ID of the lease; 0: none."""

    async def hold(self, key: str, value: bytes | None) -> bytes | None:
        """Create the key or prolong it; return who has it. `value` None: only ask."""
        where = self._whole(key)
        there = await self._read(where)
        if value is None or (there is not None and there.value != value):
            return None if there is None else there.value
        await self._have_lease()
        if there is not None and there.lease == self._lease:
            return value
        # An earlier request may have written it under a lease that has ended since, or is about to.
        known: RequestBody = {"key": where, "target": "CREATE", "create_revision": 0}
        if there is not None:
            known = {"key": where, "target": "VALUE", "value": value}
        try:
            answer = await self._gateway.call(
                "kv/txn",
                {
                    "compare": [known],
                    "success": [{"request_put": {"key": where, "value": value, "lease": self._lease}}],
                    "failure": [{"request_range": {"key": where}}],
                },
                TransactionResponse,
            )
        except EtcdRequestRefusedError as error:
            if not error.lease_is_lost:
                raise
            self._lease = 0
            return None
        return value if answer.succeeded else next((kv.value for kv in answer.found), None)

    async def release(self, key: str, value: bytes) -> None:
        """Delete the key if it has this value."""
        where = self._whole(key)
        await self._gateway.call(
            "kv/txn",
            {
                "compare": [{"key": where, "target": "VALUE", "value": value}],
                "success": [{"request_delete_range": {"key": where}}],
            },
            TransactionResponse,
        )

    async def _read(self, where: bytes) -> KeyValue | None:
        answer = await self._gateway.call("kv/range", {"key": where}, RangeResponse)
        return next(iter(answer.kvs), None)

    async def _have_lease(self) -> None:
        """Prolong the lease, or request a new one."""
        if self._lease:
            answer = await self._gateway.call("lease/keepalive", {"ID": self._lease}, LeaseKeepAlive, within=self._ttl)
            if answer.result.ttl > 0:
                return
        self._lease = (await self._gateway.call("lease/grant", {"TTL": self._ttl}, LeaseGrant)).id
