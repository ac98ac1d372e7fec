"""Hostile labels on a real engine: each is refused with a reason, and other services continue."""

import asyncio
import re
from pathlib import Path

from tests.system.docker.engine import Engine
from tests.system.docker.worker import worker
from tests.system.e2e.programs import call, eventually, status

GOOD = {"mesh.routing.port_80": "good.test"}
HOSTILE = {
    "huge": {"mesh.routing.port_80": "x" * 60_000},
    "control": {"mesh.routing.port_80": "a\x1b[31m\nfake.test\x00".replace("\x00", "")},
    "thief": {
        "mesh.routing.port_80": "good.test",
        "com.docker.compose.project": "evil",
        "com.docker.compose.service": "x",
    },
    "outside": {"mesh.routing.port_80": "outside.test", "mesh.routing.vip": "8.8.8.8"},
    "many": {f"mesh.routing.port_{number}": f"n{number}.test" for number in range(1, 10_001)},
    "path": {**GOOD, "com.docker.compose.project": "../../workers", "com.docker.compose.service": "w1"},
}
SAYS = {
    "huge": "container huge: it has 1 labels of the mesh, or one of them is too long",
    "control": "container control: error: service control, label mesh.routing.port_80: ",
    "thief": "good.test",
    "outside": "service outside.test, label mesh.routing.vip: 8.8.8.8 is outside the VIP pool",
    "many": "container many: it has 10000 labels of the mesh",
    "path": "container path: its project or service name '../../workers' is not valid",
}


async def test_each_hostile_label_is_refused_with_a_reason_and_a_valid_service_serves(
    engine: Engine, tmp_path: Path
) -> None:
    await asyncio.to_thread(engine.run, "good", "--init", labels=GOOD)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving("good")
        vip = await mesh.vip()
        for name, labels in HOSTILE.items():
            file = tmp_path / "labels"
            file.write_text("".join(f"{key}={value}\n" for key, value in labels.items()))
            flags = ("--label-file", str(file)) if name == "many" else ()
            given = {} if flags else labels
            await asyncio.to_thread(engine.run, name, "--init", *flags, labels=given)
        shown = await eventually(
            lambda: status(mesh.admin), lambda s: all(any(t in p for p in s["problems"]) for t in SAYS.values()), 20
        )
        assert not any("\x1b" in problem or "\n" in problem for problem in shown["problems"])
        assert all(len(problem) < 600 for problem in shown["problems"])
        _, said = await call(
            "curl", "-s", "--unix-socket", mesh.admin.removeprefix("unix://"), "http://vipmesh/metrics"
        )
        counted = [int(count) for count in re.findall(r"^vipmesh_problems{.*} (\d+)$", said, re.MULTILINE)]
        assert sum(counted) == len(shown["problems"])
        services = {service["owner"]: service for service in shown["services"]}
        assert services["docker/good.test"]["vip"] == vip
        assert [e["name"] for e in services["docker/good.test"]["endpoints"] if e["serving"]] == ["good"]
        assert services["evil/x"]["vip"] is None, "who comes second with a name gets nothing"
        async with mesh.load(rate=50, long=0) as outcome:
            await asyncio.sleep(1)
        assert outcome.failures == []
