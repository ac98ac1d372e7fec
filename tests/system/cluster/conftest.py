"""Three workers, an etcd and their lab. On nftables; a test that is parametrised with `driver` runs on IPVS as well."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.netns import private_network
from tests.store.etcd.server import EtcdServer, etcd
from tests.system.cluster.lab import ETCD, WORKERS, Lab
from tests.system.cluster.workers import Worker
from tests.system.e2e.programs import CI


@pytest.fixture
def lab() -> Iterator[Lab]:
    for program, package in (
        ("nft", "nftables"),
        ("iptables-restore", "iptables"),
        ("bridge", "iproute2"),
        ("nsenter", "util-linux"),
    ):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") and not CI:
            pytest.skip(f"needs {program}: apt-get install {package}")
    with private_network():
        lab = Lab()
        yield lab
        lab.close()


@pytest.fixture
def driver() -> str:
    """The data plane."""
    return "nftables"


@pytest.fixture
def ttl() -> int:
    """Seconds of a worker's lease."""
    return 5


@pytest.fixture
def members() -> int:
    """Of etcd; a test class may override it."""
    return 1


@pytest.fixture
def server(lab: Lab, members: int, tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path / "etcd", members, host=ETCD, inside=lab.inside("etcd")) as server:
        yield server


@pytest.fixture
def store(server: EtcdServer) -> str:
    """The URL."""
    return "etcd://" + ",".join(url.removeprefix("http://") for url in server.urls) + "/vipmesh"


@pytest.fixture
async def workers(lab: Lab, store: str, driver: str, ttl: int, tmp_path: Path) -> AsyncIterator[list[Worker]]:
    """Not running yet; their containers answer."""
    if driver == "ipvs" and not Path("/proc/net/ip_vs").exists():
        pytest.skip("needs a kernel with IPVS: `make test-ipvs`, or tests/on-ipvs-kernel CMD")
    workers = [Worker(lab, tmp_path, number) for number in WORKERS]
    for worker in workers:
        worker.configure(driver=driver, store=store, ttl=ttl)
    async with lab.answering():
        yield workers
