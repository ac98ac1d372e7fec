"""The page "from compose up to three workers", typed word for word into three hosts with real engines and a real etcd.

What stands in for the reader's world: the hosts are namespaces of one machine, and `busybox` is the image of the tests'
own engines, which have no registry. The token of the swarm is taken from where the page prints it.
"""

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.docs.hosts import Host, host
from tests.docs.pages import ROOT
from tests.docs.test_tutorial import carry_out, steps
from tests.system.docker.fleet_lab import FleetLab, engines_lab

pytestmark = pytest.mark.timeout(900)

PAGE = ROOT / "docs" / "howto" / "from-compose-to-three-workers.md"
PATIENCE = 150.0
"""Seconds until a command shows what the page says: a lost worker is replaced in tens of seconds."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FleetLab]:
    with engines_lab(tmp_path, "busybox") as made:
        yield made


async def test_it_works_as_written(lab: FleetLab, tmp_path: Path) -> None:
    token = ""
    async with AsyncExitStack() as stack:
        hosts: dict[str, Host] = {}
        for worker in lab.workers.values():
            scratch = tmp_path / f"host-{worker.name}"
            hosts[worker.name] = await stack.enter_async_context(
                host(worker.name, worker.prefix, scratch, worker.engine.socket)
            )
        for block, names, shown in steps(PAGE):
            for name in names:
                typed = block._replace(text=block.text.replace("TOKEN", token))
                printed = await carry_out(typed, hosts[name], shown, PATIENCE)
                # `docker swarm init` prints that of workers before.
                token = next(reversed(re.findall(r"SWMTKN-\S+", printed)), token)
