"""Pings between workers: the schedule, the consequences, and the real ping over TCP."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvloop

from mesh.cluster.failure_detector import PingResult, withhold_unreachable
from mesh.cluster.peer_monitor import ROUND_INTERVAL, PeerMonitor, Reachability
from mesh.cluster.ping import MAX_TIMER_DELAY, PING_TIMEOUT, listen_for_pings, ping_worker
from mesh.cluster.ping_schedule import MAX_DOUBTFUL_PINGS, PINGS_PER_SECOND
from mesh.model.service import Endpoint
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from tests.builders import service

WEB = service("web.test", owner="shop/web", container_port=8080)
W2, W3, ETCD = RealKey("10.1.0.2", 9781), RealKey("10.1.0.3", 9781), RealKey("10.1.0.10", 2379)
ENDPOINTS = {worker: RealKey(f"10.2.0.{worker[1]}", 8080) for worker in ("w2", "w3")}


@dataclass
class Net:
    """Who is silent, and who was asked."""

    present: dict[str, RealKey] = field(default_factory=lambda: {"w2": W2, "w3": W3})
    silent: set[RealKey] = field(default_factory=set)
    busy: bool = False
    lost_leases: set[str] = field(default_factory=set)
    not_listening: set[str] = field(default_factory=set)
    more: tuple[Endpoint, ...] = ()
    still_until: float = 0
    """When the host of the third worker goes on."""
    asked: list[RealKey] = field(default_factory=list)

    def workers(self) -> Mapping[str, RealKey]:
        return self.present

    def unleased(self) -> Collection[str]:
        return self.lost_leases

    def non_listening(self) -> Collection[str]:
        return self.not_listening - self.lost_leases

    def view(self) -> ClusterView:
        return ClusterView(
            (WEB,), tuple(Endpoint("e", "shop/web", w, real.address) for w, real in ENDPOINTS.items()) + self.more
        )

    async def question(self, real: RealKey, worker: str | None) -> PingResult | None:
        self.asked.append(real)
        assert worker == {W2: "w2", W3: "w3"}.get(real)
        if self.busy:
            return None
        if real in (W3, ENDPOINTS["w3"]) and (wait := self.still_until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(wait, PING_TIMEOUT))
            return PingResult.SILENT if wait > PING_TIMEOUT else PingResult.ANSWERED
        if real in self.silent:
            await asyncio.sleep(PING_TIMEOUT)
            return PingResult.SILENT
        return PingResult.ANSWERED

    @asynccontextmanager
    async def running(self, *witnesses: RealKey) -> AsyncIterator[Reachability]:
        self.woken = asyncio.Event()
        reach = Reachability()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(PeerMonitor(reach, self, self.woken.set, witnesses, self.question).run())
            yield reach
            task.cancel()

    def open(self, reach: Reachability) -> list[str]:
        lost, isolated = reach.lost
        return [
            e.worker for e in withhold_unreachable(self.view(), lost, isolated=isolated).endpoints if e.drain is None
        ]


@pytest.mark.looptime
class TestRounds:
    async def test_in_quiet_times_only_workers_are_pinged(self) -> None:
        """Nor the store's members: what they say matters when somebody is missing."""
        net = Net()
        async with net.running(ETCD):
            await asyncio.sleep(10 * ROUND_INTERVAL - 0.01)
        assert len(net.asked) == 20
        assert set(net.asked) == {W2, W3}

    async def test_a_loss_is_detected_within_one_and_a_half_seconds_and_its_end_at_once(self) -> None:
        net = Net()
        async with net.running(ETCD) as reach:
            await asyncio.sleep(1.1)
            net.silent = {W3, ENDPOINTS["w3"]}
            begun = asyncio.get_running_loop().time()
            await net.woken.wait()
            assert 4 * PING_TIMEOUT < asyncio.get_running_loop().time() - begun < 1.5
            assert ETCD in net.asked
            assert net.open(reach) == ["w2"]
            assert len(reach.cut_off(None).problems) == 1
            net.woken.clear()
            net.silent.clear()
            begun = asyncio.get_running_loop().time()
            await net.woken.wait()
            assert asyncio.get_running_loop().time() - begun <= PING_TIMEOUT
            assert net.open(reach) == ["w2", "w3"]
            assert reach.cut_off(None).problems == ()

    @pytest.mark.parametrize("pause", [0.3, 0.6, 0.9])
    async def test_a_short_pause_of_a_host_loses_no_endpoint(self, pause: float) -> None:
        """A packet that waits for it is answered when it goes on. Whenever it begins."""
        for begin in range(10):
            net = Net()
            async with net.running(ETCD):
                await asyncio.sleep(1.1 + begin * ROUND_INTERVAL / 7)
                net.still_until = asyncio.get_running_loop().time() + pause
                await asyncio.sleep(pause + 2)
            assert not net.woken.is_set()

    async def test_an_isolated_worker_removes_no_endpoint(self) -> None:
        net = Net()
        async with net.running(ETCD) as reach:
            await asyncio.sleep(1.1)
            net.silent = {W2, W3, ETCD, *ENDPOINTS.values()}
            await asyncio.sleep(10)
            assert net.open(reach) == ["w2", "w3"]

    async def test_a_worker_too_busy_to_ping_removes_no_endpoint(self) -> None:
        net = Net()
        async with net.running(ETCD) as reach:
            await asyncio.sleep(1.1)
            net.busy = True
            await asyncio.sleep(10)
            assert net.open(reach) == ["w2", "w3"]
            assert reach.cut_off(None).problems == ()

    async def test_endpoints_of_a_worker_without_a_lease_are_pinged_in_its_place(self) -> None:
        net = Net()
        async with net.running() as reach:
            await asyncio.sleep(1.1)
            net.lost_leases = {"w3"}
            await net.woken.wait()
            assert (net.open(reach), reach.answers("w3")) == (["w2", "w3"], True)
            assert [problem.subject for problem in reach.cut_off(None).problems] == ["worker w3"]
            net.silent = {ENDPOINTS["w3"]}
            await asyncio.sleep(2.5)
            assert (net.open(reach), reach.answers("w3")) == (["w2"], True)
            net.silent = {W3}
            await asyncio.sleep(2.5)
            assert (net.open(reach), reach.answers("w3")) == (["w2", "w3"], False), "it is dropped as a whole"

    async def test_a_single_worker_sends_no_pings(self) -> None:
        net = Net({})
        async with net.running(ETCD):
            await asyncio.sleep(10)
        assert net.asked == []


