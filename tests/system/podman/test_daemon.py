"""The daemon on a real Podman: from labels to answers through a VIP, and a stop that drops nothing."""

import asyncio
from pathlib import Path

import pytest

from tests.system.docker.worker import LABELS, worker
from tests.system.e2e.programs import VIPMESH, call
from tests.system.podman.engine import PodmanEngine


@pytest.mark.parametrize("plane", ["userspace", "nftables"])
async def test_stop_by_vipmesh_drops_nothing(podman: PodmanEngine, tmp_path: Path, plane: str) -> None:
    for name in ("web-1", "web-2"):
        await asyncio.to_thread(podman.run, name, labels=LABELS)
    async with worker(podman, tmp_path, plane=plane, drain_timeout=2) as mesh:
        await mesh.serving("web-1", "web-2")
        async with mesh.load(rate=20, long=0) as outcome:
            await mesh.vipmesh("stop", "web-1")
            await mesh.serving("web-2")
        assert outcome.failures == []
        assert sum(outcome.done.values()) > 0


async def test_doctor_says_what_podman_does_not_report(podman: PodmanEngine, tmp_path: Path) -> None:
    settings = tmp_path / "vipmesh.toml"
    settings.write_text(f'[vip]\npool = "127.113.0.0/16"\n[source.docker]\nsocket = "{podman.url}"\n')
    _, said = await call(*VIPMESH, "doctor", "-c", str(settings))
    assert f"{podman.url} answers: Podman 4." in said
    assert "Podman reports a stop only when the container has ended" in said
