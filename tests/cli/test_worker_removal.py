"""`vipmesh workers remove`: what is removed and revoked where the command runs, and what is left to type."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.cli.certificates import read_revoked
from mesh.cli.certs import make_certificates
from mesh.cli.main import main
from mesh.cluster.worker_removal import RemovedWorker
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.codes import Code
from mesh.model.credential import CertificateHolder
from mesh.model.errors import ActionRefusedError
from tests.api.metrics.test_families import OBSERVED


class Removal:
    """Has records of w2 and w3, and refuses w3 without force."""

    async def remove(self, worker: str, *, force: bool = False) -> RemovedWorker:
        if worker == "w3" and not force:
            raise ActionRefusedError(Code.WORKER_NOT_REMOVED, "the daemon of w3 is registered")
        return RemovedWorker(worker, 4 if worker in ("w2", "w3") else 0)


def observed(store: str) -> Callable[[], WorkerSnapshot]:
    snapshot = replace(OBSERVED, facts=replace(OBSERVED.facts, store=store))
    return lambda: snapshot


@asynccontextmanager
async def worker(directory: Path, store: str = "etcd://127.0.0.1:2379/shop/mesh") -> AsyncIterator[str]:
    admin = f"unix://{directory}/admin.sock"
    api = AdminApi(AdminListenConfig(admin), observed(store), removal=Removal())
    await api.start()
    try:
        yield admin
    finally:
        await api.stop()


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    directory = tmp_path / "certs"
    make_certificates(directory, [(CertificateHolder("w2", is_worker=True), ())], datetime.now(UTC), 90)
    return directory


async def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Exit status and the document."""
    status = await asyncio.to_thread(main, ["workers", "remove", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


async def test_records_certificate_and_rights(tmp_path: Path, certs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with worker(tmp_path) as admin:
        status, removed = await run(capsys, "w2", "--directory", str(certs), "--admin", admin)
        assert (status, removed) == (
            0,
            {
                "worker": "w2",
                "records": 4,
                "revoked": str(certs / "ca.pem"),
                "lines": ["etcdctl user delete shop-mesh-w2", "etcdctl role delete shop-mesh-w2"],
                "error": None,
                "code": None,
            },
        )
        assert len(read_revoked((certs / "ca.pem").read_bytes())) == 1
        status, removed = await run(capsys, "w2", "--directory", str(certs), "--admin", admin)
        assert (status, removed["revoked"], "there is no such certificate" in removed["error"]) == (1, None, True)


async def test_a_refusal_revokes_nothing(tmp_path: Path, certs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with worker(tmp_path) as admin:
        status, failed = await run(capsys, "w3", "--directory", str(certs), "--admin", admin)
        assert (status, failed["codes"]) == (1, [str(Code.WORKER_NOT_REMOVED)])
        assert read_revoked((certs / "ca.pem").read_bytes()) == []
        _, removed = await run(capsys, "w3", "--force", "--directory", str(certs), "--admin", admin)
        assert removed["records"] == 4


async def test_a_worker_of_whom_nothing_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with worker(tmp_path) as admin:
        status, answer = await run(capsys, "w22", "--admin", admin)
        assert (status, answer["records"], answer["revoked"]) == (1, 0, None)
        assert answer["error"].startswith("nothing is known of w22: the store has no record of it")
        assert answer["code"] == str(Code.WORKER_NOT_REMOVED)
        status, answer = await run(capsys, "w2", "--admin", admin)
        assert (status, answer["records"], answer["error"]) == (0, 4, None)


async def test_where_there_are_no_certificates_the_line_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with worker(tmp_path, "sqlite:///x.db") as admin:
        assert await asyncio.to_thread(main, ["workers", "--admin", admin, "remove", "w2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "w2: 4 records removed",
        "what is left to type, with rights of your own:",
        "    vipmesh cluster revoke w2 --directory DIR",
    ]
