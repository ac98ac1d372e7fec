"""Opens the store that the settings name."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from mesh.cluster.records.decode import daemon_session
from mesh.cluster.records.encode import own_prefixes
from mesh.cluster.records.redaction import redact_record
from mesh.config import etcd_url
from mesh.config.settings import Settings
from mesh.model.codes import Code
from mesh.store import Store, StoreError
from mesh.store.cached import CachedStore
from mesh.store.etcd import EtcdClient, EtcdCredentials, EtcdStore
from mesh.store.etcd.tls import TlsCertificates
from mesh.store.etcd.usage import EtcdUsageStore
from mesh.store.sqlite import SqliteStore
from mesh.store.usage import LocalUsageStore, UsageStore


async def open_store(settings: Settings) -> Store:
    """Open the store. Raises `StoreError` if the settings cannot work. A cluster that is merely unreachable is not an
    error: its last view is on disk.
    """
    if settings.store_url.startswith("sqlite:"):
        return await SqliteStore.open(
            Path(settings.store_url.removeprefix("sqlite:///")), settings.node_name, redact_record
        )
    url = etcd_url.parse_etcd_url(settings.store_url)
    tls = await asyncio.to_thread(TlsCertificates, settings) if url.tls else None
    gateway = EtcdClient(url.members, etcd_credentials(settings), tls)
    store = EtcdStore.at(url, gateway, own_prefixes(settings.node_name), settings.store_lease_ttl, daemon_session)
    try:
        view = await CachedStore.open(store, settings.store_saved_view, redact_record)
        if (saved := await view.saved()) is not None:
            store.remember(saved)
    except BaseException:
        await store.close()
        raise
    return view


_EVIDENCE_KEEP_ALIVE = 20
"""Writes of evidence after which its lease is kept alive: 20 s of its 60."""

UsageStoreOpener: TypeAlias = Callable[[], Awaitable[UsageStore]]
"""Opens a store of what workers tell one another; raises `StoreError` if the settings cannot work."""


def usage_opener(settings: Settings) -> UsageStoreOpener:
    """Return a function that opens the store of usage records. With SQLite it returns the same store each time."""
    return _opener(settings, lambda etcd, prefix: EtcdUsageStore(etcd, etcd_url.usage_prefix(prefix)))


def evidence_opener(settings: Settings) -> UsageStoreOpener:
    """Return what opens the store of evidence of rollouts, as `usage_opener` does."""
    return _opener(
        settings, lambda etcd, prefix: EtcdUsageStore(etcd, etcd_url.rollouts_prefix(prefix), _EVIDENCE_KEEP_ALIVE)
    )


def _opener(settings: Settings, make: Callable[[EtcdClient, str], UsageStore]) -> UsageStoreOpener:
    local: list[LocalUsageStore] = []

    async def open_usage_store() -> UsageStore:
        if settings.store_url.startswith("sqlite:"):
            if not local:
                local.append(LocalUsageStore(asyncio.get_running_loop().time))
            return local[0]
        url = etcd_url.parse_etcd_url(settings.store_url)
        tls = await asyncio.to_thread(TlsCertificates, settings) if url.tls else None
        return make(EtcdClient(url.members, etcd_credentials(settings), tls), url.prefix)

    return open_usage_store


def etcd_credentials(settings: Settings) -> EtcdCredentials | None:
    """Return the user of etcd, None if none is set. Raises `StoreError` for a user without a password."""
    if settings.store_user is None:
        return None
    if settings.store_password is None:
        raise StoreError(
            Code.STORE_CREDENTIALS, "[store] user has no password; set [store] password or VIPMESH_STORE_PASSWORD"
        )
    return EtcdCredentials(settings.store_user, settings.store_password)
