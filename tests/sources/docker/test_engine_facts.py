"""What engines tell about themselves: their fields, fields that they lack, and responses that are no engine's."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from mesh.model.engine_facts import AttachedContainer, EngineFacts, EngineNetwork
from mesh.sources.docker.engine_facts import LabelledContainer, ask_engine, ask_engine_facts

ID = "f" * 64
DOCKER_29: Mapping[str, Any] = {
    "version": {"Version": "29.0.1", "ApiVersion": "1.52", "MinAPIVersion": "1.24", "Components": [{"Name": "Engine"}]},
    "info": {
        "LiveRestoreEnabled": False,
        "Swarm": {"LocalNodeState": "active"},
        "FirewallBackend": {"Driver": "nftables"},
        "DefaultAddressPools": [{"Base": "10.10.0.0/16", "Size": 24}, {"Base": "rubbish", "Size": 1}],
    },
    "networks": [
        {"Name": "none", "IPAM": {"Config": None}},
        {
            "Name": "shop",
            "Driver": "bridge",
            "IPAM": {"Config": [{"Subnet": "10.112.5.0/24", "Gateway": "10.112.5.1"}, {"Subnet": "fd00:5::/64"}]},
            "Options": {"com.docker.network.bridge.enable_ip_masquerade": "false"},
        },
        {"Name": "lan\x1b[2J", "IPAM": {"Config": [{"Subnet": "10.0.0.0.0/8"}]}},
    ],
    "containers/json": [
        {
            "Id": ID,
            "State": "running",
            "Names": ["/web-1"],
            "Labels": {"mesh.routing.port_80": "web.test", "mesh.routing.publish.port_80": "40000"},
            "NetworkSettings": {
                "Networks": {"shop": {"IPAddress": "10.112.5.2"}, "db": {"IPAddress": "10.2.0.2"}, "gone": None}
            },
        },
        {
            "Id": "e" * 64,
            "State": "running",
            "Names": ["/other"],
            "NetworkSettings": {"Networks": {"a": {"IPAddress": "10.3.0.2"}, "b": {"IPAddress": "10.4.0.2"}}},
        },
    ],
}
PODMAN_4: Mapping[str, Any] = {
    "version": {"Version": "4.3.1", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]},
    "info": {"LiveRestoreEnabled": False, "Swarm": {"LocalNodeState": "inactive"}},
    "networks": [{"Name": "podman", "IPAM": {"Config": [{"Subnet": "10.88.0.0/16"}]}}],
    "containers/json": [],
}


@asynccontextmanager
async def speaking(responses: Mapping[str, Any], path: Path) -> AsyncIterator[str]:
    """An engine that answers so, at the URL."""

    async def answer(request: web.Request) -> web.Response:
        parts = request.path.strip("/").split("/")
        name = "/".join(parts[1:] if parts[0].startswith("v1.") else parts)
        body = responses.get(name)
        headers = {"Api-Version": "1.41"}
        if isinstance(body, bytes):
            return web.Response(body=body, content_type="application/json", headers=headers)
        return web.json_response(body, status=404 if body is None else 200, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    try:
        yield f"unix://{path}"
    finally:
        await runner.cleanup()


async def test_an_engine_that_tells_everything(tmp_path: Path) -> None:
    async with speaking(DOCKER_29, tmp_path / "e.sock") as url:
        answer = await ask_engine(url)
    assert answer is not None
    assert answer.facts == EngineFacts(
        version="29.0.1",
        api_version="1.52",
        firewall_backend="nftables",
        live_restore=False,
        in_swarm=True,
        address_pools=(ip_network("10.10.0.0/16"),),
        networks=(
            EngineNetwork("lan\\x1b[2J"),
            EngineNetwork("none"),
            EngineNetwork("shop", (ip_network("10.112.5.0/24"), ip_network("fd00:5::/64")), masquerades=False),
        ),
        on_several_networks=(AttachedContainer("web-1", ("10.112.5.2", "10.2.0.2")),),
    )
    labels = {"mesh.routing.port_80": "web.test", "mesh.routing.publish.port_80": "40000"}
    assert answer.containers == (LabelledContainer(labels),), "on several networks it may be reached at either address"
    assert answer.labels == (labels,)


async def test_an_engine_that_tells_little(tmp_path: Path) -> None:
    async with speaking(PODMAN_4, tmp_path / "e.sock") as url:
        facts = await ask_engine_facts(url)
    networks = (EngineNetwork("podman", (ip_network("10.88.0.0/16"),)),)
    assert facts == EngineFacts("4.3.1", "1.41", is_podman=True, live_restore=False, networks=networks)


@pytest.mark.parametrize("path", ["version", "info", "networks", "containers/json"])
@pytest.mark.parametrize("body", [b"", b"[[", b'"a"', b"12", b"[1, null]", b'{"Name": 5, "Swarm": 7, "Version": {}}'])
async def test_a_response_of_another_form_tells_nothing(tmp_path: Path, path: str, body: bytes) -> None:
    async with speaking({**DOCKER_29, path: body}, tmp_path / "e.sock") as url:
        assert await ask_engine_facts(url) is None


async def test_an_engine_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert await ask_engine_facts(f"unix://{tmp_path}/none.sock") is None


async def test_what_is_taken_from_one_response_is_bounded(tmp_path: Path) -> None:
    many = [{"Name": f"n{number:05}", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}] * 3000}} for number in range(3)]
    many += [{"Name": f"m{number:05}"} for number in range(3000)]
    async with speaking({**DOCKER_29, "networks": many}, tmp_path / "e.sock") as url:
        facts = await ask_engine_facts(url)
    assert facts is not None
    assert len(facts.networks) == 1024
    assert all(len(network.subnets) <= 1024 for network in facts.networks)
    assert len(msgspec.json.encode(facts.version)) < 100