@pytest.mark.looptime
class TestAWorkerThatDoesNotListen:
    """The third: nobody listens there, and its endpoints tell of it."""

    def net(self, *more: str) -> Net:
        others = tuple(Endpoint(f"e{n}", "shop/web", "w3", address) for n, address in enumerate(more))
        return Net({"w2": W2}, not_listening={"w3"}, more=others)

    async def test_it_costs_one_ping_per_round_whatever_the_number_of_its_endpoints(self) -> None:
        net = self.net("10.2.0.4", "10.2.0.5")
        async with net.running():
            await asyncio.sleep(10 * ROUND_INTERVAL - 0.01)
        assert len(net.asked) == 20
        assert len(set(net.asked)) == 2, "always the same endpoint"

    async def test_without_power_its_endpoints_are_removed_when_its_lease_ends(self) -> None:
        net = self.net("10.2.0.4")
        async with net.running() as reach:
            await asyncio.sleep(1.1)
            net.silent = {ENDPOINTS["w3"], RealKey("10.2.0.4", 8080)}
            await asyncio.sleep(1.5)
            assert net.open(reach) == ["w2", "w3", "w3"]
            assert reach.cut_off(None).problems == ()
            net.lost_leases = {"w3"}
            reach.lease_ended({"w3"})
            assert net.open(reach) == ["w2"], "at that instant"
            assert "worker w3: it does not answer this worker" in str(reach.cut_off(None).problems[0])

    async def test_a_stopped_daemon_removes_no_endpoint_that_answers(self) -> None:
        net = self.net()
        async with net.running() as reach:
            await asyncio.sleep(1.1)
            net.lost_leases = {"w3"}
            reach.lease_ended({"w3"})
            await asyncio.sleep(5)
            assert net.open(reach) == ["w2", "w3"]

    async def test_a_stand_in_that_stops_answering_is_replaced(self) -> None:
        """Its own worker judges it."""
        net = self.net("10.2.0.4", "10.2.0.5")
        async with net.running(ETCD) as reach:
            await asyncio.sleep(1.1)
            first = next(real for real in net.asked if real != W2)
            net.silent = {first}
            await asyncio.sleep(2)
            net.asked.clear()
            await asyncio.sleep(1)
            assert first not in net.asked
            assert len(set(net.asked)) == 2
            net.lost_leases = {"w3"}
            reach.lease_ended({"w3"})
            assert len(net.open(reach)) == 4

    async def test_a_worker_without_reachable_endpoints_is_not_suspected(self) -> None:
        """They never answer; or their address is this worker's own."""
        net = self.net("127.0.0.1", "169.254.0.1")
        net.silent = {ENDPOINTS["w3"]}
        async with net.running() as reach:
            await asyncio.sleep(5)
            assert {real.address for real in net.asked} == {W2.address, "10.2.0.3"}
            net.lost_leases = {"w3"}
            reach.lease_ended({"w3"})
            assert len(net.open(reach)) == 4


