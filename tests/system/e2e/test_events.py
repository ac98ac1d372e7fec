"""`vipmesh events` and `vipmesh explain` of a real daemon: what is gone is explained, also after a restart."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.system.e2e.programs import VIPMESH, call, eventually, free_port, vipmesh
from tests.system.e2e.test_explain import SETTINGS

WEB = """
name: shop
services:
  web: {labels: {mesh.routing.port_80: "web.shop.test"}, x-endpoints: [127.0.0.21]}
"""
DB = '  db: {labels: {mesh.routing.port_80: "db.shop.test:8080"}, x-endpoints: [127.0.0.22]}'


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(WEB + DB)
    file = tmp_path / "vipmesh.toml"
    file.write_text(SETTINGS.format(path=tmp_path, dns=free_port(), upstream=free_port()))
    return file


async def past(settings: Path, *options: str) -> list[dict[str, Any]]:
    _, output = await call(*VIPMESH, "events", *options, "--json", "-c", str(settings))
    document: dict[str, Any] = json.loads(output)
    return [each["event"] for each in document.get("events", ())]


async def test_what_is_gone_is_explained_after_a_restart(settings: Path) -> None:
    directory = settings.parent

    async def kinds() -> list[str]:
        return [event["kind"] for event in await past(settings, "db.shop.test")]

    async with vipmesh("run", "-c", str(settings)) as first:
        await eventually(kinds, lambda found: "service-serves" in found)
        (directory / "compose.yaml").write_text(WEB)
        await eventually(kinds, lambda found: found[-3:] == ["endpoint-gone", "service-empty", "service-gone"])
        assert await first.end() == 0
    async with vipmesh("run", "-c", str(settings)):

        async def explained() -> str:
            return (await call(*VIPMESH, "explain", "http://db.shop.test:8080", "-c", str(settings)))[1]

        text = await eventually(explained, lambda text: " is gone" in text)
        assert "db.shop.test (shop/db) is gone: no worker declares it any more, at " in text
        code, still = await call(*VIPMESH, "explain", "web.shop.test:81", "-c", str(settings))
        assert (code, "nothing listens on port 81 of web.shop.test; it listens on tcp 80;" in still) == (1, True), still
        whole = await past(settings)
    daemon = [event["kind"] for event in whole if event["kind"].startswith("daemon") or event["kind"] == "gap"]
    assert daemon == ["daemon-started", "daemon-stopped", "daemon-started"]
    came = [event["endpoint"] for event in whole if event["kind"] == "endpoint-came" and event["owner"] == "shop/db"]
    assert len(came) == 1, "a restart makes no events of what has not changed"
    assert stat.S_IMODE((directory / "store.db.events").stat().st_mode) == 0o600
