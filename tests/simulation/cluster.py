"""A large simulated cluster in virtual time: what its workers write to the store, and the tables they end with.

The engine is a heap of events with a virtual clock and one seeded generator, so a run can be repeated exactly: the same
seed gives the same trace. The pure parts are the real ones: records, reader, claims, plan, digest; the store is the
one in memory, whose claims are decided as etcd decides them. What is modelled is what the shells around them do: a
registration is written in batches and newest last, a lease is kept alive three times in its time, a watch catches up
from its revision or lists anew, a claim that was refused is decided anew from the next picture.

All workers that have followed the store to one revision see the same picture, which is made once for all of them: a
thousand pictures of a hundred thousand endpoints would fit nowhere. Some of them, the witnesses, share nothing: each
follows the changes in its own portions and makes its own pictures and plans.
"""

import heapq
import random
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b

from mesh.cluster.claims import (
    ClaimName,
    ClaimPort,
    ClaimRequest,
    ClaimVip,
    RecordDeclaration,
    RecordOlderNames,
    TakeOverName,
    plan_claims,
)
from mesh.cluster.records.encode import encode_name_claim, encode_port_claim, encode_service_claim, encode_vip_claim
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.config.values import Network
from mesh.model.service import Health
from mesh.model.view import ClusterView
from mesh.testing.store import MemoryCluster
from tests.simulation.workers import Counts, Witness, Worker

TICK = 0.05
"""Seconds: changes that come within are one picture."""
BATCH = 100
"""Records in one transaction."""
TTL = 5.0
"""Seconds of a lease."""
EVENT_BYTES = 190
"""What etcd's JSON gateway adds to a key and a value that it tells a watch of: names, revisions, a lease, quotes."""
REQUEST_BYTES = 420
"""What a request and its answer have around the records: HTTP headers both ways, names, the header of the store."""


