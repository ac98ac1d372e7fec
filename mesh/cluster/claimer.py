"""Claims what the services of this worker lack, and restores the claims of a store that was lost.

All workers compute the same wishes, so not all of them need to claim: each claims for the services that it runs. Until
a worker knows which services it runs, it claims for all.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from mesh.cluster.claim_guard import FIRST_PAUSE, ClaimGuard
from mesh.cluster.claim_rate import ClaimRate
from mesh.cluster.claim_transactions import claim_all, restore_claims, restore_records
from mesh.cluster.claim_usage import lost_usage
from mesh.cluster.claims import ClaimRequest, PutBackVip, is_for_owners
from mesh.cluster.ports import ConditionReports, Decide
from mesh.cluster.records.encode import CLAIMS_PREFIX, ROLLOUTS_PREFIX, SHARES_PREFIX, build_view
from mesh.cluster.store_writes import RETRY, StoreWrites
from mesh.cluster.usage_keeper import UsageKeeper
from mesh.model.claims import ClaimPace, Claims
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.model.service import Name, Service
from mesh.model.view import ClusterView
from mesh.store import Store, StoreError, StoreSnapshot
from mesh.util.backoff import Backoff
from mesh.util.bulkhead import Bulkhead
from mesh.util.offload import compute
from mesh.util.pacing import PacedSignal

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.CLUSTER)

REST, LONGEST_REST = 4.0, 1.0
"""The pause before the next decision, as a multiple of the last one's duration, and its maximum in seconds."""