@dataclass
class Large:
    """A thousand workers, or as many as a test wants, with endpoints of one service each."""

    size: int = 1000
    endpoints: int = 10
    silent: set[str] = field(default_factory=set)
    asked: Counter[int] = field(default_factory=Counter)
    """By second."""

    def __post_init__(self) -> None:
        self.there = {f"w{n}": RealKey(f"10.1.{n // 250}.{n % 250}", 9781) for n in range(self.size)}
        self.seen = ClusterView(
            (WEB,),
            tuple(
                Endpoint(f"e{n}", "shop/web", worker, f"10.{n + 2}{real.address[4:]}")
                for worker, real in self.there.items()
                for n in range(self.endpoints)
            ),
        )
        self.on = {e.address: e.worker for e in self.seen.endpoints}
        self.on |= {real.address: worker for worker, real in self.there.items()}
        self.woken = asyncio.Event()

    def workers(self) -> Mapping[str, RealKey]:
        return self.there

    def unleased(self) -> Collection[str]:
        return ()

    def non_listening(self) -> Collection[str]:
        return ()

    def view(self) -> ClusterView:
        return self.seen

    async def question(self, real: RealKey, worker: str | None) -> PingResult | None:
        self.asked[int(asyncio.get_running_loop().time())] += 1
        if self.on[real.address] in self.silent:
            await asyncio.sleep(PING_TIMEOUT)
            return PingResult.SILENT
        return PingResult.ANSWERED

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Reachability]:
        reach = Reachability()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(PeerMonitor(reach, self, self.woken.set, (), self.question).run())
            await asyncio.sleep(self.size / PINGS_PER_SECOND + 1)  # each has answered once
            yield reach
            task.cancel()

    async def seconds_until_out(self, reach: Reachability, workers: set[str]) -> float:
        """From now on, until all endpoints of these workers are lost."""
        begun = asyncio.get_running_loop().time()
        expected = {e.key for e in self.seen.endpoints if e.worker in workers}
        while reach.lost[0] != expected:
            self.woken.clear()
            await self.woken.wait()
        return asyncio.get_running_loop().time() - begun


