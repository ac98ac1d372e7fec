"""Wishes -> transactions of the store; and what a store that lost its disks is given back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
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


async def submit_claims(store: Store, wishes: Iterable[ClaimRequest]) -> bool:
    """Ask for each wish; True if the store refused one, since somebody was quicker: read again and decide anew.

    Raises `StoreError` if the store is out of reach; what was granted until then stays granted.
    """
    return not all(await _all([partial(_claim, store, wish) for wish in wishes]))


async def restore_claims(store: Store, claims: Claims) -> int:
    """Claim again what was given away; how much another service has got meanwhile, which keeps it.

    A service that has another VIP there, as an older backup says, gets back the one that it had.
    Raises `StoreError` if the store is out of reach: try again.
    """
    given = [dict([records.encode_name_claim(name, owner)]) for name, owner in claims.owners.items()]
    for vip, name in claims.holders.items():
        if claims.vips.get(name) != vip:
            given.append(dict([records.encode_vip_claim(vip, name)]))
    for (transport, port), (name, container_port) in claims.ports.items():
        given.append(dict([records.encode_port_claim(transport, port, name, container_port)]))
    kept = [partial(_give_back, store, name, vip) for name, vip in claims.vips.items()]
    refused = [*await _all(kept), *map(bool, await _all([partial(store.claim, both) for both in given]))]
    return sum(refused)


async def _give_back(store: Store, name: Name, vip: Address) -> bool:
    """Whether it could not be done."""
    key, value = records.encode_service_claim(name, vip)
    there = await store.claim({key: value, **dict([records.encode_vip_claim(vip, name)])})
    if not there:
        return False
    if await _in_the_way(store, records.encode_vip_claim(vip, name)) is not None:
        return True
    held = await _in_the_way(store, (key, value))
    return held is not None and not await store.replace(key, held, value)


async def _all(asked: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """What they answer; a few at a time. Raises the first exception, once none of them goes on."""
    room = asyncio.Semaphore(MAX_CONCURRENT)
    failed: list[BaseException] = []

    async def ask(one: Callable[[], Awaitable[T]]) -> T | None:
        async with room:
            if failed:
                return None
            try:
                return await one()
            except StoreError as error:
                failed.append(error)
                return None

    answers = await asyncio.gather(*map(ask, asked))
    if failed:
        raise failed[0]
    return [answer for answer in answers if answer is not None]


async def _claim(store: Store, wish: ClaimRequest) -> bool:
    match wish:
        case ClaimVip(name, address):
            both = dict([records.encode_service_claim(name, address), records.encode_vip_claim(address, name)])
            return not await store.claim(both)
        case MoveVip(name, old, new):
            if await _in_the_way(store, records.encode_vip_claim(new, name)) is not None:
                return False
            return await _change(
                store, records.encode_service_claim(name, old), records.encode_service_claim(name, new)
            )
        case ClaimName(name, owner):
            return not await store.claim(dict([records.encode_name_claim(name, owner)]))
        case TakeOverName(name, old_owner, owner):
            return await _change(
                store, records.encode_name_claim(name, old_owner), records.encode_name_claim(name, owner)
            )
        case ClaimPort(transport, port, name, container_port):
            return not await store.claim(dict([records.encode_port_claim(transport, port, name, container_port)]))


async def _change(store: Store, before: tuple[str, bytes], after: tuple[str, bytes]) -> bool:
    """Make one record of a claim the other, if it still says what it said; a newer version may have written more."""
    key, _ = before
    there = await _in_the_way(store, after)
    if there is None:
        return True
    return decode_record(key, there) == decode_record(*before) and await store.replace(key, there, after[1])


async def _in_the_way(store: Store, record: tuple[str, bytes]) -> bytes | None:
    """What the key of a claim holds instead; None: it says this now."""
    key, _ = record
    there = (await store.claim(dict([record]))).get(key)
    return None if there is None or decode_record(key, there) == decode_record(*record) else there
