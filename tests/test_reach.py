"""Asking the other workers: what is asked when, what follows, and the real question over TCP."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from mesh.model import ClusterView, Endpoint, RealKey, Route, Service, Transport
from mesh.peers import Answer
from mesh.reach import EVERY, LATE, RATE, TIMEOUT, Reach, ask, listen

WEB = Service("shop/web", "web.test", (Route("web.test", 80, Transport.TCP, 8080),))
W2, W3, ETCD = RealKey("10.1.0.2", 9781), RealKey("10.1.0.3", 9781), RealKey("10.1.0.10", 2379)
ENDPOINTS = {worker: RealKey(f"10.2.0.{worker[1]}", 8080) for worker in ("w2", "w3")}


@dataclass
class Net:
    """Who is silent, and who was asked."""

    present: dict[str, RealKey] = field(default_factory=lambda: {"w2": W2, "w3": W3})
    silent: set[RealKey] = field(default_factory=set)
    busy: bool = False
    lost_leases: set[str] = field(default_factory=set)
    asked: list[RealKey] = field(default_factory=list)

    def workers(self) -> Mapping[str, RealKey]:
        return self.present

    def unleased(self) -> Collection[str]:
        return self.lost_leases

    def view(self) -> ClusterView:
        return ClusterView((WEB,), tuple(Endpoint("e", "shop/web", w, real.address) for w, real in ENDPOINTS.items()))

    async def question(self, real: RealKey, worker: str | None) -> Answer | None:
        self.asked.append(real)
        assert worker == {W2: "w2", W3: "w3"}.get(real) or len(self.present) > 2
        if self.busy:
            return None
        if real in self.silent:
            await asyncio.sleep(TIMEOUT)
            return Answer.SILENT
        return Answer.ANSWERED

    @asynccontextmanager
    async def running(self, *witnesses: RealKey) -> AsyncIterator[Reach]:
        self.woken = asyncio.Event()
        reach = Reach(self.woken.set, witnesses, self.question)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(reach.run(self))
            yield reach
            task.cancel()

    def open(self, reach: Reach) -> list[str]:
        return [e.worker for e in reach.withheld(self.view()).endpoints if e.drain is None]


@pytest.mark.looptime
class TestRounds:
    async def test_in_quiet_times_only_workers_and_witnesses_are_asked(self) -> None:
        net = Net()
        async with net.running(ETCD):
            await asyncio.sleep(10 * EVERY - 0.01)
        assert len(net.asked) == 30
        assert set(net.asked) == {W2, W3, ETCD}

    async def test_a_loss_is_noticed_in_two_and_a_half_seconds_and_the_end_of_it_at_once(self) -> None:
        net = Net()
        async with net.running() as reach:
            await asyncio.sleep(1.1)
            net.silent = {W3, ENDPOINTS["w3"]}
            begun = asyncio.get_running_loop().time()
            await net.woken.wait()
            assert asyncio.get_running_loop().time() - begun <= 2.5
            assert net.open(reach) == ["w2"]
            assert len(reach.problems()) == 1
            net.woken.clear()
            net.silent.clear()
            begun = asyncio.get_running_loop().time()
            await net.woken.wait()
            assert asyncio.get_running_loop().time() - begun <= EVERY
            assert net.open(reach) == ["w2", "w3"]
            assert reach.problems() == []

    async def test_an_isolated_worker_takes_nothing_away(self) -> None:
        net = Net()
        async with net.running(ETCD) as reach:
            await asyncio.sleep(1.1)
            net.silent = {W2, W3, ETCD, *ENDPOINTS.values()}
            await asyncio.sleep(10)
            assert net.open(reach) == ["w2", "w3"]

    async def test_a_worker_that_is_too_busy_to_ask_takes_nothing_away(self) -> None:
        net = Net()
        async with net.running(ETCD) as reach:
            await asyncio.sleep(1.1)
            net.busy = True
            await asyncio.sleep(10)
            assert net.open(reach) == ["w2", "w3"]
            assert reach.problems() == []

    async def test_the_endpoints_of_a_worker_that_the_store_has_lost_are_asked_in_its_place(self) -> None:
        net = Net()
        async with net.running() as reach:
            await asyncio.sleep(1.1)
            net.lost_leases = {"w3"}
            await net.woken.wait()
            assert (net.open(reach), reach.answers("w3")) == (["w2", "w3"], True)
            assert [problem.subject for problem in reach.problems()] == ["worker w3"]
            net.silent = {ENDPOINTS["w3"]}
            await asyncio.sleep(2.5)
            assert (net.open(reach), reach.answers("w3")) == (["w2"], True)
            net.silent = {W3}
            await asyncio.sleep(2.5)
            assert (net.open(reach), reach.answers("w3")) == (["w2", "w3"], False), "it is dropped as a whole"

    async def test_many_workers_are_asked_more_seldom(self) -> None:
        net = Net({f"w{number}": RealKey(f"10.1.{number % 250}.{number // 250}", 9781) for number in range(5 * RATE)})
        async with net.running():
            await asyncio.sleep(9.9)
        assert len(net.asked) == 10 * RATE

    async def test_a_worker_alone_asks_nobody(self) -> None:
        net = Net({})
        async with net.running(ETCD):
            await asyncio.sleep(10)
        assert net.asked == []


class TestTheQuestion:
    async def test_a_worker_answers_under_its_own_name_alone(self) -> None:
        server = await listen(RealKey("127.0.0.1", 0), "w2")
        real = RealKey("127.0.0.1", server.sockets[0].getsockname()[1])
        assert [await ask(real, worker) for worker in ("w2", None, "w3", "w2")] == [
            Answer.ANSWERED,
            Answer.ANSWERED,
            Answer.REFUSED,
            Answer.ANSWERED,
        ]
        server.close()
        await server.wait_closed()
        assert await ask(real, "w2") is Answer.REFUSED

    async def test_no_answer_and_a_process_that_was_too_busy_to_see_one(self) -> None:
        with socket.socket() as full, ExitStack() as waiting:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            place = full.getsockname()
            for _ in range(3):
                sock = waiting.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(place)
            assert await ask(RealKey(*place), None) is Answer.SILENT
            asking = asyncio.ensure_future(ask(RealKey(*place), None))
            asyncio.get_running_loop().call_later(0.1, time.sleep, TIMEOUT + 0.5)
            assert await asking is None

    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test_what_the_kernel_has_counts_however_late_this_process_looks(self, run: Callable[[Any], object]) -> None:
        """It stands still over the end of the question: garbage is collected, or others want the processor."""

        async def stand_still() -> None:
            for worker in ("w2", None):
                asking = asyncio.ensure_future(ask(real, worker))
                await asyncio.sleep(0)
                time.sleep(TIMEOUT + LATE / 2)
                assert await asking is Answer.ANSWERED

        real, stop = answering_thread(b"vipmesh w2\n")
        run(stand_still())
        stop()

    async def test_who_is_connected_and_says_nothing_is_another_thing_than_who_does_not_answer(self) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(9)
            place = RealKey(*listening.getsockname())
            assert await ask(place, "w2") is Answer.MUTE
            assert await ask(place, None) is Answer.ANSWERED


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
