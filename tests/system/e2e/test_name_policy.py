"""Names outside `[names] allow`, with a real daemon: refused when new, served when they are older than the rule."""

from pathlib import Path

from mesh.cluster.records.encode import encode_name_claim, encode_service_claim, encode_vip_claim
from mesh.store.sqlite import SqliteStore
from tests.system.e2e.programs import VIPMESH, call, eventually, free_port, status, vipmesh

COMPOSE = """
name: shop
services:
  old:
    labels: {mesh.routing.port_80: "old.example.com:8000"}
    x-endpoints: [127.0.0.21]
  new:
    labels: {mesh.routing.port_80: "github.com:8001"}
    x-endpoints: [127.0.0.22]
  web:
    labels: {mesh.routing.port_80: "web.test:8002"}
    x-endpoints: [127.0.0.23]
"""


async def test_a_new_name_is_refused_and_one_from_before_the_rule_goes_on(tmp_path: Path) -> None:
    before = await SqliteStore.open(tmp_path / "store.db", "w1")
    await before.claim(encode_name_claim("old.example.com", "shop/old"))
    await before.claim(
        encode_service_claim("old.example.com", "127.113.0.9") | encode_vip_claim("127.113.0.9", "old.example.com")
    )
    await before.close()
    admin, port = f"unix://{tmp_path}/admin.sock", free_port()
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    settings = tmp_path / "vipmesh.toml"
    settings.write_text(
        f"""
        node.name = "w1"
        vip.pool = "127.113.0.0/16"
        dns = {{listen = ["127.0.0.1:{port}"], upstream = ["127.0.0.1:{free_port()}"]}}
        store.url = "sqlite:///{tmp_path}/store.db"
        admin.listen = "{admin}"
        source.compose.files = ["{tmp_path}/compose.yaml"]
        """
    )
    for _ in ("first start", "second start"):  # the rule must not take the older name later either
        async with vipmesh("run", "-c", str(settings)) as daemon:
            await daemon.line("dns on")
            shown = await eventually(lambda: status(admin), lambda s: len(s["problems"]) >= 2)
            vips = {service["name"]: service["vip"] for service in shown["services"]}
            assert vips["old.example.com"] == "127.113.0.9"
            assert vips["web.test"] is not None
            assert vips["github.com"] is None
            [refused] = [line for line in shown["problems"] if "github.com" in line]
            [warned] = [line for line in shown["problems"] if "old.example.com" in line]
            assert "error" in refused
            assert "warning" in warned
            code, diagnosis = await call(*VIPMESH, "doctor", "-c", str(settings))
            assert "old.example.com is outside the domains of [names] allow; the running daemon serves it" in diagnosis
            code, answer = await call("dig", "+short", "+tries=1", "@127.0.0.1", "-p", str(port), "old.example.com")
            assert (code, answer.strip()) == (0, "127.113.0.9")
            code, answer = await call("dig", "+tries=1", "@127.0.0.1", "-p", str(port), "github.com")
            assert "SERVFAIL" in answer, "it is asked upstream, where nobody answers here"
    code, output = await call(*VIPMESH, "check", "-c", str(settings), str(tmp_path / "compose.yaml"))
    assert code == 0, "names that are refused are warnings to `check`: one of them is older than the rule"
    assert output.count("[VM207]") == 2
