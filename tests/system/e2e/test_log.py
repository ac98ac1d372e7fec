"""The log of a real daemon in machine-readable formats: every line is valid, and none has the password."""

import json
import re
from pathlib import Path

import pytest

from tests.system.e2e.programs import VIPMESH, call, free_port, vipmesh

SETTINGS = """
[node]
name = "w1"
[vip]
pool = "127.115.0.0/16"
[dataplane]
driver = "userspace"
[dns]
listen = ["127.0.0.1:{dns}"]
upstream = ["127.0.0.1:{upstream}"]
[store]
url = "etcd://127.0.0.1:1"
user = "mesh"
password = "hunter2-and-more"
saved_view = "{path}/view.json"
[admin]
listen = "unix://{path}/admin.sock"
[source.compose]
files = ["{path}/compose.yaml"]
[log]
format = "{format}"
"""
COMPOSE = 'services: {web: {labels: {mesh.routing.port_80: "*.test"}, x-endpoints: [127.0.0.21]}}'


@pytest.mark.parametrize("shape", ["json", "logfmt"])
async def test_machine_readable_log_lines(shape: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    settings = tmp_path / "vipmesh.toml"
    settings.write_text(SETTINGS.format(path=tmp_path, dns=free_port(), upstream=free_port(), format=shape))
    async with vipmesh("-v", "run", "-c", str(settings)) as daemon:
        await daemon.line("VM110")
        assert await daemon.end() == 0
    lines = "".join(daemon.output).splitlines()
    assert not [line for line in lines if "hunter2" in line]
    for line in lines:
        if shape == "json":
            assert json.loads(line).keys() >= {"time", "level", "msg"}
        else:
            assert re.match(r"time=\S+Z level=[a-z]+ (code=VM\d+ )?msg=", line), line
    assert any("VM401" in line for line in lines)
    (refused,) = [line for line in lines if "VM110" in line]
    if shape == "json":
        assert json.loads(refused)["where"] == f"{tmp_path}/compose.yaml:1"
        assert json.loads(refused)["label"] == "mesh.routing.port_80"
    else:
        assert f"where={tmp_path}/compose.yaml:1" in refused


async def test_an_unknown_format_is_refused() -> None:
    code, output = await call("env", "VIPMESH_LOG_FORMAT=xml", *VIPMESH, "run", "-c", "/dev/null")
    assert code == 1
    assert "VIPMESH_LOG_FORMAT: 'xml' is not a format of the log; write text, logfmt or json [VM302]" in output
