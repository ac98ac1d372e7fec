"""Synchronizes this worker with the others over the store: the composition that the control loop uses.

A worker knows more of its own endpoints than the store does: its offer and its verdicts count for itself at once,
whether the store answers, is out of reach, or has just ended its lease. The others see them as soon as they are
written. Records of a worker that is gone are kept for a while, so that others can probe its endpoints
(`mesh.health.takeover`).

    offer, judge -> RecordPublisher -> store -> ViewAssembler -> view
                                         ^                        |
                                         +------- Claimer <-------+
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address

from mesh import __version__
from mesh.cluster.claimer import Claimer
from mesh.cluster.endpoint_authority import EndpointAuthority
from mesh.cluster.name_guard import NameGuard
from mesh.cluster.ports import ConditionReports, Decide
from mesh.cluster.record_publisher import RecordPublisher
from mesh.cluster.records.encode import encode_daemon, encode_digest, encode_registration
from mesh.cluster.retained import RetainedRecords
from mesh.cluster.share_keeper import ShareKeeper
from mesh.cluster.store_writes import StoreWrites
from mesh.cluster.usage_keeper import UsageKeeper
from mesh.cluster.view_assembler import ViewAssembler
from mesh.cluster.view_overlay import ViewOverlay
from mesh.cluster.worker_directory import RegisteredWorker
from mesh.model.claims import ClaimLimits
from mesh.model.part import DaemonPart
from mesh.model.problem import Problem
from mesh.model.service import Address, Endpoint, EndpointKey, Service
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, HealthReport
from mesh.store import Store
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.CLUSTER)


class ClusterSync:
    """Publishes this worker's records and assembles the cluster view. Both `offer` and `judge` may be called again with
    the same arguments.
    """

    # 9 parameters: this worker, its store, and what decides about claims and about other workers; tests give the first
    # four alone.

    def __init__(
        self,
        worker: str,
        store: Store,
        reports: ConditionReports,
        decide: Decide,
        *,
        listens: RealKey | None = None,
        admin: RealKey | None = None,
        data_plane: str | None = None,
        answers: Callable[[str], bool] = lambda _: False,
        authority: EndpointAuthority | None = None,
        limits: ClaimLimits | None = None,
    ) -> None:
        """`decide` computes what to claim. `listens` is the address of this worker's peer listener and `admin` where
        others ask its admin API, None if there is none; `data_plane` is the name of its data plane, for operators;
        `answers` says whether another worker, given by its name, answers this one; `authority` judges the endpoints of
        other workers, None to use them all. `limits` says how long claims stay with holders that do not declare them;
        None: the time is not measured.
        """
        self._worker = worker
        self._authority = authority
        self._offered: Mapping[str, bytes] | None = None
        """None until all sources have answered once."""
        self._admin = admin
        record = encode_daemon(
            worker,
            __version__,
            uuid.uuid4().hex,
            None if listens is None else str(listens),
            admin=None if admin is None else str(admin),
            data_plane=data_plane,
        )
        writes = StoreWrites(reports)
        self._retained = RetainedRecords(worker, answers)
        self._publisher = RecordPublisher(worker, store, record, NameGuard(worker, record, reports), writes)
        self._usage = UsageKeeper(worker, store, limits, writes) if limits is not None else None
        self._shares = ShareKeeper(store, writes)
        pace = limits.pace if limits is not None else None
        self._claimer = Claimer(store, decide, reports, writes, self._usage, pace=pace)
        self._assembler = ViewAssembler(
            store,
            ViewOverlay(worker, authority.refusal if authority is not None else lambda _: None),
            self._retained,
            publisher=self._publisher,
            claimer=self._claimer,
            reports=reports,
        )

    @property
    def peer_addresses(self) -> Mapping[str, RealKey]:
        """The peer listener of each other worker by name: workers in the store, and workers that answer although their
        lease has ended. Workers whose listener is at an address that cannot be another host's are left out.
        """
        found, authority = self._retained.peer_addresses, self._authority
        if authority is None:
            return found
        return {worker: at for worker, at in found.items() if authority.address_refusal(at.address) is None}

    @property
    def admin_addresses(self) -> Mapping[str, RealKey]:
        """Where each other worker says that its admin API is, by name. Whoever asks there must check
        `admin_refusal`, and who answers.
        """
        return self._retained.admin_addresses

    def admin_refusal(self, address: Address) -> str | None:
        """Why the admin API of another worker cannot be at this address; None if it can.

        Workers that are all on one host, as in a trial, ask one another on loopback.
        """
        if self._authority is None:
            return None
        own = self._admin is not None and ip_address(self._admin.address).is_loopback
        return None if own and ip_address(address).is_loopback else self._authority.address_refusal(address)

    @property
    def unleased(self) -> frozenset[str]:
        """The other workers whose lease has ended and whose records are kept."""
        return self._retained.unleased_workers

    @property
    def registered(self) -> Mapping[str, RegisteredWorker]:
        """The workers that the store has, this one too, by name."""
        return self._retained.registered

    def publish_digest(self, digest: str, told: Sequence[Problem] = ()) -> None:
        """Tell the other workers the digest of this worker's table, and problems of its firewall that concern them."""
        self._publisher.describe(encode_digest(self._worker, digest, told))

    def encode_offer(self, services: tuple[Service, ...], endpoints: tuple[Endpoint, ...]) -> Mapping[str, bytes]:
        """Return the records of an offer, to be passed to `offer` with it. Pure, so that a thread may do it."""
        return encode_registration(self._worker, services, endpoints)

    def offer(
        self,
        services: tuple[Service, ...],
        endpoints: tuple[Endpoint, ...],
        records: Mapping[str, bytes] | None = None,
    ) -> None:
        """Replace the services and endpoints that this worker runs. `records`: what `encode_offer` makes of them; None
        encodes them now, which takes tens of microseconds each.
        """
        if records is None:
            records = self.encode_offer(services, endpoints)
        if records != self._offered:
            self._offered = records
            self._publisher.offer(records, {endpoint.id: endpoint.run for endpoint in endpoints})
            self._assembler.offer(records)
            self._claimer.offer(services)

    def judge(self, reports: Mapping[EndpointKey, HealthReport]) -> None:
        """Replace the health of every endpoint that this worker probes."""
        self._publisher.judge(reports)

    def review(self) -> None:
        """Assemble the view again if it depends on which workers answer."""
        self._assembler.review()

    def move(self, addresses: frozenset[Address]) -> None:
        """Replace this host's own addresses, where no other worker can have endpoints."""
        if self._authority is not None:
            self._assembler.judge_again(self._authority.move(addresses))

    def formerly_kept(self) -> frozenset[EndpointKey]:
        """Own endpoints that an earlier run left in traffic although they failed; empty once `judge` was called."""
        return self._publisher.formerly_kept()

    def former_endpoints(self) -> Mapping[EndpointKey, Endpoint]:
        """The endpoints that an earlier run of this daemon registered last; empty if that is not known."""
        return self._publisher.former_endpoints()

    async def run(self, see: Callable[[ClusterView], None], *, patient: bool) -> None:
        """Call `see` with the view of what all workers offer, own offer included, at once and after changes, until
        cancelled.

        Own endpoints have the verdicts that were written last: this worker knows newer ones. `patient`: the first view
        waits for the sources if the store does not have an earlier run's offer, since the data plane may still carry
        it.
        """

        def take(seen: ClusterView) -> None:
            self._shares.follow(seen)
            see(seen)

        async with asyncio.TaskGroup() as tasks:
            assemble = partial(self._assembler.run, take, patient=patient)
            tasks.create_task(bulkhead.keep_running("view", assemble), name="view")
            tasks.create_task(bulkhead.keep_running("registration", self._publisher.run), name="registration")
            tasks.create_task(bulkhead.keep_running("claims", self._claimer.run), name="claims")
            tasks.create_task(bulkhead.keep_running("shares", self._shares.run), name="shares")
            if self._usage is not None:
                measure = partial(self._usage.run, self._claimer.reconsider, self._claimer.was_blind)
                tasks.create_task(bulkhead.keep_running("claim usage", measure), name="claim usage")
