"""Gives shares of new connections to the releases of a service, and takes them back, as operators ask for it.

Each action reads the store and changes what it has read in one transaction, so that two operators never mix their
shares.
"""

from collections.abc import Mapping
from functools import partial

from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import build_view, encode_shares
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.past_event import bounded_text
from mesh.model.release_shares import MAX_SHARED_RELEASES, WHOLE, ReleaseShares, share_text
from mesh.model.service import Scheduler, Service
from mesh.model.validation import MAX_TEXT
from mesh.model.view import ClusterView
from mesh.store import Store, StoreError
from mesh.util.offload import compute

_ATTEMPTS = 5
"""How often an action is repeated because somebody has changed the same shares at the same time."""
_UNWEIGHTED = {Scheduler.RR: Scheduler.WRR, Scheduler.LC: Scheduler.WLC}
"""Schedulers that ignore weights, each with the one like it that does not."""
_SHOWN = 5
"""The most names in one message."""


class ShareActions:
    """Carries out `vipmesh rollout share`. Every method raises `ActionRefusedError` with a remedy."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def give(self, service: str, given: Mapping[str, int], by: str) -> ReleaseShares:
        """Give the releases of a service these shares, in hundredths of a per cent, in place of those that it has.

        `service` is its owner (`project/service`), the second part of it if that is unique, or a routing name. `by`
        says who asks for it, in words. Return the shares as they are now.
        """
        for _ in range(_ATTEMPTS):
            records, view = await self._read()
            found = find_service(view, service)
            shares = planned_shares(found, _releases(found, view), given, by)
            [(key, value)] = encode_shares(shares).items()
            if await self._change(records, key, value):
                return shares
        raise _contested(service)

    async def reset(self, service: str) -> ReleaseShares:
        """Take all shares of a service back, so that the weights of its endpoints count again."""
        for _ in range(_ATTEMPTS):
            records, view = await self._read()
            # The shares of a service that is gone can be taken back, too.
            owner = service if service in view.shares else find_service(view, service).owner
            key = record_key("claims", "shares", owner)
            if key not in records or await self._change(records, key, None):
                return ReleaseShares(owner)
        raise _contested(service)

    async def _read(self) -> tuple[Mapping[str, bytes], ClusterView]:
        try:
            records = (await self._store.read()).records
        except StoreError as error:
            raise ActionRefusedError(error.code, str(error)) from error
        view, _ = await compute(len(records), partial(build_view, records))
        return records, view

    async def _change(self, records: Mapping[str, bytes], key: str, value: bytes | None) -> bool:
        try:
            return await self._store.change({key: records.get(key)}, {key: value})
        except StoreError as error:
            raise ActionRefusedError(error.code, str(error)) from error


def planned_shares(service: Service, releases: frozenset[str], given: Mapping[str, int], by: str) -> ReleaseShares:
    """Return the shares to write for a service whose endpoints are of these releases. Pure.

    Raises `ActionRefusedError` for shares that cannot be given.
    """
    owner = service.owner
    if not given:
        raise _refused("no share is given", f"type `vipmesh rollout share {owner} RELEASE=PERCENT`, or `reset`")
    _check_releases(owner, releases, given)
    _check_sum(owner, releases, given)
    if (better := _UNWEIGHTED.get(service.scheduler)) is not None:
        raise ActionRefusedError(
            Code.SHARES_WITHOUT_WEIGHTS,
            f"{owner} has scheduler {service.scheduler.value}, which ignores weights and shares; "
            f"set the label routing.scheduler to {better.value}",
        )
    return ReleaseShares(owner, dict(given), tuple(sorted(releases)), bounded_text(by, MAX_TEXT))


def _check_releases(owner: str, releases: frozenset[str], given: Mapping[str, int]) -> None:
    named = sorted(filter(None, releases))
    if not named:
        raise _refused(f"no endpoint of {owner} names a release", "set the label routing.release of its containers")
    unknown = sorted(given.keys() - set(named))
    if unknown:
        remedy = f"write one of {_listed(named)}, or start it first"
        raise _refused(f"{owner} has no release {_quoted(unknown[0])}", remedy)
    if len(releases) < 2:
        raise _refused(f"{owner} has one release, {named[0]}, which gets everything", "start the other release first")
    if len(releases) > MAX_SHARED_RELEASES:
        found = f"{owner} has {len(releases)} releases, and shares are for {MAX_SHARED_RELEASES} at most"
        raise _refused(found, "stop some of them first")


def _check_sum(owner: str, releases: frozenset[str], given: Mapping[str, int]) -> None:
    if any(not 0 <= points <= WHOLE for points in given.values()):
        raise _refused("a share is less than 0 or more than 100 per cent", f"write {min(given)}=10 for a tenth")
    total = sum(given.values())
    if total > WHOLE:
        most = max(sorted(given), key=lambda release: given[release])
        left = share_text(max(0, WHOLE - total + given[most]))
        remedy = f"write {left} for {most}, or leave one out: it has the rest"
        raise _refused(f"the shares are {share_text(total)} together", remedy)
    if not total and releases <= given.keys():
        raise _refused(f"every release of {owner} would have 0 %", "leave one out: it has the rest")


def _releases(service: Service, view: ClusterView) -> frozenset[str]:
    group = view.groups.get(service.owner)
    return frozenset(endpoint.release or "" for endpoint in group.endpoints) if group is not None else frozenset()


def find_service(view: ClusterView, asked: str) -> Service:
    """Return the service that an operator calls so, see `ShareActions.give`. Raises `ActionRefusedError`."""
    name = asked.lower().rstrip(".")
    ways = (
        [service for service in view.services if service.owner == asked],
        [service for service in view.services if view.claims.owners.get(name) == service.owner],
        [service for service in view.services if service.owner.rpartition("/")[2] == asked],
    )
    for found in ways:
        if len(found) == 1:
            return found[0]
        if found:
            owners = _listed([service.owner for service in found])
            raise _refused(f"several services are called {_quoted(asked)}", f"write one of {owners}")
    raise _refused(f"there is no service {_quoted(asked)}", "write one that `vipmesh status` shows, as PROJECT/SERVICE")


def _listed(names: list[str]) -> str:
    more = f" ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _quoted(text: str) -> str:
    return repr(text[:80])


def _refused(reason: str, remedy: str) -> ActionRefusedError:
    return ActionRefusedError(Code.SHARES_REFUSED, f"{reason}; {remedy}")


def _contested(service: str) -> ActionRefusedError:
    return _refused(f"others keep changing the shares of {_quoted(service)}", "try again")