class Simulation:
    """Of one cluster. `at` and `later` schedule what befalls it; `run` lets time pass."""

    def __init__(self, seed: int, workers: list[Worker], pool: Network, ports: range, witnesses: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.cluster = MemoryCluster()
        self.workers = {worker.name: worker for worker in workers}
        self.counts = Counts()
        self.out = False
        """Whether nobody reaches the store."""
        self.moved: list[str] = []
        """Claims that were given to another one, or taken back."""
        self._pool, self._ports = pool, ports
        self._heap: list[tuple[float, int, str, Callable[[], None]]] = []
        self._scheduled = 0
        self._trace = blake2b(digest_size=16)
        self._log: list[dict[str, bytes | None]] = []
        self._events, self._sizes = [0], [0]
        """Up to each revision: how many records have changed, and how many bytes a watch was told."""
        self._reader = ViewBuilder()
        self._seen_at, self._view = 0, ClusterView()
        self._forgotten = 0
        self._wished: tuple[ClusterView, dict[str, list[ClaimRequest]]] = (ClusterView(), {})
        for worker in self.random.sample(workers, witnesses):
            worker.witness = Witness()

    @property
    def trace(self) -> str:
        """A hash over all that has happened, in order, with its time."""
        return self._trace.hexdigest()

    def later(self, delay: float, what: str, action: Callable[[], None]) -> None:
        """Do it after so many seconds; `what` goes into the trace."""
        self._scheduled += 1
        heapq.heappush(self._heap, (self.now + delay, self._scheduled, what, action))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until:
            self.now, number, what, action = heapq.heappop(self._heap)
            self._trace.update(f"{self.now:.6f} {number} {what} {self.cluster.revision}\n".encode())
            action()
        self.now = until

    # ------------------------------------------------------------------------------------ what befalls a worker

    def start(self, worker: Worker) -> None:
        """Its daemon starts, or is started again: it lists the store and takes over its lease if that lives."""
        worker.alive, worker.revision, worker.writing = True, -1, False
        worker.session += 1
        worker.there = None
        worker.asked.clear()
        if worker.witness is not None:
            worker.witness = Witness()
        self._wake(worker)
        self._keep_alive(worker, worker.session)

    def crash(self, worker: Worker) -> None:
        """Its daemon is gone; its lease ends after its time unless another one takes it over."""
        worker.alive = False

    def probe(self, worker: Worker, id: str, health: Health) -> None:
        """Its probes find something new."""
        worker.health[id] = health
        self._write_soon(worker)

    def cut(self, worker: Worker, cut: bool) -> None:
        """It does not reach the store any more, or does again."""
        worker.cut = cut
        if not cut:
            self._wake(worker)
            self._write_soon(worker)

    def outage(self, out: bool) -> None:
        """Nobody reaches the store, or all do again. Leases do not end meanwhile: etcd extends them on its return."""
        self.out = out
        if not out:
            for worker in self.workers.values():
                worker.leased = max(worker.leased, self.now + TTL)
                self.cut(worker, worker.cut)

    def compact(self) -> None:
        """The store forgets the changes up to now: whoever is behind has to list."""
        self._forgotten = self.cluster.revision

    # ---------------------------------------------------------------------------------------- leases and writing

    def _reaches(self, worker: Worker) -> bool:
        return worker.alive and not worker.cut and not self.out

    def _keep_alive(self, worker: Worker, session: int) -> None:
        if worker.session != session or not worker.alive:
            return
        if self._reaches(worker):
            self._count("keepalive", 60)
            self._extend(worker)
            self._write_soon(worker)
        again = TTL / 3 * self.random.uniform(0.8, 1)
        self.later(again, f"lease {worker.name}", partial(self._keep_alive, worker, session))

    def _extend(self, worker: Worker) -> None:
        worker.leased = self.now + TTL
        if not worker.expiring:
            worker.expiring = True
            self.later(TTL, f"expiry {worker.name}", partial(self._expire, worker))

    def _expire(self, worker: Worker) -> None:
        left = TTL if self.out else worker.leased - self.now
        if left > 0:
            self.later(left, f"expiry {worker.name}", partial(self._expire, worker))
            return
        worker.expiring = False
        self._change(dict.fromkeys(self.cluster.registered.pop(worker.name, frozenset())))

    def _write_soon(self, worker: Worker) -> None:
        if not worker.writing and self._reaches(worker):
            worker.writing = True
            session = worker.session
            self.later(self._latency(), f"write {worker.name}", lambda: self._write(worker, session))

    def _write(self, worker: Worker, session: int) -> None:
        """One batch of what differs; the next one follows."""
        if worker.session != session:
            return
        worker.writing = False
        if not self._reaches(worker):
            return
        if worker.leased <= self.now:
            self._count("grant", 60)
            self._extend(worker)
        held = self.cluster.registered.get(worker.name, frozenset())
        wanted = worker.wanted()
        if worker.there is None:
            found = {key: self.cluster.get(key) for key in held}
            worker.there = {key: value for key, value in found.items() if value is not None}
            self._count("list", sum(len(key) + len(value) for key, value in worker.there.items()) * 4 // 3)
        there = worker.there = {key: value for key, value in worker.there.items() if key in held}
        changes: dict[str, bytes | None] = {k: v for k, v in wanted.items() if there.get(k) != v}
        changes |= dict.fromkeys(held - wanted.keys())
        if not changes:
            return
        batch = dict(list(changes.items())[:BATCH])
        self._count("write", sum(len(key) + len(value or b"") for key, value in batch.items()) * 4 // 3)
        for key, value in batch.items():
            if value is None:
                there.pop(key, None)
            else:
                there[key] = value
        self.cluster.registered[worker.name] = (held | batch.keys()) - {k for k, v in batch.items() if v is None}
        self._change(batch)
        if len(changes) > len(batch):
            self._write_soon(worker)

    # --------------------------------------------------------------------------------------- watches and claims

    def _change(self, changes: Mapping[str, bytes | None]) -> None:
        before = self.cluster.revision
        real = {key: value for key, value in changes.items() if self.cluster.get(key) != value}
        self.moved += [key for key in real if key.startswith("claims/") and self.cluster.get(key) is not None]
        self.cluster.change(real)
        if self.cluster.revision == before:
            return
        self._log.append(real)
        self._events.append(self._events[-1] + len(real))
        size = sum((len(key) + len(value or b"")) * 4 // 3 + EVENT_BYTES for key, value in real.items())
        self._sizes.append(self._sizes[-1] + size)
        for worker in self.workers.values():
            if not worker.awake:
                self._wake(worker)

    def _changes(self, after: int, to: int) -> dict[str, bytes | None]:
        changes: dict[str, bytes | None] = {}
        for revision in self._log[after:to]:
            changes |= revision
        return changes

    def _wake(self, worker: Worker) -> None:
        if not worker.awake and self._reaches(worker):
            worker.awake = True
            tick = (int(self.now / TICK) + self.random.randint(1, 4)) * TICK
            session = worker.session
            self.later(tick - self.now, f"look {worker.name}", lambda: self._look(worker, session))

    def _look(self, worker: Worker, session: int) -> None:
        worker.awake = False
        if worker.session != session or not self._reaches(worker):
            self._wake(worker)
            return
        head = self.cluster.revision
        if worker.revision < self._forgotten:
            self._count("list", self._sizes_of_all())
            if worker.witness is not None:
                worker.witness.list(self.cluster.records)
            self._write_soon(worker)
        else:
            self.counts.events += self._events[head] - self._events[worker.revision]
            self.counts.told += self._sizes[head] - self._sizes[worker.revision]
            if worker.witness is not None:
                worker.witness.follow(self._changes(worker.revision, head))
        worker.revision = head
        self._claim(worker)

    def _claim(self, worker: Worker) -> None:
        wished = self._wishes()
        for service in worker.services if wished else ():
            for wish in wished.get(service.owner, ()):
                if wish not in worker.asked:
                    worker.asked.add(wish)
                    self.later(self._latency(), f"claim {worker.name}", partial(self._ask, worker, wish))

    def _ask(self, worker: Worker, wish: ClaimRequest) -> None:
        worker.asked.discard(wish)
        if not self._reaches(worker):
            return
        self._count("claim", 250)
        match wish:
            case ClaimVip(name, vip):
                both = encode_service_claim(name, vip) | encode_vip_claim(vip, name)
            case ClaimName(name, owner):
                both = encode_name_claim(name, owner)
            case ClaimPort(transport, port, name, container_port):
                both = encode_port_claim(transport, port, name, container_port)
            case _:
                raise AssertionError(f"nobody moves here, and {wish} is no claim")
        if not any(self.cluster.get(key) is not None for key in both):
            self._change(both)
        else:
            self._wake(worker)

    def _wishes(self) -> dict[str, list[ClaimRequest]]:
        """What the services of the newest picture lack, by owner: all workers come to the same."""
        seen = self._picture()
        if (self._wished[0].services, self._wished[0].claims) != (seen.services, seen.claims):
            owners = {service.name: service.owner for service in seen.services}
            found: dict[str, list[ClaimRequest]] = {}
            for wish in plan_claims(seen.services, seen.claims, pool=self._pool, ports=self._ports)[0]:
                assert not isinstance(wish, RecordOlderNames | RecordDeclaration), "not one of `plan_claims` here"
                owner = wish.owner if isinstance(wish, ClaimName | TakeOverName) else owners[wish.name]
                found.setdefault(owner, []).append(wish)
            self._wished = seen, found
        return self._wished[1]

    def _picture(self) -> ClusterView:
        head = self.cluster.revision
        self._view = self._reader.follow(self._changes(self._seen_at, head))[0]
        self._seen_at = head
        return self._view

    def _latency(self) -> float:
        return self.random.uniform(0.002, 0.02)

    def _count(self, kind: str, size: int) -> None:
        self.counts.requests[kind] += 1
        self.counts.written += size + REQUEST_BYTES

    def _sizes_of_all(self) -> int:
        return sum((len(k) + len(v)) * 4 // 3 + EVENT_BYTES for k, v in self.cluster.records.items())
