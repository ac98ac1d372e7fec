"""Facts of a real engine and of the host that it changes: a network inside the VIP pool, a port, live-restore."""

import asyncio
from ipaddress import ip_network
from pathlib import Path

from mesh.sources.docker.engine_facts import ask_engine
from tests.system.docker.engine import Engine
from tests.system.e2e.programs import VIPMESH, call, eventually, free_port, status, vipmesh

SETTINGS = """
[node]
name = "w1"
[dataplane]
driver = "{driver}"
[dns]
listen = ["127.0.0.1:{port}"]
[store]
url = "sqlite:///{folder}/state/store.db"
[admin]
listen = "unix://{folder}/run/admin.sock"
[source.docker]
socket = "{engine}"
"""
WEB = {"mesh.routing.port_80": "web.test"}


async def test_what_a_real_engine_tells(engine: Engine) -> None:
    await engine.adocker("network", "create", "--subnet", "10.112.5.0/24", "one")
    await engine.adocker("network", "create", "--subnet", "10.113.5.0/24", "two")
    await asyncio.to_thread(engine.run, "web-1", "--network", "one", labels=WEB)
    await engine.adocker("network", "connect", "two", "web-1")
    answer = await ask_engine(engine.url)
    assert answer is not None
    facts = answer.facts
    assert facts.version.split(".")[0].isdigit()
    assert (facts.is_podman, facts.in_swarm, facts.live_restore) == (False, False, False)
    networks = {network.name: network for network in facts.networks}
    assert networks["one"].subnets == (ip_network("10.112.5.0/24"),)
    assert networks["one"].masquerades
    (container,) = facts.on_several_networks
    assert (container.name, set(container.addresses)) == ("web-1", {"10.112.5.2", "10.113.5.2"})
    assert WEB.items() <= dict(answer.labels[0]).items()


async def test_a_container_network_inside_the_pool(engine: Engine, tmp_path: Path) -> None:
    """While the daemon runs, at its next start, and gone again; names are answered throughout."""
    settings, admin = tmp_path / "vipmesh.toml", f"unix://{tmp_path}/run/admin.sock"
    settings.write_text(SETTINGS.format(driver="nftables", port=free_port(), folder=tmp_path, engine=engine.url))
    await asyncio.to_thread(engine.run, "web-1", labels=WEB)

    async with vipmesh("run", "-c", str(settings), prefix=engine.inside) as daemon:
        await daemon.line(r"dns on 127\.0\.0\.1:\d+")
        before = await eventually(lambda: status(admin), lambda s: any(v["virtual_servers"] for v in s["services"]))
        vip = before["services"][0]["vip"]
        network = ip_network(f"{vip}/20", strict=False)
        await engine.adocker("network", "create", "--subnet", str(network), "--gateway", str(network[1]), "inside")
        found = await eventually(lambda: status(admin), lambda s: any("network inside" in p for p in s["problems"]))
        (problem,) = (line for line in found["problems"] if "[vip] pool" in line)
        assert f"overlaps docker network inside {network} of this host" in problem
        assert "remove it (`docker network rm inside`), or set [vip] pool = " in problem
        assert found["services"] == before["services"], "what is bound stays"
        assert await daemon.end() == 0

    async with vipmesh("run", "-c", str(settings), prefix=engine.inside) as daemon:
        await daemon.line(r"dns on 127\.0\.0\.1:\d+")
        again = await eventually(lambda: status(admin), lambda s: any(v["virtual_servers"] for v in s["services"]))
        assert again["services"][0]["virtual_servers"] == before["services"][0]["virtual_servers"]
        await engine.adocker("network", "rm", "inside")
        await eventually(lambda: status(admin), lambda s: not any("[vip] pool" in p for p in s["problems"]))
        assert await daemon.end() == 0


async def test_doctor_and_the_daemon_say_the_same(engine: Engine, tmp_path: Path) -> None:
    settings, admin = tmp_path / "vipmesh.toml", f"unix://{tmp_path}/run/admin.sock"
    settings.write_text(SETTINGS.format(driver="nftables", port=free_port(), folder=tmp_path, engine=engine.url))
    await engine.adocker("network", "create", "--subnet", "10.112.5.0/24", "one")
    async with vipmesh("run", "-c", str(settings), prefix=engine.inside) as daemon:
        await daemon.line(r"dns on 127\.0\.0\.1:\d+")
        told = await eventually(lambda: status(admin), lambda s: len(s["problems"]) > 1)
        code, text = await call(*engine.inside, *VIPMESH, "doctor", "-c", str(settings))
        assert code == 1
        assert told["problems"]
        for problem in told["problems"]:
            _, subject, rest = problem.split(": ", 2)
            assert all(part in text for part in (subject, *rest.split("; ")))
        assert await daemon.end() == 0
