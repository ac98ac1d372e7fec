"""The daemons of the lab: real processes, each in its worker's namespace, with settings and a compose file."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from tests.store.etcd.server import EtcdServer
from tests.system.cluster.lab import CONTAINERS, Lab, underlay
from tests.system.e2e.programs import Program, eventually, vipmesh

SLOW = 600.0
"""Seconds for what a virtual machine does that emulates its processor: there a daemon alone starts for minutes."""

PUBLISHED, PUBLISHED_UDP, LISTEN, LISTEN_UDP = 30080, 30053, 80, 5353
NAME = "web.shop.test"

SETTINGS = """
[node]
name = "w{number}"
[dataplane]
driver = "{driver}"
[dns]
listen = ["127.0.0.1:53"]
upstream = ["127.0.0.1:9"]
[source.compose]
files = ["{directory}/compose.yaml"]
[store]
url = "{store}"
lease_ttl = {ttl}
saved_view = "{directory}/view.json"
[admin]
listen = "unix://{directory}/admin.sock"
"""

COMPOSE = """
name: shop
services:
  web:
    x-endpoints: [{endpoints}]
    labels:
      mesh.routing.port_8080: http://web.shop.test
      mesh.routing.port_8080/udp: udp://web.shop.test:5353
      mesh.routing.publish.port_8080: "30080"
      mesh.routing.publish.port_8080/udp: "30053"
      mesh.probe.url: tcp://container:8080
      mesh.probe.interval_seconds: "{patience}"
      mesh.probe.timeout_seconds: "{patience}"
"""


class Worker:
    """One of them."""

    def __init__(self, lab: Lab, directory: Path, number: int) -> None:
        self.lab = lab
        self.number = number
        self.name = f"w{number}"
        self.address = underlay(number)
        self.directory = directory / self.name
        self.directory.mkdir()
        self.program: Program | None = None
        self._driver = "nftables"

    def configure(self, *, driver: str, store: str, ttl: int = 5, patience: float = 2, more: str = "") -> None:
        self._driver = driver
        settings = SETTINGS.format(number=self.number, driver=driver, directory=self.directory, store=store, ttl=ttl)
        (self.directory / "vipmesh.toml").write_text(settings + more)
        self.offer(self.containers(), patience=patience)

    def containers(self) -> list[str]:
        return [address for name, address in CONTAINERS.items() if name.startswith(str(self.number))]

    def offer(self, endpoints: Sequence[str], more: str = "", patience: float = 2) -> None:
        """This is what the worker runs from now on: endpoints of the service, and `more` services."""
        self.run_compose(COMPOSE.format(endpoints=", ".join(endpoints), patience=patience) + more)

    def run_compose(self, text: str) -> None:
        """This is its compose file from now on."""
        new = self.directory / "compose.new"
        new.write_text(text)
        new.replace(self.directory / "compose.yaml")

    @asynccontextmanager
    async def running(self, code: Path | None = None) -> AsyncIterator[Program]:
        """`code`: a directory with another version; None for this one."""
        settings, prefix = str(self.directory / "vipmesh.toml"), self.lab.inside(self.name)
        if code is not None:
            prefix += ["env", "-C", str(code), f"PYTHONPATH={code}:{code / 'dns'}"]
        async with vipmesh("run", "-c", settings, prefix=prefix) as program:
            self.program = program
            yield program

    async def power_off(self) -> None:
        self.lab.power_off(self.name)
        assert self.program is not None
        await self.program.end(signal.SIGKILL)

    async def status(self) -> dict[str, Any]:
        """Of its admin API; empty while nothing answers."""
        shown: dict[str, Any] = json.loads(await self._told("/v1/status") or "{}")
        return shown

    async def digests(self) -> tuple[str, str]:
        """Of its table, as the status has it and as the metrics have it."""
        (metric,) = re.findall(r"^vipmesh_table_digest ([0-9.e+]+)$", await self._told("/metrics"), re.MULTILINE)
        return str((await self.status()).get("digest")), f"{int(float(metric)):012x}"

    async def _told(self, path: str) -> str:
        connector = aiohttp.UnixConnector(str(self.directory / "admin.sock"))
        async with aiohttp.ClientSession(connector=connector) as session:
            try:
                async with session.get(f"http://worker{path}") as answer:
                    return await answer.text()
            except aiohttp.ClientConnectionError:
                return ""

    async def serving(self) -> frozenset[str]:
        """The addresses of all endpoints that get traffic, as it sees them."""
        return serving(await self.status())

    async def programmed(self) -> frozenset[str]:
        """The addresses of containers that its kernel sends new connections to."""
        if self._driver == "ipvs":
            listed = await self.lab.run(self.name, "ipvsadm", "-Sn")
            found = re.findall(r"-r ([0-9.]+):8080 -m -w [1-9]", listed)
        else:
            listed = await self.lab.run(self.name, "nft", "list", "ruleset")
            # The table of counters has the addresses, too.
            table = listed.partition("table ip vipmesh_lb {")[2].partition("\ntable ")[0]
            found = re.findall(r"([0-9.]+) \. 8080", table)
        return frozenset(found)

    async def greeted(self) -> int:
        """How often others have asked whether it is there."""
        listed = await self.lab.run(self.name, "nstat", "-asz", "TcpPassiveOpens")
        return sum(int(number) for number in re.findall(r"TcpPassiveOpens +([0-9]+)", listed))

    async def vip(self, name: str = NAME) -> str | None:
        shown = await self.status()
        return next((s["vip"] for s in shown.get("services", ()) if s["name"] == name), None)

    async def saved(self) -> dict[str, str]:
        """The records of the last view on its disk."""
        file = self.directory / "view.json"
        records: dict[str, str] = json.loads(file.read_text())["records"] if file.exists() else {}
        return records

    async def resolve(self, name: str = NAME) -> str:
        """What its name server answers."""
        printed = await self.lab.run(self.name, "dig", "+time=5", "+tries=3", "@127.0.0.1", "+short", name)
        # dig prints a comment for each attempt that was not answered in time
        return "\n".join(line for line in printed.splitlines() if not line.startswith(";"))


def serving(shown: dict[str, Any]) -> frozenset[str]:
    return frozenset(e["address"] for s in shown.get("services", ()) for e in s["endpoints"] if e["serving"])


ALL = frozenset(CONTAINERS.values())


async def agree(workers: Sequence[Worker], expected: frozenset[str] = ALL, seconds: float = 60) -> None:
    """Until the kernels of all of them send to exactly these."""

    async def each() -> list[frozenset[str]]:
        return [await worker.programmed() for worker in workers]

    await eventually(each, lambda seen: all(one == expected for one in seen), seconds)


async def asked_endpoints_of(lab: Lab, worker: Worker, others: Sequence[Worker]) -> None:
    """Until each of the others has had an answer of one of the worker's containers."""

    async def askers() -> set[str]:
        return {asker for name, there in lab.askers.items() if name.startswith(str(worker.number)) for asker in there}

    await eventually(askers, lambda seen: seen >= {other.address for other in others})


