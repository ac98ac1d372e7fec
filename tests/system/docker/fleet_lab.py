"""Three engines in one swarm, an etcd and three daemons, each host in a network namespace, on one underlay:

    containers 172.21.0.0/24 -- docker0 -- w1 - 10.9.0.1 --.
    containers 172.22.0.0/24 -- docker0 -- w2 - 10.9.0.2 --+-- switch -- 10.9.0.254 etcd
    containers 172.23.0.0/24 -- docker0 -- w3 - 10.9.0.3 --'

All three engines are managers of the swarm; each worker is a zone of its own (`node.labels.az`). Docker's own rules of
the packet filter are in force, and packets on bridges pass them. Workers reach each other's instances at the ports that
the engines publish.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns import Namespace, run_command
from tests.store.etcd.server import etcd
from tests.system.docker.engine import Engine, missing, root_archive
from tests.system.docker.worker import Outcome, load
from tests.system.e2e.programs import VIPMESH, call, eventually
from tests.system.ipvs.endpoints import filter_bridged

NUMBERS = (1, 2, 3)
ETCD = "10.9.0.254"
IMAGE = "test_service"
START = 'CMD ["sh", "-c", "trap \'exit 0\' TERM; httpd -f -p 80 -h /www & wait"]'
PATIENCE = 150
"""Seconds in which a state must come, on a machine that runs twenty busy processes, too."""

_REQUEST = 60.0
"""Seconds after which a request has failed: such a machine may stand still for more than ten."""
_IN_FLIGHT = 2.0
"""Seconds that a short request takes at most, on such a machine."""


def lacking() -> str | None:
    """Return what a test with this lab lacks here; None: nothing."""
    return missing() or next((f"needs {p}" for p in ("etcd", "curl") if shutil.which(p) is None), None)


class FleetWorker:
    """One host: its engine and its daemon."""

    def __init__(self, number: int, namespace: Namespace, directory: Path) -> None:
        self.number = number
        self.name = f"w{number}"
        self.address = f"10.9.0.{number}"
        self.directory = directory
        self.engine = Engine(namespace, subnet=f"172.2{number}.0.1/24", host=self.name)
        self.admin = f"unix://{directory}/admin{number}.sock"
        self.log = directory / f"daemon{number}.log"
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        """What goes before a command that runs on this host."""
        return self.engine.inside

    def settings(self) -> Mapping[str, str]:
        return {
            "VIPMESH_NODE_NAME": self.name,
            "VIPMESH_NODE_ADDRESS": self.address,
            "VIPMESH_VIP_POOL": "10.113.0.0/16",
            "VIPMESH_DATAPLANE_DRIVER": "nftables",
            "VIPMESH_DATAPLANE_DRAIN_TIMEOUT": "15",
            "VIPMESH_DNS_LISTEN": "127.0.0.1:5353",
            "VIPMESH_DNS_UPSTREAM": "127.0.0.1:5354",
            "VIPMESH_STORE_URL": f"etcd://{ETCD}:2379/vipmesh",
            "VIPMESH_STORE_SAVED_VIEW": f"{self.directory}/view{self.number}.json",
            "VIPMESH_ADMIN_LISTEN": self.admin,
            "VIPMESH_SOURCE_DOCKER_SOCKET": self.engine.url,
        }

    def environment(self) -> Mapping[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("VIPMESH_")}
        return {**clean, **self.settings(), "PYTHONUNBUFFERED": "1"}

    def start_daemon(self) -> None:
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self.prefix, *VIPMESH, "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.environment()),
            )

    def wait_for_daemon(self) -> None:
        """Return when the daemon routes."""
        deadline = time.monotonic() + PATIENCE
        while "data plane nftables" not in self.log.read_text():
            ended = self._daemon is None or self._daemon.poll() is not None or time.monotonic() > deadline
            assert not ended, self.log.read_text()
            time.sleep(0.1)

    def end_daemon(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
            self._daemon = None

    def close(self) -> None:
        self.end_daemon()
        subprocess.run(self.engine.command("swarm", "leave", "--force"), capture_output=True, check=False, timeout=90)
        self.engine.close()

    def command(self, verb: str, *arguments: str) -> tuple[str, ...]:
        """Return a verb of vipmesh as it is typed on this host."""
        settings = (f"{name}={value}" for name, value in self.settings().items())
        return ("env", *settings, *self.prefix, *VIPMESH, verb, "--admin", self.admin, *arguments)

    async def vipmesh(self, verb: str, *arguments: str, status: int | None = 0) -> str:
        """Return the output of a verb, which must end with this status; None: with any."""
        code, output = await call(*self.command(verb, *arguments), seconds=400)
        assert status in (None, code), f"status {code}\n{output}"
        return output

    async def document(self, verb: str, *arguments: str, status: int | None = 0) -> dict[str, Any]:
        """Return what a verb prints as JSON, without what it says on standard error."""
        process = await asyncio.create_subprocess_exec(
            *self.command(verb, *arguments, "--json"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(400):
            printed, errors = await process.communicate()
        assert status in (None, process.returncode), f"{printed.decode()}{errors.decode()}"
        found: dict[str, Any] = json.loads(printed)
        return found

    async def service(self, name: str) -> dict[str, Any]:
        """Return one service as `ps --json` shows it; empty if it is not there, or nothing answers."""
        listed = await self.document("ps", name, status=None)
        found: dict[str, Any] = next(iter(listed.get("services", ())), {})
        return found

    async def serving(self, name: str) -> list[str]:
        """Return the worker of each endpoint of a routing name that takes connections, as this daemon sees it."""
        listed = await self.document("status", status=None)
        return sorted(
            endpoint["worker"]
            for service in listed.get("services", ())
            if name in str(service["names"])
            for endpoint in service["endpoints"]
            if endpoint["serving"]
        )

    async def vip(self, name: str) -> str:
        """Return the VIP of a routing name."""
        listed = await self.document("status")
        return str(next(each["vip"] for each in listed["services"] if name in str(each["names"])))

    @asynccontextmanager
    async def load(self, name: str, *, rate: float = 30, long: int = 0) -> AsyncIterator[Outcome]:
        """Load on the VIP of a routing name, from this host, while the block runs."""
        async with load(self.prefix, await self.vip(name), rate=rate, long=long, patience=_REQUEST) as outcome:
            yield outcome


class FleetLab:
    """The hosts and the switch between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._switch, self._etcd = Namespace(), Namespace()
        self._switch.ip("link set lo up", "link add under type bridge", "link set under up")
        self._plug("etcd", self._etcd, ETCD)
        self.workers: dict[int, FleetWorker] = {}
        for number in NUMBERS:
            namespace = Namespace()
            self._plug(f"w{number}", namespace, f"10.9.0.{number}")
            # Docker looks for a default route when it joins a swarm.
            namespace.ip(f"route add default via {ETCD}")
            with namespace.entered():
                filter_bridged("1")
            self.workers[number] = FleetWorker(number, namespace, directory)

    def _plug(self, name: str, there: Namespace, address: str) -> None:
        self._switch.ip(
            f"link add s-{name} type veth peer name eth0 netns {there.path}",
            f"link set s-{name} master under",
            f"link set s-{name} up",
        )
        there.ip("link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up")

    @contextmanager
    def engines(self, image: str) -> Iterator[None]:
        """All engines run and have the image, and are in no swarm, while the block runs."""
        with ExitStack() as stack:
            stack.callback(self._close)
            with ThreadPoolExecutor(len(NUMBERS)) as pool:
                list(pool.map(lambda number: self.workers[number].engine.start(), NUMBERS))
            self._give_image(image)
            yield

    @contextmanager
    def running(self, *, daemons: bool = True) -> Iterator[None]:
        """All engines are in one swarm and have the image, and every daemon runs, while the block runs."""
        inside = ["nsenter", f"--net={self._etcd.path}"]
        with ExitStack() as stack:
            stack.callback(self._close)
            stack.enter_context(etcd(self.directory / "etcd", host=ETCD, inside=inside))
            with ThreadPoolExecutor(len(NUMBERS)) as pool:
                list(pool.map(lambda number: self.workers[number].engine.start(), NUMBERS))
            self._join()
            started = list(self.workers.values()) if daemons else []
            for worker in started:
                worker.start_daemon()
            self._give_image(IMAGE)
            for worker in started:
                worker.wait_for_daemon()
            yield

    def _give_image(self, image: str) -> None:
        first = self.workers[1].engine
        first.docker("import", "--change", START, "-", image, given=root_archive())
        archive = first.image_archive(image)
        for number in NUMBERS[1:]:
            self.workers[number].engine.docker("load", given=archive)

    def _join(self) -> None:
        first = self.workers[1].engine
        first.docker("swarm", "init", "--advertise-addr", "10.9.0.1", "--dispatcher-heartbeat", "2s")
        token = first.docker("swarm", "join-token", "-q", "manager")
        for number in NUMBERS[1:]:
            engine = self.workers[number].engine
            engine.docker("swarm", "join", "--token", token, "10.9.0.1:2377", seconds=120)
        for number in NUMBERS:
            first.docker("node", "update", "--label-add", f"az=z{number}", f"w{number}")

    def _close(self) -> None:
        with ThreadPoolExecutor(len(NUMBERS)) as pool:
            list(pool.map(FleetWorker.close, self.workers.values()))
        self._switch.close()
        self._etcd.close()

    # ---------------------------------------------------------------------------------------------- faults

    def cut(self, number: int) -> None:
        """The switch forwards nothing from or to this host; its own link stays up, as with a broken switch."""
        self._bridge_port(number, "0")

    def heal(self, number: int) -> None:
        self._bridge_port(number, "3")

    def _bridge_port(self, number: int, state: str) -> None:
        with self._switch.entered():
            run_command("bridge", "link", "set", "dev", f"s-w{number}", "state", state)

    # ---------------------------------------------------------------------------------------------- states

    def client_socket(self) -> socket.socket:
        """Return a socket that does not block, on a host that is no worker."""
        with self._etcd.entered():
            sock = socket.socket()
        sock.setblocking(False)
        return sock

    async def nodes(self, number: int) -> dict[str, str]:
        """Return the status of each node with its role in the swarm, as one engine sees it: `Ready Leader`."""
        shown = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"
        code, printed = await call(*self.workers[number].engine.command("node", "ls", "--format", shown), seconds=200)
        lines = [line for line in printed.splitlines() if line.startswith("w")]
        return {} if code else {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}

    async def containers(self, number: int) -> list[str]:
        """Return the containers that run on one host, as its engine has them."""
        return (await self.workers[number].engine.adocker("ps", "-q")).split()

    async def all_containers(self) -> list[str]:
        """Return the containers that run on all hosts."""
        return [container for number in NUMBERS for container in await self.containers(number)]

    async def leader(self, number: int) -> int:
        """Return the number of the leader, as one engine sees it; 0 if there is none."""
        return next((int(name[-1]) for name, state in (await self.nodes(number)).items() if "Leader" in state), 0)

    async def whole(self) -> None:
        """Wait until all nodes are ready and reachable, so that any one may be cut."""
        for number in NUMBERS:

            async def nodes(number: int = number) -> dict[str, str]:
                return await self.nodes(number)

            await eventually(nodes, _is_whole, PATIENCE)


