"""`vipmesh run`: VIPs that survive kill -9, reload, refusals at the start, `status` and `check`."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.e2e.programs import VIPMESH, call, eventually, free_port, status, vipmesh

COMPOSE = """
name: shop
services:
  web:
    labels:
      mesh.routing.port_80: http://web.shop.test:8000
    x-endpoints: ["127.0.0.21:{port}"]
  late:
    labels:
      - aliyun.routing.port_80=late:8001
    x-endpoints: [127.0.0.22]
"""


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    """Writes settings for a worker on loopback; the compose file is `compose.yaml` beside them."""

    def write(pool: str = "127.113.0.0/16") -> Path:
        (tmp_path / "compose.yaml").write_text(COMPOSE.format(port=free_port()))
        settings = tmp_path / "vipmesh.toml"
        settings.write_text(
            f"""
            [node]
            name = "w1"
            [vip]
            pool = "{pool}"
            [dataplane]
            driver = "userspace"
            [dns]
            listen = ["127.0.0.1:{free_port()}"]
            upstream = ["127.0.0.1:{free_port()}"]
            [store]
            url = "sqlite:///{tmp_path}/state/store.db"
            [admin]
            listen = "unix://{tmp_path}/run/admin.sock"
            [source.compose]
            files = ["{tmp_path}/compose.yaml"]
            """
        )
        return settings

    return write


async def test_a_vip_survives_kill_9_and_the_status_socket_is_private(
    configured: Callable[..., Path], tmp_path: Path
) -> None:
    settings = configured()
    admin = f"unix://{tmp_path}/run/admin.sock"
    vips, code = [], None
    for number in (signal.SIGKILL, signal.SIGTERM):
        async with vipmesh("run", "-c", str(settings)) as daemon:
            await daemon.line(r"data plane userspace: asked for by \[dataplane\] driver; dns on 127\.0\.0\.1:\d+")
            shown = await eventually(
                lambda: status(admin), lambda s: len([v for v in s["services"] if v["virtual_servers"]]) == 2
            )
            vips.append({service["name"]: service["vip"] for service in shown["services"]})
            assert (tmp_path / "run" / "admin.sock").stat().st_mode & 0o777 == 0o660
            code = await daemon.end(number)
    assert vips[0] == vips[1]
    assert set(vips[0]) == {"web.shop.test", "late.mesh.internal"}
    assert code == 0, "SIGTERM is a clean end"


async def test_a_changed_file_is_followed_and_a_broken_one_freezes_the_last_state(
    configured: Callable[..., Path], tmp_path: Path
) -> None:
    settings = configured()
    admin = f"unix://{tmp_path}/run/admin.sock"
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane userspace")
        await eventually(lambda: status(admin), lambda s: len(s["services"]) == 2)
        (tmp_path / "compose.yaml").write_text(
            "name: shop\nservices:\n  web:\n    labels: {mesh.routing.port_80: 'web.shop.test:8000'}\n"
            "    x-endpoints: [127.0.0.21, 127.0.0.22]\n"
        )
        await eventually(lambda: status(admin), lambda s: [len(v["endpoints"]) for v in s["services"]] == [2])
        (tmp_path / "compose.yaml").write_text("services: [")
        shown = await eventually(lambda: status(admin), lambda s: bool(s["frozen"]))
        assert "compose.yaml" in shown["frozen"][0]
        assert [len(v["endpoints"]) for v in shown["services"]] == [2]
        await daemon.end()


async def test_a_second_daemon_on_the_same_store_refuses(configured: Callable[..., Path]) -> None:
    settings = configured()
    async with vipmesh("run", "-c", str(settings)) as first:
        await first.line("data plane userspace")
        code, output = await call(*VIPMESH, "run", "-c", str(settings))
        assert code == 1
        assert "store.db" in output
        assert "Traceback" not in output
        assert await first.end() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: needs root")
async def test_a_start_with_a_pool_that_overlaps_serves_names_and_withholds_vips(
    configured: Callable[..., Path], tmp_path: Path
) -> None:
    settings = configured(pool="10.112.0.0/16")
    script = (
        "ip link set lo up && ip link add v0 type veth peer name v1 && ip addr add 10.112.3.1/16 dev v0 && "
        'ip link set v0 up && exec "$@"'
    )
    admin = f"unix://{tmp_path}/run/admin.sock"
    async with vipmesh("run", "-c", str(settings), prefix=("unshare", "--net", "sh", "-c", script, "sh")) as daemon:
        await daemon.line(r"dns on 127\.0\.0\.1:\d+$")
        shown = await eventually(lambda: status(admin), lambda s: len(s["problems"]) > 1)
        assert "overlaps address 10.112.3.1/16 dev v0, route 10.112.0.0/16 dev v0 of this host" in shown["problems"][0]
        assert 'set [vip] pool = "10.113.0.0/16", which this host does not use' in shown["problems"][0]
        assert [service["virtual_servers"] for service in shown["services"]] == [[], []]
        assert all("is not bound on this worker" in problem for problem in shown["problems"][1:])
        assert await daemon.end() == 0


async def test_status_without_a_daemon_has_a_remedy(tmp_path: Path) -> None:
    code, output = await call(*VIPMESH, "status", "--admin", f"unix://{tmp_path}/none.sock")
    assert code == 1
    assert "no daemon answers" in output
    assert "vipmesh run" in output


async def test_a_wrong_setting_ends_the_start_with_every_problem(tmp_path: Path) -> None:
    settings = tmp_path / "vipmesh.toml"
    settings.write_text("[dns]\nttl = 0\nlissten = 1\n")
    code, output = await call(*VIPMESH, "run", "-c", str(settings))
    assert code == 1
    assert output.count("\n") == 2
    assert "did you mean [dns] listen?" in output


async def test_an_address_in_use_is_named(configured: Callable[..., Path]) -> None:
    port = free_port()
    settings = configured()
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", port)
    async with server:
        code, output = await call("env", f"VIPMESH_DNS_LISTEN=127.0.0.1:{port}", *VIPMESH, "run", "-c", str(settings))
    assert code == 1
    assert f"127.0.0.1:{port}" in output
    assert "[dns] listen" in output
    assert "Traceback" not in output


async def test_check_reports_problems_and_sets_the_exit_status(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(
        "server:\n  image: test_service\n  labels:\n    aliyun.routing.port_80: restserver.local\n"
        '    aliyun.scale: "2"\n    aliyun.probe.url: http://container:80\n'
        '    aliyun.probe.initial_delay_seconds: "2"\n    aliyun.probe.timeout_seconds: "2"\n'
        'client:\n  image: test_app\n  external_links: ["restserver.local"]\n'
    )
    bad.write_text("services:\n  web:\n    labels:\n      mesh.routing.port_80: web.test/api\n")
    code, output = await call(*VIPMESH, "check", str(good))
    assert code == 0, output
    code, output = await call(*VIPMESH, "check", str(good), str(bad))
    assert code == 1
    assert f"{bad}:4: error: service web, label mesh.routing.port_80: " in output
