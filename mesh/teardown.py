"""`vipmesh teardown`: take away from the kernel what the daemon left there, and nothing else.

Stopping the daemon leaves the data plane running, on purpose; this is what cleans up. Claims stay in the store, so that
every service gets its VIP back when the daemon comes back.
"""

import asyncio
import errno
from pathlib import Path

from mesh.config import Settings
from mesh.dataplane.ipvs import driver as ipvs
from mesh.diff import diff
from mesh.host import HostError
from mesh.host.addresses import worker_addresses
from mesh.host.interface import MeshInterface
from mesh.host.source_nat import TABLE, SourceNat
from mesh.model import Claims, Table
from mesh.published import PublishedPorts
from mesh.store.records import view
from mesh.store.sqlite import SqliteStore


async def teardown(settings: Settings) -> tuple[list[str], list[str]]:
    """Remove virtual servers in the VIP pool and on published ports, source NAT, and the interface `mesh0`.

    Returns what was removed and what could not be, a line each. Raises `StoreError` while a daemon runs, whose work
    this would undo only for a moment, and `DataPlaneError`.
    """
    published = PublishedPorts()
    published.claims = await _claims(settings)
    published.know([settings.node_address] if settings.node_address else await worker_addresses())
    removed: list[str] = []
    failed: list[str] = []
    interface = MeshInterface()
    try:
        if await ipvs.available() is None:
            plane = ipvs.IpvsDataPlane(settings.vip_pool, interface, published)
            operations = diff(await plane.read(), Table())
            failures = await plane.apply(operations)
            await plane.close()
            failed += [f"{failure.operation}: {failure.reason}" for failure in failures]
            refused = {failure.operation for failure in failures}
            removed += [str(operation) for operation in operations if operation not in refused]
            await _remove_source_nat(SourceNat(settings.vip_pool), removed, failed)
        if await interface.remove():
            removed.append(f"delete interface {interface.name}")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES):
            raise
        failed.append(f"delete interface {interface.name}: not permitted; run as root")
    finally:
        await interface.close()
    return removed, failed


async def _remove_source_nat(source_nat: SourceNat, removed: list[str], failed: list[str]) -> None:
    try:
        removed += [f"delete nftables table {family} {TABLE}" for family in await source_nat.remove()]
    except HostError as error:
        failed.append(f"delete nftables table {TABLE}: {error}")


async def _claims(settings: Settings) -> Claims:
    path = Path(settings.store_url.removeprefix("sqlite:///"))
    if not await asyncio.to_thread(path.exists):
        return Claims()  # no daemon has ever claimed a port here
    store = await SqliteStore.open(path, settings.node_name)
    try:
        seen, _ = view((await store.read()).records)
    finally:
        await store.close()
    return seen.claims
