"""Runs claims as transactions of the store: the wishes of `mesh.cluster.claims`, and claims restored to a lost store.

Every function here that returns a boolean returns True if the store now holds the requested claim.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from mesh.cluster.claims import (
    ClaimName,
    ClaimPort,
    ClaimRequest,
    ClaimVip,
    GiveUpName,
    MovePort,
    MoveVip,
    PutBackVip,
    RecordDeclaration,
    RecordOlderNames,
    TakeBackVip,
    TakeOverName,
    TakeOverPort,
)
from mesh.cluster.records import encode as records
from mesh.cluster.records.decode import DeclarationClaim, OlderNames, decode_record
from mesh.model.claims import Claims
from mesh.model.service import Address, Name, Service
from mesh.store import MAX_CHANGES, Store, StoreError

T = TypeVar("T")

MAX_CONCURRENT = 16
"""Concurrent transactions: they touch different keys, and each waits for the disks of a majority."""


async def claim_all(store: Store, wishes: Iterable[ClaimRequest]) -> bool:
    """Claim each wish and return whether the store granted all of them; True if there are none.

    False means that another worker was faster: read again and decide again. Raises `StoreError` if the store is out of
    reach; wishes that were granted until then stay granted.
    """
    calls: list[Callable[[], Awaitable[bool]]] = []
    new: list[Service] = []
    for wish in wishes:
        if isinstance(wish, RecordDeclaration) and wish.before is None:
            new.append(wish.service)
        else:
            calls.append(partial(_claim, store, wish))
    # Every worker reads every transaction: a thousand new services must not be as many.
    batches = (new[first : first + MAX_CHANGES] for first in range(0, len(new), MAX_CHANGES))
    calls += [partial(_record_new_declarations, store, batch) for batch in batches]
    return all(await _gather_limited(calls))


async def restore_claims(store: Store, claims: Claims) -> int:
    """Claim again what a store held before it was lost; return the number of claims that another service now holds and
    keeps.

    A service that has another VIP in the store, restored from an older backup, gets its former VIP back. Raises
    `StoreError` if the store is out of reach: try again.
    """
    others = [records.encode_name_claim(name, owner) for name, owner in claims.owners.items()]
    for vip, name in claims.holders.items():
        if claims.vips.get(name) != vip:
            others.append(records.encode_vip_claim(vip, name))
    for (transport, port), (name, container_port) in claims.ports.items():
        others.append(records.encode_port_claim(transport, port, name, container_port))
    # VIPs come first: the other records only reserve an address.
    restored = [
        *await _gather_limited([partial(_restore_older_names, store, claims.older_names or frozenset())]),
        *await _gather_limited([partial(_restore_vip, store, name, vip) for name, vip in claims.vips.items()]),
        *await _gather_limited([partial(_create, store, claim) for claim in others]),
    ]
    # A declaration that the store has again is newer: nothing is lost.
    await _gather_limited(
        [partial(_create, store, records.encode_declaration_claim(s)) for s in claims.declarations.values()]
    )
    return restored.count(False)


async def restore_records(store: Store, records: Mapping[str, bytes]) -> None:
    """Write each of these records unless the store has one with its key. Raises `StoreError`: try again."""
    await _gather_limited([partial(_create, store, {key: value}) for key, value in records.items()])


async def _claim(store: Store, wish: ClaimRequest) -> bool:
    match wish:
        case ClaimVip(name, address):
            return await _create(
                store, records.encode_service_claim(name, address) | records.encode_vip_claim(address, name)
            )
        case ClaimName(name, owner):
            return await _create(store, records.encode_name_claim(name, owner))
        case ClaimPort(transport, port, name, container_port):
            return await _create(store, records.encode_port_claim(transport, port, name, container_port))
        case RecordOlderNames(names):
            return await _create(store, records.encode_older_names(names))
        case RecordDeclaration(service, known):
            return await _record_declaration(store, service, known)
        case _:
            return await _pass_on(store, wish)


async def _pass_on(
    store: Store, wish: MoveVip | TakeBackVip | PutBackVip | TakeOverName | GiveUpName | MovePort | TakeOverPort
) -> bool:
    """Change claims that a service has."""
    match wish:
        case MoveVip(name, old, new):
            if await _conflicting_value(store, records.encode_vip_claim(new, name)) is not None:
                return False
            return await _change(
                store, records.encode_service_claim(name, old), records.encode_service_claim(name, new)
            )
        case TakeBackVip(name, address, old_name):
            return await _take_back_vip(store, name, address, old_name)
        case PutBackVip(name, address, wrong_name):
            return await _put_back_vip(store, name, address, wrong_name)
        case TakeOverName(name, old_owner, owner):
            return await _change(
                store, records.encode_name_claim(name, old_owner), records.encode_name_claim(name, owner)
            )
        case GiveUpName(name, owner):
            return await _delete(store, records.encode_name_claim(name, owner))
        case MovePort(transport, port, name, old, new):
            return await _change(
                store,
                records.encode_port_claim(transport, port, name, old),
                records.encode_port_claim(transport, port, name, new),
            )
        case TakeOverPort(transport, port, (old_name, old_target), name, target):
            return await _change(
                store,
                records.encode_port_claim(transport, port, old_name, old_target),
                records.encode_port_claim(transport, port, name, target),
            )


async def _take_back_vip(store: Store, name: Name, address: Address, old_name: Name) -> bool:
    """Give the VIP to the name, unless the records of either service have another meaning by now."""
    before: dict[str, bytes | None] = {}
    after: dict[str, bytes | None] = {}
    [(by_vip, held)] = records.encode_vip_claim(address, old_name).items()
    there = (await store.claim({by_vip: held})).get(by_vip, held)
    if decode_record(by_vip, there) != decode_record(by_vip, held):
        return False
    before[by_vip], after[by_vip] = there, records.encode_vip_claim(address, name)[by_vip]
    if old_name != name:
        [(by_old, claim)] = records.encode_service_claim(old_name, address).items()
        there = (await store.claim({by_old: claim})).get(by_old, claim)
        if decode_record(by_old, there) != decode_record(by_old, claim):
            return False
        before[by_old], after[by_old] = there, None
    [(by_name, new)] = records.encode_service_claim(name, address).items()
    before[by_name], after[by_name] = None, new
    return await store.change(before, after)


async def _put_back_vip(store: Store, name: Name, address: Address, wrong_name: Name) -> bool:
    """Let the record by address have this name, if all records still say that it has the VIP and the other has not."""
    there = (await store.read()).records
    [(by_vip, wrong)] = records.encode_vip_claim(address, wrong_name).items()
    [(by_name, held)] = records.encode_service_claim(name, address).items()
    [(by_other, not_held)] = records.encode_service_claim(wrong_name, address).items()
    before = {key: there.get(key) for key in (by_vip, by_name, by_other)}
    if not _means(by_name, before[by_name], held) or _means(by_other, before[by_other], not_held):
        return False
    right = records.encode_vip_claim(address, name)
    if _means(by_vip, before[by_vip], right[by_vip]):
        return True
    return _means(by_vip, before[by_vip], wrong) and await store.change(before, before | right)


def _means(key: str, there: bytes | None, value: bytes) -> bool:
    """Whether a record has the same meaning as `value`. A newer version may have added fields."""
    return there is not None and decode_record(key, there) == decode_record(key, value)


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


async def _restore_older_names(store: Store, names: frozenset[Name]) -> bool:
    """Add these names to the older ones that the store has: a worker that started meanwhile saw none of them."""
    if not names:
        return True
    record = records.encode_older_names(names)
    there = await _conflicting_value(store, record)
    if there is None:
        return True
    [key] = record
    before = decode_record(key, there)
    known = before.names if isinstance(before, OlderNames) else frozenset()
    return names <= known or await store.replace(key, there, records.encode_older_names(known | names)[key])


async def _record_new_declarations(store: Store, services: Sequence[Service]) -> bool:
    """Record declarations of services that had none."""
    left: dict[str, tuple[Service, bytes]] = {}
    for service in services:
        [(key, value)] = records.encode_declaration_claim(service).items()
        left[key] = service, value
    granted = True
    while left:
        there = await store.claim({key: value for key, (_, value) in left.items()})
        if not there:
            break
        # None of them was created. The rest is new, unless another worker is faster once more.
        for key, found in there.items():
            service, value = left.pop(key)
            granted &= decode_record(key, found) == decode_record(key, value) or await _record_declaration(
                store, service, None
            )
    return granted


async def _record_declaration(store: Store, service: Service, before: Service | None) -> bool:
    record = records.encode_declaration_claim(service)
    there = await _conflicting_value(store, record)
    if there is None:
        return True
    [(key, value)] = record.items()
    # A record that cannot be read says nothing, as if there were none.
    known = decode_record(key, there)
    if (known.service if isinstance(known, DeclarationClaim) else None) != before:
        return False
    return await store.replace(key, there, value)


async def _create(store: Store, claim: Mapping[str, bytes]) -> bool:
    conflicts = await store.claim(claim)
    return not conflicts


async def _change(store: Store, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> bool:
    """Replace one record of a claim if its meaning is still the former one. A newer version may have added fields."""
    there = await _conflicting_value(store, after)
    if there is None:
        return True
    [(key, value)] = after.items()
    return decode_record(key, there) == decode_record(key, before[key]) and await store.replace(key, there, value)


async def _delete(store: Store, claim: Mapping[str, bytes]) -> bool:
    """Delete the record of a claim if it has this meaning."""
    [(key, value)] = claim.items()
    there = await _conflicting_value(store, claim)
    return there is None and await store.change({key: value}, {key: None})


async def _conflicting_value(store: Store, claim: Mapping[str, bytes]) -> bytes | None:
    """Claim this one record; the value that its key holds instead, or None if it has the requested meaning now."""
    [(key, value)] = claim.items()
    there = (await store.claim(claim)).get(key)
    return None if there is None or decode_record(key, there) == decode_record(key, value) else there


async def _gather_limited(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of all calls, `MAX_CONCURRENT` in flight. Raises the first `StoreError` once none of them runs."""
    # A task for each of a thousand claims would take as much memory as all that they claim.
    results: list[T | None] = [None] * len(calls)
    waiting = iter(enumerate(calls))
    failed: list[StoreError] = []

    async def run_some() -> None:
        for at, call in waiting:
            if failed:
                return
            try:
                results[at] = await call()
            except StoreError as error:
                failed.append(error)

    await asyncio.gather(*(run_some() for _ in range(min(MAX_CONCURRENT, len(calls)))))
    if failed:
        raise failed[0]
    return [result for result in results if result is not None]
