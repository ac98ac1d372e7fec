"""Verbs on endpoints of any worker: which worker is asked, with whose credentials, and what is left out."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from mesh.api.http.server import AdminListenConfig
from mesh.cli.certificates import issue, read_pem, write_pem
from mesh.cli.certs import make_certificates
from mesh.cli.client import AdminClient
from mesh.cli.drain_progress import LINE_INTERVAL, DrainProgress
from mesh.cli.endpoint_targets import ClusterDirectory, EndpointTarget, EndpointTargetError, read_directory
from mesh.cli.main import main
from mesh.model.credential import CertificateHolder
from mesh.model.table import RealKey
from tests.api.http.worker import TOKEN, serving
from tests.api.metrics.test_families import OBSERVED
from tests.system.e2e.programs import free_port


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def row(id: str, worker: str, name: str | None = None) -> dict[str, Any]:
    return {"id": id, "worker": worker, "name": name, "weight_from": "label"}


WEB: dict[str, Any] = {
    "name": "web.test",
    "owner": "demo/web",
    "names": ["web.test", "www.test"],
    "endpoints": [row("a1", "w1", "web"), row("a2", "w2", "web"), row("b", "w2", "api"), row("b", "w3", "api")],
}
STATUS: dict[str, Any] = {
    "worker": "w1",
    "workers": [{"name": "w1", "admin": None}, {"name": "w2", "admin": "192.0.2.12:9780"}, {"name": "w3"}],
    "services": [
        WEB,
        {"name": "db.test", "owner": "demo/db", "names": [], "endpoints": [row("d", "w3", "db")]},
    ],
}
DIRECTORY = read_directory(STATUS)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("web", [("web", "w1")]),
        ("a1", [("a1", "w1")]),
        ("a2", [("a2", "w2")]),
        ("web@w2", [("a2", "w2")]),
        ("api@w3", [("b", "w3")]),
        ("db", [("d", "w3")]),
        ("8f2c", [("8f2c", "w1")]),
        ("8f2c@w3", [("8f2c", "w3")]),
        ("8f2c@elsewhere", [("8f2c@elsewhere", "w1")]),
        ("www.test.", [("a1", "w1"), ("a2", "w2"), ("b", "w2"), ("b", "w3")]),
        ("demo/db", [("d", "w3")]),
    ],
)
def test_which_endpoint_a_name_means(name: str, found: list[tuple[str, str]]) -> None:
    assert DIRECTORY.find(name) == tuple(EndpointTarget(*each) for each in found)


def test_a_name_of_several_other_workers_says_nothing() -> None:
    with pytest.raises(EndpointTargetError, match="write api@w2 or api@w3"):
        DIRECTORY.find("api")


def test_a_worker_of_the_last_version_counts_nothing_together() -> None:
    web = {**WEB, "endpoints": [{"id": "a", "worker": "w1"}]}
    old = {**STATUS, "services": [web]}
    assert not read_directory(old).counts_together
    assert DIRECTORY.counts_together
    assert DIRECTORY.admin == {"w2": "192.0.2.12:9780"}
    assert ClusterDirectory("w1").find("x") == (EndpointTarget("x", "w1"),)


class Terminal(io.StringIO):
    @override
    def isatty(self) -> bool:
        return True


def test_progress_is_in_place_on_a_terminal_and_else_a_line_now_and_then() -> None:
    terminal, file, now = Terminal(), io.StringIO(), [0.0]
    shown = DrainProgress("web-1", terminal)
    shown.tell(3)
    shown.tell(None)
    shown.clear()
    assert terminal.getvalue() == (
        "\rweb-1: drains, connections left: 3\x1b[K\rweb-1: drains, connections finish\x1b[K\r\x1b[K"
    )
    lines = DrainProgress("web-1", file, lambda: now[0])
    for connections in (9, 8, 7):
        lines.tell(connections)
        now[0] += LINE_INTERVAL
    lines.clear()
    assert file.getvalue() == "web-1: drains, connections left: 8\nweb-1: drains, connections left: 7\n"


@asynccontextmanager
async def two_workers(directory: Path, shows: str = "w2") -> AsyncIterator[Path]:
    """A worker on a socket that knows w2, and one over TLS whose certificate is that of `shows`; where those are."""
    certs = directory / "certs"
    holders = [(CertificateHolder(name, is_worker=True), ["127.0.0.1"]) for name in ("w2", "w3")]
    make_certificates(certs, [*holders, (CertificateHolder("kim", is_worker=False), ())], datetime.now(UTC), 90)
    both = issue(
        read_pem((certs / "ca.key").read_bytes()),
        CertificateHolder("w3", is_worker=True),
        ["w2"],
        datetime.now(UTC),
        90,
    )
    (certs / "both.pem").write_bytes(write_pem(both))
    (certs / "token").write_text(TOKEN)
    (certs / "token").chmod(0o600)
    port = free_port()
    other = AdminListenConfig(
        f"unix://{directory}/other.sock",
        f"127.0.0.1:{port}",
        token_file=certs / "token",
        cert=certs / f"{shows}.pem",
        client_ca=certs / "ca.pem",
    )
    knows = replace(OBSERVED, admin_addresses={"w2": RealKey("127.0.0.1", port)})
    async with serving(AdminListenConfig(f"unix://{directory}/admin.sock"), knows), serving(other):
        yield certs


async def drain(capsys: pytest.CaptureFixture[str], directory: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of both streams; `a-4` runs on w2."""
    admin = f"unix://{directory}/admin.sock"
    status = await asyncio.to_thread(main, ["drain", "--admin", admin, *arguments, "a-4"])
    shown = capsys.readouterr()
    return status, shown.out + shown.err