async def met(workers: Sequence[Worker]) -> None:
    """Until each has asked the others at least once, as their own kernels count the connections."""

    async def each() -> list[int]:
        return [await worker.greeted() for worker in workers]

    await eventually(each, lambda counts: min(counts) >= 2 * len(workers))


async def seconds_until(
    worker: Worker, holds: Callable[[frozenset[str]], bool], since: float, limit: float = 20
) -> tuple[float, float]:
    """How long after `since`, by the loop's clock, the worker's kernel last sent to other endpoints than such.

    That is when the last look began that found it so: what it takes to look is no part of it. A look and the pause
    before it last 0.1 s or so, and the figure is too small by that at most. Beside it the seconds of the slowest look,
    which is one run of nft: it tells how busy the machine is.
    """
    loop = asyncio.get_running_loop()
    looked = [since]

    async def look() -> frozenset[str]:
        looked.append(loop.time())
        return await worker.programmed()

    await eventually(look, holds, limit)
    slowest = max(after - before for before, after in pairwise([*looked[1:], loop.time()]))
    return looked[-2] - since, slowest


@asynccontextmanager
async def all_running(workers: Sequence[Worker], *, at_once: bool = True) -> AsyncIterator[None]:
    """`at_once`: else each when the one before it has programmed its kernel."""
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker.running())
            if not at_once:
                await eventually(worker.programmed, bool, SLOW)
        yield


async def lease_of(worker: str, server: EtcdServer) -> int:
    """0: it has none any more."""
    shown = await asyncio.to_thread(server.ctl, "get", f"/vipmesh/workers/{worker}/daemon", "-w", "json")
    return int(json.loads(shown).get("kvs", [{"lease": 0}])[0]["lease"])
