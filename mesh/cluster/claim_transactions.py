"""Runs claims as transactions of the store: the wishes of `mesh.cluster.claims`, and what a lost store is given back.

Every function here that returns a boolean returns True when the store now holds what was asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from mesh.cluster.claims import ClaimName, ClaimPort, ClaimRequest, ClaimVip, MoveVip, TakeOverName
from mesh.cluster.records import encode as records
from mesh.cluster.records.decode import decode_record
from mesh.model.claims import Claims
from mesh.model.service import Address, Name
from mesh.store import Store, StoreError

T = TypeVar("T")

MAX_CONCURRENT = 16
"""Transactions in flight: they touch different keys, and each waits for the disks of a majority."""


async def claim_all(store: Store, wishes: Iterable[ClaimRequest]) -> bool:
    """Claim each wish and return whether the store granted all of them; none: True.

    False means that another worker was quicker: read again and decide again. Raises `StoreError` if the store is out
    of reach; what was granted until then stays granted.
    """
    return all(await _gather_limited([partial(_claim, store, wish) for wish in wishes]))


async def restore_claims(store: Store, claims: Claims) -> int:
    """Claim again what a store held before it was lost; return how many claims another service now holds and keeps.

    A service that has another VIP in the store, as an older backup says, gets back the one that it had.
    Raises `StoreError` if the store is out of reach: try again.
    """
    others = [records.encode_name_claim(name, owner) for name, owner in claims.owners.items()]
    for vip, name in claims.holders.items():
        if claims.vips.get(name) != vip:
            others.append(records.encode_vip_claim(vip, name))
    for (transport, port), (name, container_port) in claims.ports.items():
        others.append(records.encode_port_claim(transport, port, name, container_port))
    # A VIP goes before the records that only keep its address from others.
    restored = [
        *await _gather_limited([partial(_restore_vip, store, name, vip) for name, vip in claims.vips.items()]),
        *await _gather_limited([partial(_create, store, claim) for claim in others]),
    ]
    return restored.count(False)


async def _claim(store: Store, wish: ClaimRequest) -> bool:
    match wish:
        case ClaimVip(name, address):
            return await _create(
                store, records.encode_service_claim(name, address) | records.encode_vip_claim(address, name)
            )
        case MoveVip(name, old, new):
            if await _conflicting_value(store, records.encode_vip_claim(new, name)) is not None:
                return False
            return await _change(
                store, records.encode_service_claim(name, old), records.encode_service_claim(name, new)
            )
        case ClaimName(name, owner):
            return await _create(store, records.encode_name_claim(name, owner))
        case TakeOverName(name, old_owner, owner):
            return await _change(
                store, records.encode_name_claim(name, old_owner), records.encode_name_claim(name, owner)
            )
        case ClaimPort(transport, port, name, container_port):
            return await _create(store, records.encode_port_claim(transport, port, name, container_port))


async def _restore_vip(store: Store, name: Name, vip: Address) -> bool:
    held_by_service, held_by_vip = records.encode_service_claim(name, vip), records.encode_vip_claim(vip, name)
    if await _create(store, held_by_service | held_by_vip):
        return True
    if await _conflicting_value(store, held_by_vip) is not None:
        return False
    there = await _conflicting_value(store, held_by_service)
    if there is None:
        return True
    [(key, value)] = held_by_service.items()
    return await store.replace(key, there, value)


async def _create(store: Store, claim: Mapping[str, bytes]) -> bool:
    conflicts = await store.claim(claim)
    return not conflicts


async def _change(store: Store, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> bool:
    """Replace one record of a claim if it still means what it meant; a newer version may have written more fields."""
    there = await _conflicting_value(store, after)
    if there is None:
        return True
    [(key, value)] = after.items()
    return decode_record(key, there) == decode_record(key, before[key]) and await store.replace(key, there, value)


async def _conflicting_value(store: Store, claim: Mapping[str, bytes]) -> bytes | None:
    """Claim this one record; the value that its key holds instead, or None if it now means what was asked for."""
    [(key, value)] = claim.items()
    there = (await store.claim(claim)).get(key)
    return None if there is None or decode_record(key, there) == decode_record(key, value) else there


async def _gather_limited(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of all calls, `MAX_CONCURRENT` in flight. Raises the first `StoreError` once none of them runs."""
    room = asyncio.Semaphore(MAX_CONCURRENT)
    failed: list[StoreError] = []

    async def run_one(call: Callable[[], Awaitable[T]]) -> T | None:
        async with room:
            if failed:
                return None
            try:
                return await call()
            except StoreError as error:
                failed.append(error)
                return None

    results = await asyncio.gather(*map(run_one, calls))
    if failed:
        raise failed[0]
    return [result for result in results if result is not None]