async def test_the_operators_own_credential_goes_to_the_worker_that_runs_the_endpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_workers(tmp_path) as certs:
        ca = ["--ca", str(certs / "ca.pem")]
        status, text = await drain(capsys, tmp_path)
        assert (status, "a-4 runs on w2 and is left out" in text, "[VM681]" in text) == (1, True, True)
        for given in (["--cert", str(certs / "kim.pem")], ["--token-file", str(certs / "token")]):
            status, text = await drain(capsys, tmp_path, *given, *ca)
            assert (status, "no container 'a-4'" in text) == (1, True), "w2 knows web-1 alone"
        status, text = await drain(capsys, tmp_path, "--cert", str(certs / "w3.pem"), *ca)
        assert (status, "the certificate of a worker may only read" in text) == (1, True)
        monkeypatch.setenv("VIPMESH_CERT", str(certs / "kim.pem"))
        monkeypatch.setenv("VIPMESH_CA", str(certs / "ca.pem"))
        status, text = await drain(capsys, tmp_path)
        assert (status, "no container 'a-4'" in text) == (1, True)


async def test_what_is_left_out_does_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with two_workers(tmp_path):
        status, text = await drain(capsys, tmp_path, "web-1")
    assert (status, "demo/web-1: drained" in text, "[VM681]" in text) == (1, True, True)


async def test_the_token_of_this_hosts_worker_goes_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with two_workers(tmp_path) as certs:
        settings = tmp_path / "vipmesh.toml"
        settings.write_text(f'[admin]\nlisten = "unix://{tmp_path}/admin.sock"\ntoken_file = "{certs}/token"\n')
        status = await asyncio.to_thread(main, ["drain", "a-4", "-c", str(settings)])
        assert (status, "[VM681]" in capsys.readouterr().err) == (1, True)


@pytest.mark.parametrize("shows", ["w3", "both"])
async def test_a_worker_is_asked_only_if_its_certificate_names_it(
    shows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with two_workers(tmp_path, shows) as certs:
        status, text = await drain(capsys, tmp_path, "--cert", str(certs / "kim.pem"), "--ca", str(certs / "ca.pem"))
    assert (status, "[VM662]" in text, "no container" in text) == (1, True, False), text


async def test_a_worker_without_an_address_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(AdminListenConfig(f"unix://{tmp_path}/admin.sock")):
        status, text = await drain(capsys, tmp_path)
    assert (status, "w2 publishes no admin API" in text, "[VM682]" in text) == (1, True, True)


async def test_ctrl_c_says_what_goes_on_and_what_was_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def act(_: AdminClient, path: str, given: Mapping[str, Any], *__: object) -> tuple[Mapping[str, Any], str | None]:
        asked.append(given["name"])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"endpoint": given["name"]}, None

    monkeypatch.setattr(AdminClient, "act", act)
    admin = f"unix://{tmp_path}/admin.sock"
    async with serving(AdminListenConfig(admin)):
        status = await asyncio.to_thread(main, ["drain", "--admin", admin, "a-1", "a-2", "a-3"])
    shown = capsys.readouterr()
    assert (status, asked, shown.out) == (130, ["a-1", "a-2"], "a-1: drained\n")
    assert (
        "a-2: interrupted; it stays drained until `vipmesh undrain a-2`; nothing was done to a-3 [VM685]" in shown.err
    )


@pytest.mark.parametrize("written", ["-1", "65536", "1.5", "RESET", "٣"])
def test_what_is_no_weight(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(["weight", "web", written])
    assert wrong.value.code == 2
    assert "N|reset" in capsys.readouterr().err


async def test_a_weight_and_its_reset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    admin = f"unix://{tmp_path}/admin.sock"
    async with serving(AdminListenConfig(admin)):
        for written, said in (("0", "has weight 0"), ("reset", "has the weight of its label")):
            assert await asyncio.to_thread(main, ["weight", "web-1", written, "--admin", admin]) == 0
            assert capsys.readouterr().out == f"demo/web-1: {said}\n"


async def test_endpoints_of_one_worker_are_left_out_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = f"unix://{tmp_path}/admin.sock"
    async with serving(AdminListenConfig(admin)):
        assert await asyncio.to_thread(main, ["drain", "--admin", admin, "web-1", "a-4", "x@w2"]) == 1
        shown = capsys.readouterr()
        assert shown.out == "demo/web-1: drained\n"
        assert [line.partition(":")[2].partition(":")[0] for line in shown.err.splitlines()] == [
            " a-4, x run on w2 and are left out"
        ]
        assert await asyncio.to_thread(main, ["drain", "--admin", admin, "--json", "a-4"]) == 1
    (left,) = json.loads(capsys.readouterr().out)["left_out"]
    assert (left["endpoint"], left["worker"], left["code"]) == ("a-4", "w2", "VM682")