def _is_whole(nodes: Mapping[str, str]) -> bool:
    states = list(nodes.values())
    return len(states) == len(NUMBERS) and all(state in ("Ready Leader", "Ready Reachable") for state in states)


def failed_after(outcome: Outcome, *cuts: float) -> Sequence[str]:
    """Return the failures of requests, without those that were in flight at a cut: these nobody can save.

    Each begins with the seconds from the first cut to the beginning of its request.
    """
    began = {failure: float(failure.split()[0]) for failure in outcome.failures}
    return [
        f"{moment - cuts[0]:+.1f} s: {failure}"
        for failure, moment in began.items()
        if not any(cut - _IN_FLIGHT < moment < cut for cut in cuts)
    ]


@contextmanager
def fleet_lab(directory: Path, *, daemons: bool = True) -> Iterator[FleetLab]:
    """The lab while it runs. Skips where there can be none."""
    reason = lacking()
    if reason is not None:
        pytest.skip(reason)
    lab = FleetLab(directory)
    with lab.running(daemons=daemons):
        yield lab


@contextmanager
def engines_lab(directory: Path, image: str) -> Iterator[FleetLab]:
    """The hosts with their engines alone, which are in no swarm yet. Skips where there can be none."""
    reason = lacking()
    if reason is not None:
        pytest.skip(reason)
    lab = FleetLab(directory)
    with lab.engines(image):
        yield lab
