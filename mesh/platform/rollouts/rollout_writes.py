"""Writes how far a rollout is, together with the shares that follow from it: both or none of them.

Whoever has changed one of them meanwhile wins; the next round looks at what is there then.
"""

from collections.abc import Collection, Mapping

from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import encode_rollout, encode_shares
from mesh.model.past_event import bounded_text
from mesh.model.release_rollout import MAX_ROLLOUT_TEXT, ReleaseRollout, rollout_given
from mesh.model.release_shares import MAX_SHARED_RELEASES, ReleaseShares
from mesh.store import Store

BY_ROLLOUT = "the rollout"
"""How `ReleaseShares.by` begins if a rollout has given them."""


def rollout_shares(rollout: ReleaseRollout, releases: Collection[str]) -> ReleaseShares:
    """Return the shares that follow from a rollout of a service with these releases. Pure.

    Releases that are neither the old nor the new one get nothing.
    """
    among = sorted({*releases, rollout.new, *(() if rollout.old is None else (rollout.old,))})
    others = [name for name in among if name not in (rollout.new, rollout.old)]
    room = MAX_SHARED_RELEASES - (len(among) - len(others))
    given = {**dict.fromkeys(others[:room], 0), **rollout_given(rollout)}
    kept = [name for name in among if name not in others[room:]]
    by = bounded_text(f"{BY_ROLLOUT}, {rollout.words}", MAX_ROLLOUT_TEXT)
    return ReleaseShares(rollout.owner, given, tuple(kept), by)


def rollout_keys(owner: str) -> tuple[str, str]:
    """Return the keys of the records of a rollout and of its shares."""
    return record_key("claims", "rollouts", owner), record_key("claims", "shares", owner)


async def write_rollout(
    store: Store, owner: str, records: Mapping[str, bytes], rollout: ReleaseRollout | None, shares: ReleaseShares | None
) -> bool:
    """Write both on top of `records`; return whether nobody has changed them meanwhile.

    A rollout of None is deleted, and so are shares that are None. Raises `StoreError`.
    """
    keys = rollout_keys(owner)
    wanted = {} if rollout is None else encode_rollout(rollout)
    if shares is not None:
        wanted = {**wanted, **encode_shares(shares)}
    after = {key: wanted.get(key) for key in keys}
    return await store.change({key: records.get(key) for key in keys}, after)