class Claimer:
    """Decides on every new view what to claim, and claims it in the store; the next snapshot shows what was granted."""

    # 17 attributes: what it decides by, the services and the view that it decides for, and what it has to restore.

    def __init__(
        self,
        store: Store,
        decide: Decide,
        reports: ConditionReports,
        writes: StoreWrites,
        usage: UsageKeeper | None = None,
        *,
        pace: ClaimPace | None = None,
    ) -> None:
        """`usage` measures for how long claims have not been declared; None if nothing does. `pace` limits how many
        claims are made in a time; None: nothing does.
        """
        self._usage = usage
        self._rate = ClaimRate(pace)
        self._guard = ClaimGuard()
        self._looking: asyncio.TimerHandle | None = None
        """Ends the pause before a record is put back again, or before more is claimed; None if there is none."""
        self._snapshot: StoreSnapshot | None = None
        """The newest snapshot of the store; None until it has answered once."""
        self._store = store
        self._decide = decide
        self._reports = reports
        self._writes = writes
        self._due = PacedSignal(REST, LONGEST_REST)
        self._knows_own_services = False
        self._owners: frozenset[str] = frozenset()
        """Owners of the services that this worker runs."""
        self._names: frozenset[Name] = frozenset()
        """Names of the services that this worker runs."""
        self._view: ClusterView | None = None
        """The newest view; None before the first one. Without it nothing is claimed: the claims that the store has are
        not known.
        """
        self._granted_for: tuple[tuple[Service, ...], Claims] | None = None
        """The services and claims for which every wish was granted; None if they must be claimed again."""
        self._left: tuple[ClaimRequest, ...] = ()
        """The wishes for those services and claims that were left to the other workers."""
        self._lost: tuple[Claims, Mapping[str, bytes]] | None = None
        """Claims to restore to a store that was lost, and the records of times and shares with them; None if nothing
        was lost or everything is restored.
        """

    @property
    def has_claims_to_restore(self) -> bool:
        """Whether the store was lost and its claims are not restored yet."""
        return self._lost is not None

    def offer(self, services: tuple[Service, ...]) -> None:
        """Replace the services that this worker runs. Services that it did not run before need their claims."""
        owners, names = self._owners, self._names
        self._knows_own_services = True
        self._owners = frozenset(service.owner for service in services)
        self._names = frozenset(service.name for service in services)
        self._guard.offer(services)
        self._learn()
        is_larger = not (self._owners <= owners and self._names <= names)
        if is_larger and (self._granted_for is None or any(map(self._is_own, self._left))):
            self._granted_for = None
            self._due.set()

    def take(self, snapshot: StoreSnapshot) -> None:
        """Take the newest snapshot of the store."""
        self._snapshot = snapshot
        self._guard.follow(snapshot.records, snapshot.changed, asyncio.get_running_loop().time())
        if self._guard.contested:
            self._due.set()
        if self._usage is not None:
            self._usage.take(snapshot)

    def was_blind(self) -> None:
        """Forget which claims the own services had: the store was away for so long that they counted as gone."""
        self._guard.forget()

    def reconsider(self) -> None:
        """Decide again, although neither services nor claims have changed."""
        self._granted_for = None
        self._due.set()

    def follow(self, seen: ClusterView) -> None:
        """Take the newest view."""
        self._view = seen
        self._learn()
        if self._usage is not None:
            self._usage.follow(seen)
        if self._granted_for != (seen.services, seen.claims):
            self._due.set()

    def store_was_lost(self, before: StoreSnapshot) -> None:
        """Restore the claims among the records `before`, which the store has lost."""
        # From the snapshot: the view may be older. Claims of an earlier loss take precedence, since the snapshots after
        # it may have only a part of them.
        self._guard.forget()
        if self._lost is None:
            claims = {k: v for k, v in before.records.items() if k.startswith(CLAIMS_PREFIX)}
            shares = {key: value for key, value in claims.items() if key.startswith((SHARES_PREFIX, ROLLOUTS_PREFIX))}
            self._lost = build_view(claims)[0].claims, {**lost_usage(claims), **shares}
        self._due.set()

    async def run(self) -> None:
        """Claim what is missing, until cancelled."""
        backoff = Backoff(RETRY)
        while True:
            await self._due.wait()
            seen = self._view
            try:
                # Comes before new claims: a new claim might take what another service held.
                await self._restore()
                await self._put_back()
                if seen is not None and (seen.services, seen.claims) != self._granted_for:
                    await self._claim(seen)
            except StoreError as error:
                self._writes.failed("claims", error)
                await asyncio.sleep(backoff.next_pause())
                self._due.set()
            except Exception:
                self._granted_for = None
                self._due.set()  # it is due as soon as this is started again
                raise
            else:
                backoff.reset()
                self._writes.succeeded("claims")

    async def _claim(self, seen: ClusterView) -> None:
        timed = seen if self._usage is None else seen.with_claims(replace(seen.claims, lapsed=self._usage.lapsed))
        with self._due.work():
            size = len(seen.services) + len(seen.claims.owners)
            wanted, conflicts = await compute(size, partial(self._decide, timed))
        # A service that this worker runs from now on, while it waits for the store, may need one of these.
        self._granted_for, self._left = None, tuple(wish for wish in wanted if not self._is_own(wish))
        contested = self._guard.contested
        names = frozenset(service.name for service in seen.services if service.owner in contested)
        wishes = [
            wish for wish in wanted if self._is_own(wish) and not (contested and is_for_owners(wish, contested, names))
        ]
        admitted = self._rate.admit(wishes, seen.services, seen.claims, asyncio.get_running_loop().time())
        self._reports.found("claims", [*conflicts, *self._guard.problems(), *self._rate.problems()])
        for wish in admitted:
            if isinstance(wish, PutBackVip):
                text = "the record of the VIP %s had the name %s; it is put back to %s"
                log.warning(text, wish.address, wish.wrong_name, wish.name, extra=Code.CLAIM_REWRITTEN.extra)
        all_granted = await claim_all(self._store, admitted)
        self._rate.claimed(admitted, seen.services)
        is_complete = all_granted and not contested and len(admitted) == len(wishes)
        is_complete = is_complete and not any(map(self._is_own, self._left))
        self._granted_for = (seen.services, seen.claims) if is_complete else None
        self._look_later()

    def _learn(self) -> None:
        if self._snapshot is not None and self._lost is None and self._view is not None:
            self._guard.learn(self._view.services, self._view.claims, self._snapshot.records)

    async def _put_back(self) -> None:
        """Put back the records of own claims that were rewritten, as far as that is due."""
        loop = asyncio.get_running_loop()
        for each in self._guard.restorations(loop.time()):
            log.warning("the claim %s was rewritten; it is put back", each.key, extra=Code.CLAIM_REWRITTEN.extra)
            self._granted_for = None  # so that it is reported
            await self._store.change({each.key: each.there}, {each.key: each.value})
        self._look_later()

    def _look_later(self) -> None:
        """Decide again when a record is to be put back, or more may be claimed."""
        loop = asyncio.get_running_loop()
        pauses = [pause for look in (self._guard, self._rate) if (pause := look.next_look(loop.time())) is not None]
        pause = min(pauses, default=None)
        if self._looking is not None:
            self._looking.cancel()
        later = bulkhead.callback(self.reconsider)
        self._looking = None if pause is None else loop.call_later(max(pause, FIRST_PAUSE / 10), later)

    def _is_own(self, wish: ClaimRequest) -> bool:
        return not self._knows_own_services or is_for_owners(wish, self._owners, self._names)

    async def _restore(self) -> None:
        lost = self._lost
        if lost is None:
            return
        refused = await restore_claims(self._store, lost[0])
        await restore_records(self._store, lost[1])
        if refused:
            log.error(
                "%d claims of a lost store cannot be restored: other services hold them now",
                refused,
                extra=Code.STORE_LOST_DATA.extra,
            )
        if self._lost is lost:
            self._lost = None
