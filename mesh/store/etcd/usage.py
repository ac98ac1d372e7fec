"""Usage records in etcd: below a prefix beside that of the cluster, so that no watch of a worker carries them."""

from collections.abc import Mapping

from typing_extensions import override

from mesh.store.etcd.client import EtcdClient
from mesh.store.etcd.errors import EtcdRequestRefusedError
from mesh.store.etcd.messages import (
    LeaseGrant,
    LeaseKeepAlive,
    RangeResponse,
    RequestBody,
    TransactionResponse,
    prefix_end,
)
from mesh.store.usage import USAGE_LIFETIME, UsageStore

_KEEP_ALIVE_EVERY = 3
"""Writes after which the lease is kept alive: 30 s of its 60."""
_PAGE = 200
"""Records of one request."""


class EtcdUsageStore(UsageStore):
    """Writes the record of one worker under a lease of its own."""

    def __init__(self, gateway: EtcdClient, prefix: str, keep_alive_every: int = _KEEP_ALIVE_EVERY) -> None:
        """`prefix` is that of the records, `/vipmesh.usage/`. The gateway is closed with this store. `keep_alive_every`
        is the number of writes after which the lease is kept alive.
        """
        self._gateway = gateway
        self._keep_alive_every = keep_alive_every
        self._prefix = prefix.encode()
        self._lease = 0
        self._writes = 0

    @override
    async def write(self, key: str, value: bytes) -> None:
        if self._lease and self._writes % self._keep_alive_every == 0:
            answer = await self._gateway.call("lease/keepalive", {"ID": self._lease}, LeaseKeepAlive)
            self._lease = self._lease if answer.result.ttl > 0 else 0
        self._writes += 1
        if not self._lease:
            await self._take_lease()
        try:
            await self._put(key, value)
        except EtcdRequestRefusedError as error:
            if "lease not found" not in error.fault.message:
                raise
            await self._take_lease()
            await self._put(key, value)

    @override
    async def read(self) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        begin, end = self._prefix, prefix_end(self._prefix)
        while True:
            body: RequestBody = {"key": begin, "range_end": end, "limit": _PAGE, "serializable": True}
            answer = await self._gateway.call("kv/range", body, RangeResponse)
            for kv in answer.kvs:
                found[kv.key.removeprefix(self._prefix).decode("utf-8", "replace")] = kv.value
            if not answer.more or not answer.kvs:
                return found
            begin = answer.kvs[-1].key + b"\0"

    @override
    async def close(self) -> None:
        await self._gateway.close()

    async def _take_lease(self) -> None:
        self._lease = (await self._gateway.call("lease/grant", {"TTL": USAGE_LIFETIME}, LeaseGrant)).id
        self._writes = 1

    async def _put(self, key: str, value: bytes) -> None:
        put = {"request_put": {"key": self._prefix + key.encode(), "value": value, "lease": self._lease}}
        await self._gateway.call("kv/txn", {"success": [put]}, TransactionResponse)
