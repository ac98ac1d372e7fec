"""Lists claims, frees them, and moves names to another owner, as operators ask for it.

Each action reads the store and changes what it has read in one transaction, so that it never undoes what a worker has
done meanwhile.
"""

from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address

from mesh.cluster.claim_rows import ClaimRow, claim_rows
from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import build_view, encode_moved_name
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.service import Transport
from mesh.model.validation import validate_text
from mesh.store import Store, StoreError
from mesh.util.offload import compute

_ATTEMPTS = 5
"""How often an action is repeated because a worker has changed the same claim at the same time."""


class ClaimActions:
    """Carries out `vipmesh claims`. Every method raises `ActionRefusedError` with a remedy if it cannot be done."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> tuple[ClaimRow, ...]:
        """Return all claims, by kind and then by name, address or port."""
        records = await self._records()
        return await compute(len(records), partial(claim_rows, records))

    async def free(self, claim: str) -> str:
        """Delete a claim that no service declares: a routing name, `tcp/8080`, or a VIP. Return it as it is listed."""
        for _ in range(_ATTEMPTS):
            records = await self._records()
            row = _find(await compute(len(records), partial(claim_rows, records)), claim)
            if row.used:
                raise _refused(
                    f"{row.claim} is held by {row.holder}, which declares it",
                    "take it out of the labels of that service first",
                )
            if await self._change(records, dict.fromkeys(_keys(row, build_view(records)[0].claims))):
                return row.claim
        raise _contested(claim)

    async def move(self, name: str, owner: str) -> str:
        """Give a routing name, with its VIP, to another owner (`project/service`), whether its holder runs or not.

        Return the name.
        """
        try:
            validate_text(owner, "an owner")
        except ValueError as error:
            raise _refused(f"{owner[:80]!r} is no owner: {error}", "write PROJECT/SERVICE") from error
        if not all(owner.rpartition("/")[::2]):
            raise _refused(f"{owner[:80]!r} is no owner", "write PROJECT/SERVICE, as `vipmesh status` shows it")
        for _ in range(_ATTEMPTS):
            records = await self._records()
            holder = (await compute(len(records), partial(build_view, records)))[0].claims.owners.get(name)
            if holder is None:
                raise _refused(f"nobody holds the name {name[:260]!r}", "list all names with `vipmesh claims list`")
            if holder == owner:
                return name
            if await self._change(records, dict(encode_moved_name(name, owner, holder))):
                return name
        raise _contested(name)

    async def _records(self) -> Mapping[str, bytes]:
        try:
            return (await self._store.read()).records
        except StoreError as error:
            raise ActionRefusedError(error.code, str(error)) from error

    async def _change(self, records: Mapping[str, bytes], after: Mapping[str, bytes | None]) -> bool:
        try:
            return await self._store.change({key: records.get(key) for key in after}, after)
        except StoreError as error:
            raise ActionRefusedError(error.code, str(error)) from error


def _find(rows: tuple[ClaimRow, ...], claim: str) -> ClaimRow:
    try:
        wanted = str(ip_address(claim))
    except ValueError:
        wanted = claim.lower().rstrip(".")
    for row in rows:
        if row.claim == wanted:
            return row
    raise _refused(f"there is no claim {claim[:260]!r}", "list all claims with `vipmesh claims list`")


def _keys(row: ClaimRow, claims: Claims) -> tuple[str, ...]:
    """The keys of the records of a claim."""
    match row.kind:
        case "name":
            return record_key("claims", "names", row.claim), record_key("claims", "idle", "names", row.claim)
        case "port":
            transport, _, port = row.claim.partition("/")
            where = Transport(transport), port
            return record_key("claims", "ports", *where), record_key("claims", "idle", "ports", *where)
    by_vip = record_key("claims", "vips", row.claim)
    is_current = claims.vips.get(row.holder) == row.claim
    return (by_vip, record_key("claims", "services", row.holder)) if is_current else (by_vip,)


def _refused(reason: str, remedy: str) -> ActionRefusedError:
    return ActionRefusedError(Code.CLAIM_ACTION_REFUSED, f"{reason}; {remedy}")


def _contested(claim: str) -> ActionRefusedError:
    return _refused(f"workers keep changing the claim {claim[:260]!r}", "try again")
