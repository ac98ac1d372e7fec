"""Wishes -> transactions of the store."""

from collections.abc import Iterable

from mesh.claims import ClaimName, ClaimPort, ClaimVip, MoveVip, TakeOverName, Wish
from mesh.store import Store, records


async def claim(store: Store, wishes: Iterable[Wish]) -> bool:
    """Ask for each wish; True if the store refused one, since somebody was quicker: read again and decide anew.

    Raises `StoreError` if the store is out of reach; what was granted until then stays granted.
    """
    refused = False
    for wish in wishes:
        refused |= not await _claim(store, wish)
    return refused


async def _claim(store: Store, wish: Wish) -> bool:
    match wish:
        case ClaimVip(name, address):
            both = dict([records.service_claim(name, address), records.vip_claim(address, name)])
            return not await store.claim(both)
        case MoveVip(name, old, new):
            if await store.claim(dict([records.vip_claim(new, name)])):
                return False
            key, before = records.service_claim(name, old)
            return await store.replace(key, before, records.service_claim(name, new)[1])
        case ClaimName(name, owner):
            return not await store.claim(dict([records.name_claim(name, owner)]))
        case TakeOverName(name, old_owner, owner):
            key, before = records.name_claim(name, old_owner)
            return await store.replace(key, before, records.name_claim(name, owner)[1])
        case ClaimPort(transport, port, name, container_port):
            return not await store.claim(dict([records.port_claim(transport, port, name, container_port)]))
