"""Acting on any worker: three daemons with certificates; the worker concerned wants the operator's own credential."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mesh.cli.certs import make_certificates
from mesh.model.credential import CertificateHolder
from tests.store.etcd.server import EtcdServer
from tests.system.cluster.workers import ALL, Worker
from tests.system.e2e.programs import VIPMESH, call, eventually

pytestmark = pytest.mark.timeout(400)
ADMIN = """
tcp = "{address}:9780"
cert = "{certs}/{name}.pem"
client_ca = "{certs}/ca.pem"
audit_file = "{directory}/audit.log"
"""


@pytest.fixture
async def running(workers: list[Worker], store: str, driver: str, tmp_path: Path) -> AsyncIterator[list[Worker]]:
    """Three workers with certificates; the operator's are below `tmp_path`."""
    holders = [(CertificateHolder(each.name, is_worker=True), [each.address]) for each in workers]
    make_certificates(
        tmp_path / "certs", [*holders, (CertificateHolder("kim", is_worker=False), ())], datetime.now(UTC), 90
    )
    for each in workers:
        more = ADMIN.format(address=each.address, certs=tmp_path / "certs", name=each.name, directory=each.directory)
        each.configure(driver=driver, store=store, more=more)
    async with AsyncExitStack() as stack:
        for each in workers:
            await stack.enter_async_context(each.running())
        for each in workers:
            await eventually(each.serving, lambda seen: seen == ALL, 90)
        yield workers


async def cli(worker: Worker, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a verb that asks this worker, in its network."""
    return await call(
        *worker.lab.inside(worker.name), *VIPMESH, *arguments, "--admin", f"unix://{worker.directory}/admin.sock"
    )


def credential(certs: Path, name: str = "kim") -> list[str]:
    return ["--cert", str(certs / f"{name}.pem"), "--ca", str(certs / "ca.pem")]


def endpoints_of(status: dict[str, Any], worker: Worker) -> list[dict[str, Any]]:
    return [row for row in status["services"][0]["endpoints"] if row["worker"] == worker.name]


def audit(worker: Worker) -> str:
    file = worker.directory / "audit.log"
    return file.read_text() if file.exists() else ""


async def test_acting_on_another_worker_needs_a_credential_of_ones_own(running: list[Worker], tmp_path: Path) -> None:
    w1, w2, _ = running
    shown = await w1.status()
    assert {row["name"]: row["admin"] for row in shown["workers"]} == {w.name: f"{w.address}:9780" for w in running}
    there, here = endpoints_of(shown, w2)[0]["id"], endpoints_of(shown, w1)[0]["id"]

    code, output = await cli(w1, "drain", here, f"{there}@w2")
    assert code == 1
    assert f"{here}: drained" in output
    assert f"{there} runs on w2 and is left out" in output
    assert "[VM681]" in output
    assert "drain" not in audit(w2)
    assert await cli(w1, "undrain", here) == (0, f"{here}: takes connections\n")
    code, output = await cli(w1, "drain", f"{there}@w2", *credential(tmp_path / "certs", "w1"))
    assert (code, "the certificate of a worker may only read" in output) == (1, True), output
    assert "requested" not in audit(w2)

    code, output = await cli(w1, "drain", f"{there}@w2", *credential(tmp_path / "certs"))
    assert (code, output) == (0, f"{there} on w2: drained\n")
    assert f'audit: drain "{there}" by "kim" at {w1.address} requested' in audit(w2)
    assert f'audit: drain "{there}" by "kim" at {w1.address} done' in audit(w2)
    assert "kim" not in audit(w1)
    await eventually(w1.status, lambda s: endpoints_of(s, w2)[0]["drain"] == "asked")
    code, output = await cli(w1, "undrain", f"{there}@w2", *credential(tmp_path / "certs"))
    assert (code, output) == (0, f"{there} on w2: takes connections\n")

    code, output = await cli(w1, "weight", f"{there}@w2", "7", *credential(tmp_path / "certs"))
    assert (code, output) == (0, f"{there} on w2: has weight 7\n")
    await eventually(
        w1.status,
        lambda s: (endpoints_of(s, w2)[0]["weight"], endpoints_of(s, w2)[0]["weight_from"]) == (7, "operator"),
    )
    assert w2.program is not None
    await w2.program.end()
    async with w2.running():
        await eventually(w1.status, lambda s: any(r["weight"] == 7 for r in endpoints_of(s, w2)), 90)
        await eventually(w1.serving, lambda seen: seen == ALL, 90)
        code, output = await cli(w1, "drain", "web.shop.test", *credential(tmp_path / "certs"))
        assert (code, "[VM680]" in output, "--force" in output) == (1, True, True), output


async def test_a_removed_worker_is_refused(running: list[Worker], server: EtcdServer, tmp_path: Path) -> None:
    w1, _, w3 = running
    certs = tmp_path / "certs"
    shutil.copytree(certs, tmp_path / "taken")  # what somebody has who has taken the worker's files
    code, output = await cli(w1, "workers", "remove", "w3", "--directory", str(certs))
    assert (code, "the daemon of w3 is registered" in output) == (1, True), output
    assert (await cli(w1, "workers", "remove", "w1", "--directory", str(certs)))[0] == 1
    await w3.power_off()
    await eventually(w1.status, lambda s: not endpoints_of(s, w3), 90)

    async def remove() -> tuple[int, str]:
        return await cli(w1, "workers", "remove", "w3", "--directory", str(certs), "--json")

    code, output = await eventually(remove, lambda answer: answer[0] == 0, 60)
    removed = json.loads(output)
    assert removed["lines"] == ["etcdctl user delete vipmesh-w3", "etcdctl role delete vipmesh-w3"]
    assert removed["revoked"] == str(certs / "ca.pem")
    assert not [key for key in server.ctl("get", "--prefix", "--keys-only", "/vipmesh/").split() if "/w3/" in key]
    assert 'audit: workers remove "w3" by uid' in audit(w1)
    code, output = await call(
        *w1.lab.inside("w1"),
        *VIPMESH,
        "status",
        "--admin",
        f"https://{w1.address}:9780",
        *credential(tmp_path / "taken", "w3"),
    )
    assert code == 1, output
    code, output = await call(
        *w1.lab.inside("w1"), *VIPMESH, "status", "--admin", f"https://{w1.address}:9780", *credential(certs, "w2")
    )
    assert code == 0, output
