"""Usage of real containers: found by the process that a real engine tells, read from the cgroup files of this host."""

import asyncio
from pathlib import Path

from mesh.model.codes import Code
from mesh.platform.autoscaling.cgroup_reader import CgroupReader
from mesh.platform.autoscaling.usage_records import decode_usage
from mesh.platform.autoscaling.usage_sampler import MeasuredContainer, UsageSampler
from mesh.sources.docker.networks import read_process
from tests.store.etcd.server import etcd
from tests.system.docker.engine import Engine
from tests.system.docker.worker import LABELS, worker
from tests.system.e2e.programs import eventually

OWNER = "shop/web"
MEBIBYTE = 1 << 20


async def test_a_busy_container_is_at_its_limit_and_an_idle_one_is_not(engine: Engine) -> None:
    limits = ("--cpus", "0.2", "--memory", "64m")
    busy = engine.run("busy", *limits, command=("sh", "-c", "while :; do :; done"))
    idle = engine.run("idle", *limits, command=("sleep", "600"))
    measured = []
    for id in (busy, idle):
        found = await read_process(engine.url, id.strip()[:12])
        assert found is not None
        measured.append(MeasuredContainer(found[0], OWNER, found[1], "first"))
    sampler = UsageSampler(CgroupReader(), "run", 0)
    loop = asyncio.get_running_loop()
    sampler.sample(measured, loop.time())
    assert sampler.unreadable == (), Path(f"/proc/{measured[0].pid}/cgroup").read_text()
    await asyncio.sleep(3)  # what is measured is time
    usage = {each.id: each for each in sampler.sample(measured, loop.time()).services[OWNER]}
    first, second = (usage[each.id] for each in measured)
    assert (first.cpu_limit, first.memory_limit) == (200, 64 * MEBIBYTE)
    assert first.cpu is not None
    assert second.cpu is not None
    assert second.cpu < 20 <= first.cpu <= 260, "a busy host leaves less than the limit, and never much more"
    assert second.memory is not None
    assert 0 < second.memory < 64 * MEBIBYTE


async def test_a_container_that_is_gone_has_no_process(engine: Engine) -> None:
    assert await read_process(engine.url, "f" * 12) is None


async def test_the_daemon_tells_the_usage_of_scaled_containers_beside_the_records_of_the_cluster(
    engine: Engine, tmp_path: Path
) -> None:
    with etcd(tmp_path / "etcd", inside=engine.inside) as server:
        url = server.urls[0].replace("http://", "etcd://")
        async with worker(
            engine,
            tmp_path,
            VIPMESH_STORE_URL=f"{url}/vipmesh",
            VIPMESH_STORE_SAVED_VIEW=f"{tmp_path}/view.json",
            VIPMESH_SOURCE_DOCKER_ENDPOINT_ADDRESS="container",
        ) as running:
            scaled = engine.run("web-1", labels={**LABELS, "mesh.auto_scaling.max_cpu": "70"})
            engine.run("other", labels={"mesh.routing.port_80": "other.test"})
            await running.serving("web-1", "other")

            async def told() -> str:
                return await asyncio.to_thread(server.ctl, "get", "--print-value-only", "/vipmesh.usage/usage/w1")

            usage = decode_usage((await eventually(told, lambda text: "[" in text, 60)).encode())
            assert usage is not None
            assert [[each.id for each in found] for found in usage.services.values()] == [[scaled.strip()]]
            shown = await asyncio.to_thread(server.ctl, "get", "--prefix", "--keys-only", "/vipmesh/")
            assert "usage" not in shown
            assert Code.USAGE_UNREADABLE.value not in await running.vipmesh("status")
