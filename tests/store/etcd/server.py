"""Real etcd, one member or several, on free loopback ports: to be killed, frozen and restarted."""

import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typing_extensions import override

from mesh.cluster.records.decode import daemon_session
from mesh.config.etcd_url import EtcdUrl
from mesh.store import Store, StoreError, StoreSnapshot
from mesh.store.etcd import EtcdClient, EtcdStore
from mesh.store.etcd.client import CALL_TIMEOUT, T
from mesh.store.etcd.errors import EtcdUnreachableError
from mesh.store.etcd.messages import RequestBody

CI = os.environ.get("CI") == "true"
_prefixes = itertools.count()


def free_ports(count: int) -> list[int]:
    """Different ones."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class Member:
    """One etcd process."""

    command: list[str]
    url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """As a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # Its threads stop one after the other, and until the last one has it still answers.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@dataclass
class EtcdServer:
    """A cluster of them."""

    members: list[Member]
    directory: Path
    tls: Sequence[str] = field(default=())
    """What etcdctl needs to be let in."""
    inside: Sequence[str] = field(default=())
    """What to put before a command that shall run where the members run."""

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(member.url for member in self.members)

    def fresh(self) -> EtcdUrl:
        """A prefix that no other test has used."""
        return EtcdUrl(self.urls, f"/test{next(_prefixes)}/")

    def start(self, members: Sequence[Member] = ()) -> None:
        for member in members or self.members:
            if member.process is None:
                member.start()
        self.wait()

    def wait(self, seconds: float = 20) -> None:
        """Until a majority answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.ctl("get", "x")
                return
            except AssertionError as error:
                if time.monotonic() > deadline:
                    log = "".join(m.log.read_text()[-2000:] for m in self.members)
                    pytest.fail(f"etcd does not start: {error}\n{log}")
                time.sleep(0.05)

    def ctl(self, *arguments: str, given: str = "") -> str:
        """What etcdctl prints."""
        done = subprocess.run(
            [
                *self.inside,
                "etcdctl",
                "--endpoints",
                ",".join(self.urls),
                "--command-timeout=3s",
                *self.tls,
                *arguments,
            ],
            env={**os.environ, "ETCDCTL_API": "3"},
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def leader(self) -> Member:
        """The member that leads now."""
        for status in json.loads(self.ctl("endpoint", "status", "-w", "json")):
            if status["Status"]["header"]["member_id"] == status["Status"]["leader"]:
                return next(member for member in self.members if member.url == status["Endpoint"])
        pytest.fail("no leader")

    def stop(self) -> None:
        for member in self.members:
            member.kill()


@contextmanager
def etcd(
    directory: Path,
    members: int = 1,
    options: Sequence[str] = (),
    tls: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    inside: Sequence[str] = (),
) -> Iterator[EtcdServer]:
    """A running cluster; with less patience than the default, so that tests are short.

    `inside` goes before its commands, to run them where another host's address is.
    """
    for program in ("etcd", "etcdctl"):
        if shutil.which(program) is None:
            if CI:
                pytest.fail(f"needs {program}: `tests/install-packages`")
            pytest.skip(f"needs {program}; `tests/install-packages` says what to install")
    directory.mkdir(exist_ok=True)
    scheme = "https" if tls else "http"
    ports = list(range(2379, 2379 + 2 * members)) if inside else free_ports(2 * members)
    peers = [f"http://{host}:{port}" for port in ports[members:]]
    cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
    made = []
    for number, peer in enumerate(peers):
        url = f"{scheme}://{host}:{ports[number]}"
        command = [*inside, "etcd", "--name", f"m{number}", "--data-dir", str(directory / f"m{number}")]
        command += ["--listen-client-urls", url, "--advertise-client-urls", url]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster]
        command += ["--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "warn", *options]
        made.append(Member(command, url, directory / f"m{number}.log"))
    server = EtcdServer(made, directory, tls, inside)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class SteeredEtcdClient(EtcdClient):
    """An etcd client that a test steers: which member it asks first, and which requests are lost or slow."""

    def __init__(self, members: tuple[str, ...], first: int | None = None) -> None:
        super().__init__(members)
        self.lost = set[str]()
        """Paths whose next request fails before it is sent."""
        self.delay: dict[str, float] = {}
        """Seconds before a request of that path is sent."""
        self.after: dict[str, Callable[[], None]] = {}
        """To be called when the next answer to a request of that path has come."""
        if first is not None:
            self.ask_first(first)

    def ask_first(self, number: int) -> None:
        """Ask this member next."""
        self._first = number

    def drop_watches(self) -> None:
        """Close the connections of all watches. Nobody iterates: each watch notices when it looks next."""
        for response in list(self._streams):
            response.close()

    @override
    async def call(self, path: str, body: RequestBody, type_: type[T], within: float = CALL_TIMEOUT) -> T:
        await asyncio.sleep(self.delay.get(path, 0))
        if path in self.lost:
            self.lost.discard(path)
            raise EtcdUnreachableError("loses a request", "this is a test")
        answer = await super().call(path, body, type_, within)
        if path in self.after:
            self.after.pop(path)()
        return answer


@asynccontextmanager
async def worker(
    url: EtcdUrl, name: str = "w1", ttl: int = 5, gateway: EtcdClient | None = None
) -> AsyncIterator[EtcdStore]:
    """A store whose lease is kept alive."""
    store = EtcdStore.at(
        url, gateway or EtcdClient(url.members), (f"workers/{name}/", f"health/{name}/"), ttl, daemon_session
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(store.run())
            yield store
            keeping.cancel()
    finally:
        await store.close()


async def until(
    snapshots: AsyncGenerator[StoreSnapshot, None], holds: Callable[[Mapping[str, bytes]], bool], seconds: float = 20
) -> StoreSnapshot:
    """The first snapshot whose records are so."""
    last: object = "nothing"
    try:
        async with asyncio.timeout(seconds):
            async for snapshot in snapshots:
                last = snapshot
                if holds(snapshot.records):
                    return snapshot
    except TimeoutError:
        pass
    pytest.fail(f"after {seconds} s the last was {last}")


async def retried(store: Store, records: dict[str, bytes], seconds: float = 20) -> float:
    """Register as the loop does: again and again. Returns the seconds it took."""
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout(seconds):
        while True:
            try:
                await store.register(records)
            except StoreError:
                await asyncio.sleep(0.1)
            else:
                return asyncio.get_running_loop().time() - begun


@asynccontextmanager
async def following(store: EtcdStore) -> AsyncIterator[list[Mapping[str, bytes]]]:
    """What a watch shows, as it comes."""
    seen: list[Mapping[str, bytes]] = []

    async def follow() -> None:
        async for snapshot in store.watch():
            seen.append(snapshot.records)  # noqa: PERF401 (it is looked at meanwhile)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
        yield seen
        task.cancel()


async def ends_as(seen: list[Mapping[str, bytes]], records: Mapping[str, bytes], seconds: float = 10) -> None:
    """The newest of these is so."""
    async with asyncio.timeout(seconds):
        while not seen or seen[-1] != records:
            await asyncio.sleep(0.02)
