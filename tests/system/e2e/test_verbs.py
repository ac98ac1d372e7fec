"""The verbs for programs: one JSON document in every case, exit statuses, and a quick start."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.cli.documents import ChangeDocument, CheckDocument, FailureDocument, TeardownDocument
from mesh.model.codes import Code
from tests.api.http.worker import serving, socket_of
from tests.system.e2e.programs import VIPMESH, call

FORBIDDEN = (
    "aiohttp",
    "pyroute2",
    "asyncio",
    "uvloop",
    "rich",
    "yaml",
    "sqlite3",
    "dnslib",
    "mesh.model.service",
    "mesh.config.settings",
)


async def answered(*arguments: str) -> tuple[int, Any]:
    """Exit status and the JSON document, which is all of standard output."""
    process = await asyncio.create_subprocess_exec(
        *VIPMESH, *arguments, "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert not errors.decode(), errors.decode()
    return process.returncode or 0, json.loads(output)


@pytest.fixture
def admin(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/admin.sock"


@asynccontextmanager
async def daemon(tmp_path: Path) -> AsyncIterator[None]:
    async with serving(socket_of(tmp_path)):
        yield


async def test_status_imports_no_heavy_modules(admin: str, tmp_path: Path) -> None:
    script = (
        "import sys; from mesh.cli.main import main; "
        f"code = main(['status', '--admin', {admin!r}]); "
        f"heavy = [name for name in {FORBIDDEN!r} if name in sys.modules]; print(code, heavy)"
    )
    async with daemon(tmp_path):
        _, output = await call(sys.executable, "-c", script)
    assert "4 services, 1 serving; 6 endpoints, 2 serving; 7 errors; 2 warnings" in output.splitlines()[0]
    assert output.endswith("\n0 []\n")


async def test_status_in_text_and_in_json(admin: str, tmp_path: Path) -> None:
    async with daemon(tmp_path):
        code, text = await call(*VIPMESH, "status", "--admin", admin)
        _, value = await answered("status", "--admin", admin)
    assert code == 0
    assert f"; {value['data_plane']}: {value['data_plane_reason']}; " in text
    for service in value["services"]:
        vip, count = service["vip"] or "REFUSED", len(service["endpoints"])
        assert re.search(rf"^{re.escape(service['name'])} +{re.escape(vip)} .*/{count}  ", text, re.MULTILINE)
    assert [worker["name"] for worker in value["workers"]] == sorted(
        {value["worker"], *(w["name"] for w in value["workers"])}
    )


async def test_accepted_and_refused_actions(admin: str, tmp_path: Path) -> None:
    async with daemon(tmp_path):
        code, value = await answered("drain", "web-1", "--admin", admin)
        assert (code, msgspec.convert(value, ChangeDocument)) == (0, ChangeDocument("drain", ("demo/web-1",)))
        code, value = await answered("stop", "web-1", "nothing", "web-1", "--admin", admin)
        changed = msgspec.convert(value, ChangeDocument)
        assert (code, changed.done, changed.error) == (1, ("demo/web-1",), "no container 'nothing'")
        assert changed.code == Code.NO_SUCH_ENDPOINT.value
        code, text = await call(*VIPMESH, "undrain", "web-1", "nothing", "--admin", admin)
        assert (code, text) == (1, "demo/web-1: takes connections\nvipmesh: no container 'nothing' [VM254]\n")


@pytest.mark.parametrize("verb", [("status",), ("explain", "web.test")])
async def test_without_a_daemon(verb: tuple[str, ...], admin: str) -> None:
    code, value = await answered(*verb, "--admin", admin)
    assert code == 1
    assert "start it with `vipmesh run`" in msgspec.convert(value, FailureDocument).error


async def test_invalid_settings(tmp_path: Path) -> None:
    settings = tmp_path / "vipmesh.toml"
    settings.write_text("[dns]\nttl = 0\nlissten = 1\n")
    code, value = await answered("status", "-c", str(settings))
    assert code == 1
    assert len(msgspec.convert(value, FailureDocument).error.splitlines()) == 2


async def test_check(tmp_path: Path) -> None:
    compose = tmp_path / "compose.yaml"
    compose.write_text(
        "services:\n  web:\n    labels:\n      mesh.routing.port_80: '*.test'\n      mesh.log.multiline: '^x'\n"
    )
    code, value = await answered("check", str(compose))
    checked = msgspec.convert(value, CheckDocument)
    assert (code, checked.errors, checked.warnings) == (1, 1, 1)
    assert checked.problems[0].where == f"{compose}:4"
    assert checked.problems[0].remedy == "write every name in full, separated by ;"
    assert checked.problems[0].label == "mesh.routing.port_80"


async def test_teardown_of_an_empty_host(tmp_path: Path) -> None:
    settings = tmp_path / "vipmesh.toml"
    settings.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/store.db"\n')
    code, output = await call(
        "unshare", "--net", "--user", "--map-root-user", *VIPMESH, "teardown", "--json", "-c", str(settings)
    )
    if "unshare" in output:
        pytest.skip(f"no namespaces here: {output}")
    torn = msgspec.json.decode(output, type=TeardownDocument)
    assert (torn.removed, torn.claims) == ((), f"sqlite:///{tmp_path}/store.db")
    assert code == (1 if torn.failed else 0)


async def test_wrong_usage_is_2() -> None:
    code, output = await call(*VIPMESH, "no-such-verb")
    assert code == 2
    assert "usage: vipmesh" in output