@pytest.mark.looptime
class TestManyWorkers:
    async def test_a_lost_worker_is_removed_before_a_lease_of_five_seconds_ends(self) -> None:
        took = []
        large = Large()
        for begin in range(4):
            large = Large()
            async with large.running() as reach:
                await asyncio.sleep(begin * ROUND_INTERVAL / 3)
                large.silent = {"w7"}
                took.append(await large.seconds_until_out(reach, large.silent))
        assert max(took) < large.size / PINGS_PER_SECOND + 5 * PING_TIMEOUT < 5

    async def test_the_ping_rate_in_quiet_times_is_bounded(self) -> None:
        large = Large()
        async with large.running():
            await asyncio.sleep(10)
        assert max(large.asked.values()) <= PINGS_PER_SECOND + 1 / ROUND_INTERVAL

    async def test_losing_half_of_the_workers_with_ten_thousand_endpoints_is_detected_in_bounded_time(self) -> None:
        large = Large(200, 100)
        async with large.running() as reach:
            large.silent = {f"w{n}" for n in range(99)}
            took = await large.seconds_until_out(reach, large.silent)
            assert not reach.lost[1]
            assert took < 3 * (99 * 100 + 99) / MAX_DOUBTFUL_PINGS * PING_TIMEOUT + 2 * large.size / PINGS_PER_SECOND
            await asyncio.sleep(4)
        after = int(asyncio.get_running_loop().time()) - 3
        assert max(large.asked.values()) <= (MAX_DOUBTFUL_PINGS + PINGS_PER_SECOND * PING_TIMEOUT + 1) * 4
        assert (
            max(large.asked[second] for second in range(after, after + 3))
            <= (2 * PINGS_PER_SECOND * PING_TIMEOUT + 2) * 4
        ), "all is settled"

    async def test_losing_a_tenth_of_the_workers_is_no_isolation_and_as_fast_as_losing_one(self) -> None:
        large = Large(endpoints=3)
        async with large.running() as reach:
            large.silent = {f"w{n}" for n in range(100)}
            assert await large.seconds_until_out(reach, large.silent) < 5
            assert not reach.lost[1]

    async def test_a_worker_isolated_from_all_others_removes_no_endpoint(self) -> None:
        """Of no service, although each has its only endpoint on another worker, and most have answered just now."""
        large = Large()
        services = tuple(replace(WEB, owner=f"shop/{worker}") for worker in large.there)
        alone = tuple(replace(e, owner=f"shop/{e.worker}") for e in large.seen.endpoints if e.id == "e0")
        large.seen = ClusterView(services, alone)
        async with large.running() as reach:
            large.silent = set(large.there)
            for _ in range(60):
                await asyncio.sleep(0.1)
                lost, isolated = reach.lost
                assert withhold_unreachable(large.seen, lost, isolated=isolated) is large.seen
            assert len(reach.lost[0]) > large.size / 2


class TestTheQuestion:
    async def test_a_worker_answers_under_its_own_name_alone(self) -> None:
        server = await listen_for_pings(RealKey("127.0.0.1", 0), "w2")
        real = RealKey("127.0.0.1", server.sockets[0].getsockname()[1])
        assert [await ping_worker(real, worker) for worker in ("w2", None, "w3", "w2")] == [
            PingResult.ANSWERED,
            PingResult.ANSWERED,
            PingResult.REFUSED,
            PingResult.ANSWERED,
        ]
        server.close()
        await server.wait_closed()
        assert await ping_worker(real, "w2") is PingResult.REFUSED

    async def test_a_timeout_is_silence_unless_this_process_was_too_busy(self) -> None:
        with socket.socket() as full, ExitStack() as waiting:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            place = full.getsockname()
            for _ in range(3):
                sock = waiting.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(place)
            assert await ping_worker(RealKey(*place), None) is PingResult.SILENT
            asking = asyncio.ensure_future(ping_worker(RealKey(*place), None))
            asyncio.get_running_loop().call_later(0.1, time.sleep, PING_TIMEOUT + 0.5)
            assert await asking is None

    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test_an_answer_in_the_socket_buffer_counts_although_it_is_read_late(self, run: Callable[[Any], object]) -> None:
        """It stands still over the end of the question: garbage is collected, or others want the processor."""

        async def stand_still() -> None:
            for worker in ("w2", None):
                asking = asyncio.ensure_future(ping_worker(real, worker))
                await asyncio.sleep(0)
                time.sleep(PING_TIMEOUT + MAX_TIMER_DELAY / 2)
                assert await asking is PingResult.ANSWERED

        real, stop = answering_thread(b"vipmesh w2\n")
        run(stand_still())
        stop()

    async def test_a_connection_without_a_reply_is_mute_and_not_silent(self) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(9)
            place = RealKey(*listening.getsockname())
            assert await ping_worker(place, "w2") is PingResult.MUTE
            assert await ping_worker(place, None) is PingResult.ANSWERED


def answering_thread(said: bytes) -> tuple[RealKey, Callable[[], None]]:
    """It answers while the event loop stands still."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            accepted, _ = listening.accept()
            kept.append(accepted)
            with suppress(OSError):
                accepted.sendall(said)

    kept: list[socket.socket] = []
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def stop() -> None:
        thread.join()
        for sock in [listening, *kept]:
            sock.close()

    return RealKey(*listening.getsockname()), stop
