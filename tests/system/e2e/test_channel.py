"""Three daemons on one etcd, with certificates of `vipmesh cluster certs`: any of them leads to all."""

import json
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.store.etcd.server import EtcdServer, etcd
from tests.system.e2e.programs import VIPMESH, Program, call, eventually, free_port, vipmesh

NAMES = ("w1", "w2", "w3")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path / "etcd") as server:
        yield server


def settings(server: EtcdServer, directory: Path, name: str) -> Path:
    """The settings of a worker without containers."""
    (directory / name).mkdir()
    (directory / name / "compose.yaml").write_text("name: shop\nservices: {}\n")
    file = directory / name / "vipmesh.toml"
    file.write_text(
        f"""
        [node]
        name = "{name}"
        [vip]
        pool = "127.113.0.0/16"
        [dataplane]
        driver = "userspace"
        [dns]
        listen = ["127.0.0.1:{free_port()}"]
        upstream = ["127.0.0.1:{free_port()}"]
        resolver = "off"
        [peers]
        listen = "off"
        [store]
        url = "etcd://{server.urls[0].removeprefix("http://")}/vipmesh"
        saved_view = "{directory}/{name}/view.json"
        lease_ttl = 60  # a worker that hangs stays known
        [admin]
        listen = "unix://{directory}/{name}/admin.sock"
        tcp = "127.0.0.1:{free_port()}"
        cert = "{directory}/certs/{name}.pem"
        client_ca = "{directory}/certs/ca.pem"
        [source.compose]
        files = ["{directory}/{name}/compose.yaml"]
        """
    )
    return file


async def test_any_worker_leads_to_all(server: EtcdServer, tmp_path: Path) -> None:
    admin = ("--admin", f"unix://{tmp_path}/w1/admin.sock")
    code, output = await call(
        *VIPMESH, "cluster", "certs", *(f"{name}=127.0.0.1" for name in NAMES), "--directory", f"{tmp_path}/certs"
    )
    assert code == 0, output

    async def events() -> dict[str, Any]:
        code, output = await call(*VIPMESH, "events", "--json", *admin)
        assert code == 0, output
        found: dict[str, Any] = json.loads(output)
        return found

    def all_started(found: dict[str, Any]) -> bool:
        started = {each["worker"] for each in found["events"] if each["event"]["kind"] == "daemon-started"}
        return started == set(NAMES) and not any(each["error"] for each in found["workers"])

    async with AsyncExitStack() as stack:
        daemons: dict[str, Program] = {}
        for name in NAMES:
            file = settings(server, tmp_path, name)
            daemons[name] = await stack.enter_async_context(vipmesh("run", "-c", str(file)))
        for daemon in daemons.values():
            await daemon.line("data plane userspace")
        await eventually(events, all_started, seconds=60)
        assert '"admin":"127.0.0.1:' in server.ctl("get", "--prefix", "/vipmesh/workers/w2/daemon")
        for name in NAMES:
            code, output = await call(*VIPMESH, "status", "--worker", name, "--json", *admin)
            assert (code, json.loads(output)["worker"]) == (0, name)

        daemons["w3"].send(signal.SIGSTOP)
        code, output = await call(*VIPMESH, "status", "--worker", "w3", *admin)
        assert code == 1
        assert "worker w3: no answer within 3 s" in output
        assert output.rstrip().endswith("[VM676]")
        code, output = await call(*VIPMESH, "events", *admin)
        assert code == 0
        assert "vipmesh: without the events of w3: worker w3: no answer within 3 s" in output
        assert " w2 " in output
        daemons["w3"].send(signal.SIGCONT)
        await eventually(events, all_started, seconds=60)
        for daemon in daemons.values():
            assert await daemon.end() == 0
