"""Three workers on loopback with certificates of one cluster: one is asked, and asks the others."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.api.channel.certificates import ChannelCertificates
from mesh.api.channel.https import HttpsWorkerChannel
from mesh.api.channel.worker_channel import ChannelError, ChannelReply
from mesh.api.http import workers as workers_module
from mesh.api.http.past_events import PastEventsHandler
from mesh.api.http.server import AdminListenConfig
from mesh.cli.certs import make_certificates, revoke_certificates
from mesh.model.codes import Code
from mesh.model.credential import CertificateHolder
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent
from mesh.model.table import RealKey
from mesh.store.event_ring import RingBatch, RingLimits
from mesh.testing.channel import FakeDirectory, FakeWorkerChannel
from mesh.testing.event_ring import FakeEventRing
from mesh.testing.log_lines import FakeServiceLogs
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed
from tests.api.http.worker import client, serving, socket_of
from tests.system.e2e.programs import VIPMESH, call, free_port

NAMES = ("w1", "w2", "w3")
POOL = ip_network("10.112.0.0/16")
PATIENCE = 30


def event(text: str, at: float) -> PastEvent:
    return PastEvent(at=at, kind=EventKind.ENDPOINT_GONE, code="VM780", text=text, owner="shop/web", service="web.test")


class Cluster:
    """Workers with their admin APIs; what they know of one another is in the store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemoryCluster()
        self.rings = {name: FakeEventRing(RingLimits(100, 1e10)) for name in NAMES}
        self.workers: dict[str, FakeWorker] = {}
        self.logs = {name: FakeServiceLogs(name) for name in NAMES}

    def of(self, name: str) -> Path:
        return self.directory / name

    async def keeps(self, name: str, *events: PastEvent) -> None:
        await self.rings[name].write(RingBatch(time.time(), events))

    @asynccontextmanager
    async def running(self, *, shown: Mapping[str, str] = {}, certified: bool = True) -> AsyncIterator["Cluster"]:
        """All workers, once each knows the others; `shown`: whose certificate a worker shows instead of its own."""
        holders = [(CertificateHolder(name, is_worker=True), ["127.0.0.1"]) for name in NAMES]
        make_certificates(self.directory / "certs", holders, datetime.now(UTC), 90)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            ran = [
                tasks.create_task(await self._start(stack, name, shown.get(name, name), certified)) for name in NAMES
            ]
            async with asyncio.timeout(PATIENCE):
                while not all(self._is_known(worker) for worker in self.workers.values()):
                    await asyncio.sleep(0.02)
            yield self
            for each in ran:
                each.cancel()

    def _is_known(self, worker: FakeWorker) -> bool:
        others = set(NAMES) - {worker.name}
        return set(worker.loop.peers.others()) == others

    async def _start(self, stack: AsyncExitStack, name: str, shown: str, certified: bool) -> Any:
        self.of(name).mkdir()
        port, certs = free_port(), self.directory / "certs"
        at = RealKey("127.0.0.1", port) if certified else None
        worker = FakeWorker(name, MemoryStore(self.store, name), WorkerBed(POOL), admin=at)
        self.workers[name] = worker
        worker.runs(())
        own = ChannelCertificates(certs / f"{name}.pem", None, certs / "ca.pem") if certified else None
        channel = HttpsWorkerChannel(worker.loop.peers, own)
        stack.push_async_callback(channel.close)
        listen = AdminListenConfig(
            f"unix://{self.of(name)}/admin.sock",
            f"127.0.0.1:{port}",
            cert=certs / f"{shown}.pem",
            client_ca=certs / "ca.pem",
        )
        past = PastEventsHandler(lambda: name, "mesh.internal", self.rings[name])
        observed, logs = worker.loop.snapshots.observe(), self.logs[name]
        await stack.enter_async_context(serving(listen, observed, past=past, channel=channel, logs=logs))
        return worker.run()


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


async def vipmesh(cluster: Cluster, verb: str, *options: str, at: str = "w1") -> tuple[int, str]:
    return await call(*VIPMESH, verb, *options, "--admin", f"unix://{cluster.of(at)}/admin.sock")


async def test_the_status_and_an_explanation_of_another_worker(cluster: Cluster) -> None:
    async with cluster.running():
        for name in NAMES:
            code, text = await vipmesh(cluster, "status", "--worker", name, "--json")
            assert (code, json.loads(text)["worker"]) == (0, name)
        code, text = await vipmesh(cluster, "status", "--worker", "w3")
        assert code == 0
        assert "w3" in text
        code, text = await vipmesh(cluster, "explain", "web.test", "--worker", "w2")
        assert code == 1
        assert "web.test" in text
        code, text = await vipmesh(cluster, "status", "--worker", "w9")
        assert code == 1
        assert text == "vipmesh: worker w9: there is no other worker of that name; there are: w2, w3 [VM673]\n"


