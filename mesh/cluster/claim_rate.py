"""Limits how many claims this worker makes in a time, for all of its services together.

The quotas limit one owner. Whoever starts containers chooses their owners as well: under ever new project names they
would fill the pool of VIPs and the store. What is held already is never claimed again, so a worker that starts with
many known services does not wait. Pure: every call takes the current time in seconds.
"""

from collections.abc import Collection, Iterable, Sequence

from mesh.cluster.claims import (
    ClaimName,
    ClaimPort,
    ClaimRequest,
    MoveVip,
    RecordDeclaration,
    RecordOlderNames,
    TakeOverName,
    TakeOverPort,
    is_for_owners,
)
from mesh.model.claims import ClaimPace, Claims
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Service


class ClaimRate:
    """Decides which of the wishes may be claimed now. Services of projects that hold names come before those of
    unknown projects, and those that have waited for longer come first.
    """

    def __init__(self, pace: ClaimPace | None) -> None:
        """`pace` None: there is no limit."""
        self._pace = pace
        self._left = float(pace.at_once) if pace is not None else 0.0
        self._left_at = 0.0
        self._paid: frozenset[ClaimRequest] = frozenset()
        """Wishes that were claimed already and are wished for again, since the view is older."""
        self._waiting: dict[str, int] = {}
        """What each owner that waits would spend, the longest waiting one first."""
        self._next = 0
        """What the one that is next would spend; the others wait for it."""

    def admit(
        self, wishes: Sequence[ClaimRequest], services: Iterable[Service], claims: Claims, now: float
    ) -> tuple[ClaimRequest, ...]:
        """Return the wishes that may be claimed now, in their order. `services` and `claims` are those of the view."""
        if self._pace is None:
            return tuple(wishes)
        self._refill(self._pace, now)
        self._paid &= frozenset(wishes)
        named = {service.name: service.owner for service in services}
        costs: dict[str, int] = {}
        for wish in wishes:
            owner = _spending_owner(wish, named)
            if owner is not None and wish not in self._paid:
                costs[owner] = costs.get(owner, 0) + 1
        known = {_project(owner) for owner in claims.owners.values()}
        place = {owner: place for place, owner in enumerate(self._waiting)}
        order = sorted(costs, key=lambda o: (_project(o) not in known, place.get(o, len(place)), o))
        left = self._left
        waiting: dict[str, int] = {}
        for owner in order:
            # One that wants more than fits waits for a full allowance instead of forever.
            if waiting or min(costs[owner], self._pace.at_once) > left:
                waiting[owner] = costs[owner]
            else:
                left -= costs[owner]
        self._next = min(self._pace.at_once, next(iter(waiting.values()), 0))
        earlier = {owner: waiting[owner] for owner in self._waiting if owner in waiting}
        self._waiting = {**earlier, **waiting}
        names = frozenset(name for name, owner in named.items() if owner in waiting)
        return tuple(wish for wish in wishes if not _is_held_up(wish, waiting, names))

    def claimed(self, wishes: Iterable[ClaimRequest], services: Iterable[Service]) -> None:
        """Count wishes that were claimed in the store."""
        named = {service.name: service.owner for service in services}
        new = {wish for wish in wishes if wish not in self._paid and _spending_owner(wish, named) is not None}
        self._left = max(0.0, self._left - len(new))
        self._paid |= new

    def next_look(self, now: float) -> float | None:
        """Return the seconds until the next one that waits may have its claims; None if none waits."""
        if self._pace is None or not self._waiting:
            return None
        self._refill(self._pace, now)
        return max(0.0, (self._next - self._left) * 60.0 / self._pace.per_minute)

    def problems(self) -> tuple[Problem, ...]:
        """Return the problem that services wait, while some do. Its text is the same for as long as it lasts."""
        pace = self._pace
        if pace is None or not self._waiting:
            return ()
        reason = (
            f"they ask for more than {pace.at_once} new names, VIPs and published ports at once; "
            f"the others get theirs at {pace.per_minute} a minute"
        )
        remedy = "remove services that are not meant, or raise [claims] new_at_once and new_per_minute"
        subject = "the new services of this worker"
        return (Problem(Code.CLAIM_RATE, Severity.WARNING, subject, reason, remedy),)

    def _refill(self, pace: ClaimPace, now: float) -> None:
        gained = max(0.0, now - self._left_at) * pace.per_minute / 60.0
        self._left, self._left_at = min(float(pace.at_once), self._left + gained), now


def _spending_owner(wish: ClaimRequest, named: dict[str, str]) -> str | None:
    """The owner of a wish that takes something which stays taken; None for any other wish."""
    match wish:
        case ClaimName(_, owner) | TakeOverName(_, _, owner):
            return owner
        case MoveVip() | ClaimPort() | TakeOverPort():
            return named.get(wish.name)
        case _:
            return None  # a service's first VIP comes with its first name


def _is_held_up(wish: ClaimRequest, owners: Collection[str], names: Collection[str]) -> bool:
    if isinstance(wish, RecordDeclaration | RecordOlderNames):
        return False
    return is_for_owners(wish, owners, names)


def _project(owner: str) -> str:
    return owner.rpartition("/")[0]
