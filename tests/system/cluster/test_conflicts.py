"""Three workers claim one name, one VIP and one published port at the same instant."""

import asyncio
import re
from contextlib import AsyncExitStack
from functools import partial

import pytest

from tests.system.cluster.workers import Worker
from tests.system.e2e.programs import VIPMESH, call, eventually

pytestmark = pytest.mark.timeout(120)

COMPOSE = """
name: shop{number}
services:
  name:
    x-endpoints: ["10.20.{number}.1"]
    labels:
      mesh.routing.port_8080: http://same.shop.test
  vip:
    x-endpoints: ["10.20.{number}.1"]
    labels:
      mesh.routing.port_8080: http://vip{number}.shop.test
      mesh.routing.vip: 10.112.0.50
  port:
    x-endpoints: ["10.20.{number}.1"]
    labels:
      mesh.routing.port_8080: http://port{number}.shop.test
      mesh.routing.publish.port_8080: "30099"
"""
HELD = (
    r"service shop\d/name: the name same\.shop\.test is held by (shop\d/name);",
    r"service shop\d/vip: the VIP 10\.112\.0\.50 is held by (vip\d\.shop\.test);",
    r"service shop\d/port: the published tcp port 30099 is held by (port\d\.shop\.test);",
)


async def test_each_claim_is_granted_once_and_every_worker_reports_the_holder(workers: list[Worker]) -> None:
    async with AsyncExitStack() as stack:
        running = []
        for worker in workers:
            worker.run_compose("name: shop\nservices: {}\n")
            running.append(await stack.enter_async_context(worker.running()))
        for worker in workers:
            await eventually(worker.status, bool)
        for worker in workers:
            worker.run_compose(COMPOSE.format(number=worker.number))
        for worker in workers:
            await eventually(worker.status, lambda shown: len(shown["problems"]) == 6, 30)

        said = [(await worker.status())["problems"] for worker in workers]
        assert said[0] == said[1] == said[2]
        holders = []
        for pattern in HELD:
            found = [match for line in said[0] if (match := re.search(pattern, line))]
            assert len(found) == 2, pattern
            assert len({match[1] for match in found}) == 1, pattern
            holders.append(found[0][1])
        for program in running:
            for holder in holders:  # logged as each loss is learned, so in any order
                if f"is held by {holder};" not in "".join(program.output):
                    await program.line(re.escape(f"is held by {holder};"))
        # The services are shown after the next pass, which the problems do not wait for.
        await eventually(
            workers[2].status, lambda shown: [each["vip"] for each in shown["services"]].count(None) == 4, 30
        )
        code, text = await call(*VIPMESH, "status", "--admin", f"unix://{workers[2].directory}/admin.sock")
        assert code == 0
        assert text.count("REFUSED") == 4, "two names and two VIPs; a port that is refused leaves the service its VIP"
        # A name resolves after the pass that programs its VIP, which the problems do not wait for.
        same = {await eventually(partial(worker.resolve, "same.shop.test"), bool) for worker in workers}
        assert len(same) == 1
        assert [await eventually(partial(worker.resolve, holders[1]), bool) for worker in workers] == [
            "10.112.0.50"
        ] * 3
        await asyncio.gather(*(program.end() for program in running))