async def test_the_events_of_all_workers_by_time(cluster: Cluster) -> None:
    async with cluster.running():
        await cluster.keeps("w1", event("one", 1.0), event("both", 100.0))
        await cluster.keeps("w2", event("two", 2.0), event("both", 101.0))
        await cluster.keeps("w3", event("three", 0.5))
        code, text = await vipmesh(cluster, "events")
        assert code == 0
        lines = [line.split()[2:] for line in text.splitlines()]
        said = [(line[0], line[-2]) for line in lines]
        assert said == [("w3", "three"), ("w1", "one"), ("w2", "two"), ("w1", "both")]
        assert lines[3][1] == "+1", "two workers have noticed the same"
        code, text = await vipmesh(cluster, "events", "shop/web", "--json", at="w2")
        found = json.loads(text)
        assert [(each["worker"], each["number"], each["event"]["text"]) for each in found["events"]] == [
            ("w3", 1, "three"),
            ("w1", 1, "one"),
            ("w2", 1, "two"),
            ("w1", 2, "both"),
            ("w2", 2, "both"),
        ]
        assert [(each["worker"], each["error"], each["clock"]) for each in found["workers"]] == [
            ("w2", None, None),
            ("w1", None, None),
            ("w3", None, None),
        ]
        assert not any(b"three" in value for value in cluster.store.records.values()), "never in the store"
        code, text = await vipmesh(cluster, "events", "--worker", "w3", "--json")
        document = json.loads(text)
        assert [(each["worker"], each["event"]["text"]) for each in document["events"]] == [("w3", "three")]


async def test_the_log_lines_of_all_workers_by_time(cluster: Cluster) -> None:
    for second, name in enumerate(("w2", "w1", "w3", "w2")):
        cluster.logs[name].write(f"line {second}", service="shop/web", second=second)
    cluster.logs["w3"].write("of another", container="db1", service="shop/db")
    async with cluster.running():
        code, text = await vipmesh(cluster, "logs", "shop/web", "--json")
        document = json.loads(text)
        assert code == 0
        assert [(line["text"], line["worker"]) for line in document["lines"]] == [
            ("line 0", "w2"),
            ("line 1", "w1"),
            ("line 2", "w3"),
            ("line 3", "w2"),
        ]
        assert [each["worker"] for each in document["workers"]] == list(NAMES)
        code, text = await vipmesh(cluster, "logs", "web", "--worker", "w3")
        assert (code, text.splitlines()[0].split()[-2:]) == (0, ["line", "2"])
        assert not any(b"line 2" in value for value in cluster.store.records.values()), "never in the store"


async def test_a_worker_that_may_not_be_asked_for_lines_is_named(cluster: Cluster) -> None:
    cluster.logs["w1"].write("of w1")
    cluster.logs["w3"].write("of an impostor", service="shop/web")
    async with cluster.running(shown={"w3": "w2"}):
        code, text = await vipmesh(cluster, "logs", "web")
        assert code == 0
        assert "of w1" in text
        assert "impostor" not in text
        assert "vipmesh: without the lines of web on w3: worker w3: no TLS with its admin API: " in text


async def test_a_worker_that_shows_another_name_is_left_out_and_said(cluster: Cluster) -> None:
    async with cluster.running(shown={"w3": "w2"}):
        await cluster.keeps("w2", event("two", 2.0))
        await cluster.keeps("w3", event("of an impostor", 3.0))
        code, text = await vipmesh(cluster, "events")
        assert code == 0
        assert " two [VM780]" in text
        assert "impostor" not in text
        assert "vipmesh: without the events of w3: worker w3: no TLS with its admin API: " in text
        assert text.rstrip().endswith("[VM674]")
        code, text = await vipmesh(cluster, "status", "--worker", "w3")
        assert code == 1
        assert "[VM674]" in text


async def test_a_revoked_worker_gets_nothing_and_gives_nothing(cluster: Cluster) -> None:
    async with cluster.running():
        assert (await vipmesh(cluster, "status", "--worker", "w3"))[0] == 0
        certs = cluster.directory / "certs"
        copy = (certs / "w3.pem").read_bytes()
        revoke_certificates(certs, ["w3"], datetime.now(UTC))
        (certs / "w3.pem").write_bytes(copy)
        for asks, asked in (("w1", "w3"), ("w3", "w1")):
            code, text = await vipmesh(cluster, "status", "--worker", asked, at=asks)
            assert code == 1
            assert "[VM674]" in text
        assert (await vipmesh(cluster, "status", "--worker", "w2"))[0] == 0


async def test_without_certificates_it_is_this_worker_and_a_line_says_so(cluster: Cluster) -> None:
    async with cluster.running(certified=False):
        await cluster.keeps("w1", event("one", 1.0))
        await cluster.keeps("w2", event("two", 2.0))
        code, text = await vipmesh(cluster, "events")
        assert code == 0
        first, second = text.splitlines()
        assert " one [VM780]" in first
        assert second.startswith("vipmesh: without the events of w2, w3: this worker has no certificate to ask others")
        assert "vipmesh cluster certs" in second
        assert second.endswith("[VM672]")


