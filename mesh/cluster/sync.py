"""What this worker and the others tell one another over the store.

Of its own endpoints a worker knows more than the store: what it offers, and what its probes say, counts for itself at
once, whether the store answers, is away, or has just ended its lease. The others see it as soon as it is written. While
the store is away the newest offer waits; only that one is written afterwards.

What a worker that is gone has left behind stays in the picture for a while, for others to ask (`mesh.health.takeover`).

A store that comes back with another `origin` has lost what it knew. It is given the claims of the last picture back
before anything new is claimed, and until the other workers have registered anew they are taken to be where they were.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from mesh import __version__
from mesh.cluster.claim_transactions import restore_claims, submit_claims
from mesh.cluster.claims import ClaimRequest, is_for_owners
from mesh.cluster.records.decode import daemon_session
from mesh.cluster.records.encode import (
    CLAIMS_PREFIX,
    build_view,
    encode_daemon,
    encode_registration,
    encode_verdict,
    own_prefixes,
)
from mesh.cluster.retained import RetainedRecords
from mesh.cluster.view_overlay import ViewOverlay
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Endpoint, EndpointKey, Health, Name, Service
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, HealthReport
from mesh.store import Store, StoreError, StoreSnapshot
from mesh.util.conditions import Conditions
from mesh.util.offload import compute
from mesh.util.pacing import RunPacer

log = logging.getLogger("vipmesh")

REST, LONGEST_REST = 4.0, 1.0
"""How many times as long as a picture took until the next one, and how many seconds at most: a burst leaves most of the
time to others."""
WRITE_REST = 1.0
"""The same for what is written: as long as the store took for it."""
RETRY = 1.0
"""Seconds before a store that refused is asked again."""
GRACE = 15.0
"""Seconds that workers get to register anew with a store that lost what it knew."""
LISTEN = 1.0
"""Seconds between two looks at whether the store answers."""

DecideClaims: TypeAlias = Callable[[ClusterView], tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]]
"""What the services of a picture lack, and who was refused what."""


class ClusterSync:
    """Of one worker. `offer` and `judge` may be called with the same again."""

    def __init__(
        self,
        worker: str,
        store: Store,
        journal: Conditions,
        decide: DecideClaims,
        *,
        listens: RealKey | None = None,
        answers: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`listens`: where the other workers may ask whether this one is there; `answers`: whether another one is."""
        self._worker = worker
        self._store = store
        self._journal = journal
        self._decide = decide
        self._own = own_prefixes(worker)
        self._daemon = encode_daemon(worker, __version__, uuid.uuid4().hex, None if listens is None else str(listens))
        self.remains = RetainedRecords(worker, answers)
        self._picture = ViewOverlay(self._own[0])
        self._looking, self._claiming = RunPacer(REST, LONGEST_REST), RunPacer(REST, LONGEST_REST)
        self._writing = RunPacer(WRITE_REST, LONGEST_REST)
        self._snapshot: StoreSnapshot | None = None
        self._offered: dict[str, bytes] | None = None
        """None: not all sources have answered yet."""
        self._endpoints: frozenset[str] = frozenset()
        """Ids of those that are offered."""
        self._owners: frozenset[str] = frozenset()
        self._names: frozenset[Name] = frozenset()
        """Of the services that are offered."""
        self._said: Mapping[EndpointKey, HealthReport] | None = None
        """None: nothing is probed yet; what a former life said stays."""
        self._registered: dict[str, bytes] = {}
        self._seen_myself = False
        self._view: ClusterView | None = None
        self._lost: Claims | None = None
        """What a store that was lost has to be given back."""
        self._forgetting: asyncio.TimerHandle | None = None
        self._decided: tuple[tuple[Service, ...], Claims] | None = None
        """For which all wishes were granted."""
        self._waiting: set[str] = set()
        """What the store has not taken yet."""
        self._write, self._unclaimed = asyncio.Event(), asyncio.Event()
        self._look, self._taken = asyncio.Event(), asyncio.Event()

    def offer(self, services: tuple[Service, ...], endpoints: tuple[Endpoint, ...]) -> None:
        """This is all that the worker runs."""
        offered = encode_registration(self._worker, services, endpoints)
        if offered != self._offered:
            self._picture.offered(self._offered, offered)
            self._offered = offered
            self._endpoints = frozenset(endpoint.id for endpoint in endpoints)
            self._write.set()
            self._look.set()
            self._claim_for(services)

    def _claim_for(self, services: tuple[Service, ...]) -> None:
        """Ask for what these lack, too: nothing that was not asked for yet, if no other service is among them."""
        before = self._owners, self._names
        self._owners = frozenset(service.owner for service in services)
        self._names = frozenset(service.name for service in services)
        if not (self._owners <= before[0] and self._names <= before[1]):
            self._decided = None
            self._unclaimed.set()

    def judge(self, said: Mapping[EndpointKey, HealthReport]) -> None:
        """This is what the probes say of everything that this worker asks."""
        if said is not self._said and said != self._said:
            self._said = said
            self._write.set()

    def review(self) -> None:
        """Another worker answers, or does not any more."""
        if self.remains.unleased.records:
            self._look.set()

    def formerly_kept(self) -> frozenset[EndpointKey]:
        """Own endpoints that a former life left in traffic although they failed; empty once `judge` was called."""
        records = self._snapshot.records if self._snapshot is not None and self._said is None else {}
        return build_view({key: value for key, value in records.items() if key.startswith(self._own[1])})[0].kept

    async def run(self, see: Callable[[ClusterView], None], *, patient: bool) -> None:
        """Call `see` with what all workers offer, own offers included, at once and after changes; until cancelled.

        Of own endpoints it has the verdicts that were written last: whoever probes them knows better. `patient`: the
        first picture waits for the sources if a former life's offer is gone, since the data plane still carries it.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="store")
            tasks.create_task(self._keep_written(), name="registration")
            tasks.create_task(self._keep_claimed(), name="claims")
            tasks.create_task(self._keep_listening(), name="silence")
            while True:
                await self._look.wait()
                await self._looking.wait()
                self._look.clear()
                self._taken.set()
                if self._snapshot is None or (patient and not self._knows_itself(self._snapshot)):
                    continue
                patient = False
                with self._looking.work():
                    remains = self.remains.records(self._snapshot)
                    seen, broken = await self._picture.look(self._snapshot, self._offered, remains)
                self._journal.found("store", broken)
                if self._decided != (seen.services, seen.claims):
                    self._unclaimed.set()
                if self._said is None:
                    self._write.set()
                if silent := self.remains.silent(seen):
                    seen = seen.regrouped(seen.groups, silent=silent)
                if seen != self._view:  # what this worker offered itself comes back from the store
                    self._view = seen
                    see(seen)

    # ------------------------------------------------------------------------------------- store -> picture

    async def _follow(self) -> None:
        async for snapshot in self._store.watch():
            self._take(snapshot)
            del snapshot  # they are large: keep the newest alone
            await self._taken.wait()  # what comes meanwhile is one snapshot

    def _take(self, snapshot: StoreSnapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        if before is None:
            self._write.set()
        elif before.origin != snapshot.origin:
            self._lose(before)
        self.remains.follow(snapshot, before, asyncio.get_running_loop().time())
        self._picture.changed(snapshot.changed)
        self._notice_namesake(snapshot)
        self._taken.clear()
        self._look.set()

    def _lose(self, before: StoreSnapshot) -> None:
        log.error(
            "the store has lost what it knew: it gets all claims back that this worker knows",
            extra=Code.STORE_LOST_DATA.extra,
        )
        self.remains.lose(before)
        # not of the picture: that may not be as far yet
        self._lost = (
            self._lost or build_view({k: v for k, v in before.records.items() if k.startswith(CLAIMS_PREFIX)})[0].claims
        )
        self._registered = {}
        self._seen_myself = False
        self._forget_later()
        self._picture.changed(None)
        self._unclaimed.set()
        self._write.set()

    def _forget_later(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(GRACE, self._forget)

    def _forget(self) -> None:
        if self._lost is not None:
            self._forget_later()  # it does not even have its claims back
            return
        self.remains.forget(self._snapshot, asyncio.get_running_loop().time())
        self._picture.changed(None)
        self._look.set()

    async def _keep_listening(self) -> None:
        """Look again when the others' words lose their validity, or get it back."""
        while True:
            if self.remains.listen(self._store.trouble, asyncio.get_running_loop().time()):
                self._picture.changed(None)
                self._look.set()
            await asyncio.sleep(LISTEN)

    def _knows_itself(self, snapshot: StoreSnapshot) -> bool:
        return self._offered is not None or any(key.startswith(self._own) for key in snapshot.records)

    def _notice_namesake(self, snapshot: StoreSnapshot) -> None:
        """Two daemons with one name would undo one another's work: the elder leaves the name to the newer."""
        key, mine = self._daemon
        there = snapshot.records.get(key)
        self._seen_myself |= there == mine
        if self._seen_myself and there is not None and daemon_session(there) not in (None, daemon_session(mine)):
            remedy = "give each worker another [node] name and restart this one"
            reason = f"another daemon runs with the name {self._worker}; what this one runs is not offered any more"
            self._journal.found(
                "name", [Problem(Code.WORKER_NAME_TAKEN, Severity.ERROR, f"worker {self._worker}", reason, remedy)]
            )
        elif self._journal.problems.get("name"):
            log.info("the other daemon with the name %s is gone; what this one runs is offered again", self._worker)
            self._journal.found("name", [])
            self._registered = {}
            self._write.set()

    # ------------------------------------------------------------------------------------------ offer -> store

    async def _keep_written(self) -> None:
        while True:
            await self._write.wait()
            await self._writing.wait()
            self._write.clear()
            records = self._records()
            if records is None or records == self._registered or self._journal.problems.get("name"):
                continue
            try:
                with self._writing.work():
                    await self._store.register(records)
            except StoreError as error:
                self._is_refused("registration", error)
                await asyncio.sleep(RETRY)
                self._write.set()
            else:
                self._registered = records
                self._is_answered("registration")

    def _records(self) -> dict[str, bytes] | None:
        """All that shall be under this worker's lease; None: not to be said yet."""
        if self._offered is None or self._snapshot is None:
            return None
        if self._said is None:  # of a former life, until the probes have begun
            said = {k: v for k, v in self._snapshot.records.items() if k.startswith(self._own[1])}
        else:
            said = dict(
                encode_verdict(self._worker, key, health, kept=kept, held_back=held_back)
                for key, (health, kept, held_back) in self._said.items()
                if health is not Health.STARTING and (key[0] != self._worker or key[1] in self._endpoints)
            )
        return self._offered | said | dict([self._daemon])

    # --------------------------------------------------------------------------------------- picture -> claims

    async def _keep_claimed(self) -> None:
        """Ask for what the services lack; the store's next snapshot shows what was given."""
        while True:
            await self._unclaimed.wait()
            await self._claiming.wait()
            self._unclaimed.clear()
            seen = self._view or ClusterView()
            try:
                await self._give_back()
                if (seen.services, seen.claims) == self._decided:
                    continue
                with self._claiming.work():
                    wanted, conflicts = await compute(len(seen.services), partial(self._decide, seen))
                self._journal.found("claims", conflicts)
                refused = await submit_claims(self._store, [wish for wish in wanted if self._is_mine(wish)])
                self._decided = None if refused else (seen.services, seen.claims)
            except StoreError as error:
                self._is_refused("claims", error)
                await asyncio.sleep(RETRY)
                self._unclaimed.set()
            else:
                self._is_answered("claims")

    def _is_mine(self, wish: ClaimRequest) -> bool:
        """Whoever runs a service claims for it. All come to the same wishes, and need not all ask."""
        return self._offered is None or is_for_owners(wish, self._owners, self._names)

    async def _give_back(self) -> None:
        if self._lost is None:
            return
        lost = self._lost
        refused = await restore_claims(self._store, lost)
        if refused:
            log.error(
                "%d claims could not be given back to the store: others have them by now",
                refused,
                extra=Code.STORE_LOST_DATA.extra,
            )
        if self._lost is lost:
            self._lost = None

    # ------------------------------------------------------------------------------------------- the journal

    def _is_refused(self, what: str, error: StoreError) -> None:
        self._waiting.add(what)
        self._journal.froze("store", error)

    def _is_answered(self, what: str) -> None:
        self._waiting.discard(what)
        if not self._waiting:
            self._journal.thawed("store")
