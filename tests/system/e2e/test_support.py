"""`vipmesh support`: one archive with everything but secrets, also of a worker whose daemon is dead."""

import json
import stat
import tarfile
from pathlib import Path

import pytest

from tests.system.e2e.programs import VIPMESH, call, eventually, free_port, vipmesh
from tests.system.e2e.test_explain import SETTINGS

SECRETS = {
    "header": "HUSH-header-1",
    "url": "HUSH-url-2",
    "command": "HUSH-command-3",
    "refused": "HUSH-refused-4",
    "token": "HUSH-token-5678901",
    "environment": "HUSH-environment-6",
    "query": "HUSH-query-7",
}
COMPOSE = f"""
name: shop
services:
  web:
    labels:
      mesh.routing.port_80: web.shop.test
      mesh.probe.url: http://operator:{SECRETS["url"]}@container:80/health?code={SECRETS["query"]}
      mesh.probe.header.x-code: {SECRETS["header"]}
    x-endpoints: [127.0.0.21]
  db:
    labels:
      mesh.routing.port_80: db.shop.test
      mesh.probe.cmd: psql --with {SECRETS["command"]}
    x-endpoints: [127.0.0.22]
  bad:
    labels:
      mesh.routing.port_80: bad.shop.test
      mesh.probe.url: http://container:80
      "mesh.probe.header.bad name": {SECRETS["refused"]}
      mesh.probe.header.other: "{SECRETS["refused"]}\\u0001"
    x-endpoints: [127.0.0.23]
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATABASE_PASSWORD", SECRETS["environment"])
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(SECRETS["token"])
    file = tmp_path / "vipmesh.toml"
    text = SETTINGS.format(path=tmp_path, dns=free_port(), upstream=free_port())
    file.write_text(text.replace("[admin]\n", f'[admin]\ntoken_file = "{token}"\n'))
    return file


def contents(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as opened:
        files = {entry.name.partition("/")[2]: opened.extractfile(entry) for entry in opened}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


async def test_an_archive_of_a_worker_has_everything_but_secrets(settings: Path, tmp_path: Path) -> None:
    async with vipmesh("run", "-c", str(settings)):

        async def status() -> str:
            return (await call(*VIPMESH, "status", "--json", "-c", str(settings)))[1]

        await eventually(status, lambda text: "shop/db" in text and "shop/bad" in text)
        archive = tmp_path / "of-a-worker.tar.gz"
        code, output = await call(*VIPMESH, "support", "--yes", "--output", str(archive), "-c", str(settings))
    assert code == 0, output
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    files = contents(archive)
    assert {"CONTENTS.txt", "versions.txt", "status.json", "events.json", "metrics.txt", "settings.json"} <= set(files)
    assert {"doctor.json", "ip-address.txt", "ip-route.txt"} <= set(files)
    assert "web.shop.test" in files["status.json"]
    assert json.loads(files["status.json"])["services"]
    assert json.loads(files["events.json"])["events"]
    assert "vipmesh_" in files["metrics.txt"]
    assert json.loads(files["settings.json"])["dns_domain"]
    found = [(name, kind) for name, text in files.items() for kind, secret in SECRETS.items() if secret in text]
    assert not found
    assert not [secret for secret in SECRETS.values() if secret in output]


async def test_an_archive_of_a_dead_worker_says_what_is_missing(settings: Path, tmp_path: Path) -> None:
    archive = tmp_path / "of-a-dead-worker.tar.gz"
    command = (*VIPMESH, "support", "--output", str(archive), "-c", str(settings))
    code, output = await call(*command)
    assert (code, archive.exists()) == (1, False)
    assert "status.json" in output, "what it will have is shown first"
    assert "add --yes [VM696]" in output
    code, output = await call(*command, "--yes", "--json")
    assert code == 0, output
    missing = {part["name"]: part["missing"] for part in json.loads(output)["parts"]}
    assert missing["status.json"].startswith("no daemon answers on ")
    assert missing["doctor.json"] is None
    files = contents(archive)
    assert "status.json" not in files
    assert "status.json: missing: no daemon answers on " in files["CONTENTS.txt"]
    code, output = await call(*command, "--yes")
    assert (code, "File exists; name another one with --output [VM696]" in output) == (1, True), output
    assert contents(archive) == files


async def test_settings_that_cannot_be_used_are_no_hindrance(tmp_path: Path) -> None:
    file = tmp_path / "vipmesh.toml"
    file.write_text(f'[store]\npassword = ["{SECRETS["token"]}"]\n')
    archive = tmp_path / "of-bad-settings.tar.gz"
    code, output = await call(*VIPMESH, "support", "--yes", "--output", str(archive), "-c", str(file))
    assert code == 0, output
    files = contents(archive)
    assert "settings.json: missing: the settings cannot be used [VM302]" in files["CONTENTS.txt"]
    assert "versions.txt" in files
    assert not [name for name, text in files.items() if SECRETS["token"] in text]
