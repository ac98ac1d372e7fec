"""`vipmesh teardown`: removes from the kernel what the daemon left there, and nothing else.

Stopping the daemon leaves the data plane in place on purpose; this removes it. Claims stay in the store, so that every
service gets its VIP back when the daemon returns.
"""

import asyncio
import errno
from pathlib import Path

from mesh.cluster.records.encode import build_view
from mesh.config.settings import Settings
from mesh.daemon.open_store import open_store
from mesh.dataplane import DataPlaneError
from mesh.dataplane.conntrack.connections import TrackedConnections
from mesh.dataplane.conntrack.stale import OwnKeys
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs import plane as ipvs
from mesh.dataplane.nftables import plane as nftables
from mesh.dataplane.ownership import PublishedPorts
from mesh.host import HostError
from mesh.host.addresses import worker_addresses
from mesh.host.firewall.programs import SystemPrograms
from mesh.host.firewall.upkeep import remove_opening
from mesh.host.hairpin import HairpinPorts
from mesh.host.held_connections import HeldConnections
from mesh.host.masquerade import Masquerade
from mesh.host.request_counts import RequestCounter
from mesh.host.vip_interface import MeshInterface
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.table import Table
from mesh.util.nft import NftError


async def teardown(settings: Settings) -> tuple[list[str], list[CodedText]]:
    """Remove virtual servers in the VIP pool and on published ports, source NAT, hairpin flags, the opening of the
    firewall, and the interface `mesh0`.

    Returns what was removed and what could not be removed, one line each. Raises `StoreError` while a daemon runs,
    which would restore everything at once, and `DataPlaneError`.
    """
    claims = await _claims(settings)
    addresses = [settings.node_address] if settings.node_address else await worker_addresses()
    published = PublishedPorts(lambda: claims, lambda: addresses)
    removed: list[str] = []
    failed: list[CodedText] = []
    interface = MeshInterface()
    try:
        if await ipvs.unavailable_reason() is None:
            plane = ipvs.IpvsDataPlane(settings.vip_pool, interface, published)
            operations = diff_tables(await plane.read(), Table())
            failures = await plane.apply(operations)
            await plane.close()
            failed += [failure.coded for failure in failures]
            refused = {failure.operation for failure in failures}
            removed += [str(operation) for operation in operations if operation not in refused]
        if await interface.remove():
            removed.append(f"delete interface {interface.name}")
        tables = await nftables.remove_tables()
        removed += [f"delete nftables table {table}" for table in tables]
        if tables:
            # Else a client that keeps sending would reach whichever container gets the endpoint's address next.
            failed += await _forget_datagrams(OwnKeys(settings.vip_pool, published))
        removed += await Masquerade(settings.vip_pool).remove()
        removed += await HairpinPorts(settings.vip_pool.version).remove()
        removed += await RequestCounter(settings.vip_pool).remove()
        removed += await HeldConnections().remove()
        closed, refusals = await remove_opening(SystemPrograms())
        removed += closed
        failed += [refusal.coded for refusal in refusals]
    except (HostError, NftError) as error:
        failed.append(error.coded)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES):
            raise
        failed.append(CodedText(f"delete interface {interface.name}: not permitted; run as root", Code.NOT_PERMITTED))
    finally:
        await interface.close()
    return removed, failed


async def _forget_datagrams(ours: OwnKeys) -> list[CodedText]:
    """Delete the UDP flows that the rules have established; returns why that failed, empty if it did not."""
    tracked = TrackedConnections(ours.pool.version)
    try:
        await tracked.forget_translated_datagrams(ours)
    except DataPlaneError as error:
        return [error.coded]
    finally:
        await tracked.close()
    return []


async def _claims(settings: Settings) -> Claims:
    path = Path(settings.store_url.removeprefix("sqlite:///"))
    if settings.store_url.startswith("sqlite:") and not await asyncio.to_thread(path.exists):
        return Claims()  # no daemon has ever claimed a port here
    store = await open_store(settings)
    try:
        seen, _ = build_view((await store.read()).records)
    finally:
        await store.close()
    return seen.claims