async def test_following_goes_on_with_events_of_all(cluster: Cluster) -> None:
    async with cluster.running():
        now = time.time()
        await cluster.keeps("w2", event("before", now - 5))
        process = await asyncio.create_subprocess_exec(
            *VIPMESH,
            *("events", "-f", "--json", "--admin", f"unix://{cluster.of('w1')}/admin.sock"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(2 * PATIENCE):
            found = [json.loads(await process.stdout.readline())]
            await cluster.keeps("w3", event("there", now))
            found.append(json.loads(await process.stdout.readline()))
            await cluster.keeps("w1", event("here", now))
            found.append(json.loads(await process.stdout.readline()))
            process.terminate()
            await process.wait()
    assert [(each["worker"], each["event"]["text"]) for each in found] == [
        ("w2", "before"),
        ("w3", "there"),
        ("w1", "here"),
    ]


def fake(*names: str) -> FakeWorkerChannel:
    return FakeWorkerChannel(FakeDirectory({name: RealKey("192.0.2.9", 9780) for name in names}))


async def all_events(directory: Path, channel: FakeWorkerChannel, query: str = "") -> Any:
    listen, past = socket_of(directory), PastEventsHandler(lambda: "w1")
    async with (
        serving(listen, past=past, channel=channel),
        client(directory) as session,
        session.get(f"/v1/events/past?workers=all{query}") as answer,
    ):
        assert answer.status == 200
        return await answer.json()


async def test_each_worker_that_fails_is_named_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel, path = fake("w2", "w3", "w4", "w5"), "/v1/events/past"
    channel.answers["w2", path] = ChannelReply(json.dumps({"worker": "w2", "now": time.time() + 3600}).encode())
    channel.hung.add("w3")
    channel.answers["w4", path] = ChannelReply(b"[]")
    channel.failures["w5", path] = ChannelError(Code.CHANNEL_TLS, "worker w5: no TLS")
    document = await all_events(tmp_path, channel)
    said = {each["worker"]: (each["code"], each["clock"]) for each in document["workers"]}
    assert said == {
        "w1": (None, None),
        "w2": (None, pytest.approx(3600, abs=PATIENCE)),
        "w3": ("VM676", None),
        "w4": ("VM676", None),
        "w5": ("VM674", None),
    }
    monkeypatch.setattr(workers_module, "EVENTS_DEADLINE", 0.0)
    late = await all_events(tmp_path, channel)
    assert [each["code"] for each in late["workers"]] == [None, "VM676", "VM676", "VM676", "VM676"]


async def test_an_exception_about_one_worker_leaves_the_others(tmp_path: Path) -> None:
    channel, path = fake("w2", "w3"), "/v1/events/past?of=web.test&since=-60.0"
    channel.answers["w2", path] = ChannelReply(json.dumps({"worker": "w2", "now": time.time()}).encode())
    channel.failures["w3", path] = LookupError("unexpected")  # type: ignore[assignment]
    document = await all_events(tmp_path, channel, "&of=web.test&since=-60")
    assert [each["code"] for each in document["workers"]] == [None, None, "VM751"]


async def test_the_newest_events_are_those_of_all_workers_together(tmp_path: Path) -> None:
    channel = fake("w2", "w3")
    for worker, at in (("w2", 1.0), ("w3", 2.0)):
        kept = [
            NumberedEvent(number, PastEvent(at=at + 10 * number, kind=EventKind.GAP, code="VM787", text=worker))
            for number in (1, 2, 3)
        ]
        body = json.dumps({"worker": worker, "now": time.time(), "events": msgspec.to_builtins(kept)}).encode()
        # A worker of an earlier version sends all of them.
        channel.answers[worker, "/v1/events/past?last=3"] = ChannelReply(body)
    document = await all_events(tmp_path, channel, "&last=3")
    assert [each["event"]["at"] for each in document["events"]] == [22, 31, 32]
    assert document["dropped"] == 0


async def test_no_worker_is_made_to_ask_a_third(tmp_path: Path) -> None:
    channel = fake("w2")
    channel.answers["w2", "/v1/events/past"] = ChannelReply(b'{"worker": "w2", "now": 1}')
    async with serving(socket_of(tmp_path), channel=channel), client(tmp_path) as session:
        async with session.get("/v1/workers/w2/events/past?workers=all&x=%0d%0a") as answer:
            assert answer.status == 200
        for path in ("workers/w2/status/..%2f..%2fdrain", "workers/w2/drain", "workers/w2/workers/w1/status"):
            async with session.get(f"/v1/{path}") as answer:
                assert answer.status == 404
        async with session.post("/v1/workers/w2/status") as answer:
            assert answer.status == 405
    assert channel.asked == [("w2", "/v1/events/past")]
