"""`vipmesh test` as a program, against a real daemon on the compose source and the proxy in user space."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from mesh.api.connectivity.plan import ConnectivityPlan, ConnectivityTarget, PeerAddress, TargetKind
from mesh.api.connectivity.report import ConnectivityReport, UntestedClient, make_report, make_row
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.cli.parser import build_parser
from mesh.model.request import RequestOutcome, RequestResult
from mesh.model.service import Transport
from tests.api.metrics.test_families import OBSERVED
from tests.store.etcd.certificates import authority, signed
from tests.system.e2e.programs import VIPMESH, call, eventually, free_port, status, vipmesh

SERVICES = 50
EMPTY: Mapping[str, Path] = MappingProxyType({})


def compose(directory: Path, endpoints: Mapping[str, str]) -> Path:
    """A compose file with a service for each name, and its endpoint."""
    lines = ["services:"]
    for number, (name, endpoint) in enumerate(endpoints.items()):
        lines += [
            f"  s{number}:",
            f"    labels: {{ mesh.routing.port_80: {name} }}",
            f"    x-endpoints: ['{endpoint}']",
        ]
    file = directory / "compose.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


@asynccontextmanager
async def http_server() -> AsyncIterator[int]:
    """An HTTP server on 127.0.0.1 that says `up`; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nup")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left: it only wanted to connect
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def daemon(directory: Path, file: Path) -> AsyncIterator[str]:
    """A daemon with VIPs on loopback; the address of its admin API."""
    admin = f"unix://{directory}/admin.sock"
    environment = {
        "VIPMESH_VIP_POOL": "127.113.0.0/16",
        "VIPMESH_DATAPLANE_LOW_PORT_OFFSET": "8000",
        "VIPMESH_DNS_LISTEN": "127.0.0.1:0",
        "VIPMESH_DNS_RESOLVER": "off",
        "VIPMESH_STORE_URL": f"sqlite:///{directory}/store.db",
        "VIPMESH_ADMIN_LISTEN": admin,
        "VIPMESH_SOURCE_COMPOSE_FILES": str(file),
    }
    async with vipmesh("run", environment=environment) as program:
        await program.line("data plane userspace")
        yield admin
        await program.end()


async def programmed(admin: str, services: int) -> None:
    async def serving() -> int:
        shown = (await status(admin))["services"]
        return sum(endpoint["serving"] for service in shown for endpoint in service["endpoints"])

    await eventually(serving, lambda found: found == services)


async def run_test(admin: str, *options: str) -> tuple[int, dict[str, Any]]:
    code, output = await call(*VIPMESH, "test", "--json", "--admin", admin, *options)
    return code, json.loads(output)


def by_address(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [row for row in report["rows"] if row["by"] == "address"]


async def test_requests_that_come_back_and_one_that_does_not(tmp_path: Path) -> None:
    async with http_server() as port:
        file = compose(tmp_path, {"web.test": f"127.0.0.1:{port}", "dead.test": "127.0.0.1:1"})
        async with daemon(tmp_path, file) as admin:
            await programmed(admin, 2)
            code, report = await run_test(admin, "web.test")
            (web,) = by_address(report)
            assert (web["service"], web["client"], web["state"]) == ("web.test", "host", "ok")
            code, report = await run_test(admin, "dead.test")
            (dead,) = by_address(report)
            assert (code, dead["state"], dead["outcome"]) == (1, "failed", "closed")
            assert dead["remedy"] == "vipmesh explain dead.test"
            code, output = await call(*VIPMESH, "test", "--admin", admin, "nothing.test")
            assert (code, output.strip()) == (
                1,
                ("vipmesh: there is no service nothing.test to test; `vipmesh status` lists the services [VM671]"),
            )


async def test_it_tests_again_until_the_time_is_over(tmp_path: Path) -> None:
    """The names cannot resolve here, so that it waits to the end; the report is that of the last test."""
    file = compose(tmp_path, {})
    async with http_server() as port, daemon(tmp_path, file) as admin:
        began = time.monotonic()
        code, report = await run_test(admin, "--wait", "1")
        assert (code, report["codes"]) == (1, ["VM671"])
        assert time.monotonic() - began >= 1
        compose(tmp_path, {"web.test": f"127.0.0.1:{port}"})
        code, report = await run_test(admin, "web.test", "--wait", "15")
        assert [row["state"] for row in by_address(report)] == ["ok"], "the service appeared while it waited"


async def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    code, output = await call(*VIPMESH, "test", "--admin", f"unix://{tmp_path}/nobody.sock")
    assert code == 1
    assert "no daemon answers" in output
    assert "[VM651]" in output


async def test_fifty_services_are_tested_at_once(tmp_path: Path) -> None:
    """How long that takes beside curl is measured by `bench/connectivity.py`."""
    async with http_server() as port:
        file = compose(tmp_path, {f"s{number}.test": f"127.0.0.1:{port}" for number in range(SERVICES)})
        async with daemon(tmp_path, file) as admin:
            await programmed(admin, SERVICES)
            _, report = await run_test(admin)
            assert [row["state"] for row in by_address(report)] == ["ok"] * SERVICES


@pytest.mark.parametrize("seconds", ["-1", "x", "1.5", "86401"])
def test_a_wait_that_is_no_number_of_seconds_is_wrong_usage(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args(["test", f"--wait={seconds}"])
    assert end.value.code == 2
    assert "is not a whole number of seconds from 0 to 86400" in capsys.readouterr().err


class LoopbackConnectivity:
    """A connectivity test whose one target is a port of loopback, on two workers that share one admin API."""

    def __init__(self, port: int, peer: str | None) -> None:
        target = ConnectivityTarget(
            "web.test", "demo/web", TargetKind.VIP, Transport.TCP, "127.0.0.1", port, endpoints=("127.0.0.1",)
        )
        self.asked: list[str | None] = []
        self._plan = ConnectivityPlan(
            "w1", "userspace", "127.0.0.0/8", None, None, None, 0.0, (target,), (PeerAddress("w2", peer),)
        )

    async def plan(self, asked: str | None) -> ConnectivityPlan:
        return self._plan

    async def run(self, asked: str | None) -> ConnectivityReport:
        self.asked.append(asked)
        target = self._plan.targets[0]
        rows = [
            make_row(client, target, RequestResult(outcome, 0.001), self._plan)
            for client, outcome in (
                ("host", RequestOutcome.ANSWERED),
                ("network desk (container web-1)", RequestOutcome.NO_ANSWER),
            )
        ]
        return make_report("w2", rows, [UntestedClient("network inner", "it is internal")], 0.1)


@asynccontextmanager
async def two_workers(
    directory: Path, connectivity: LoopbackConnectivity, *, over_tcp: bool = True, files: Mapping[str, Path] = EMPTY
) -> AsyncIterator[tuple[str, ...]]:
    """An admin API that answers for both workers; the options with which `vipmesh test` finds it. `files`: settings of
    `[admin]` for TLS. With `own_client_ca`, the settings of `vipmesh test` have it in the place of `client_ca`.
    """
    token = directory / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    port = free_port()
    of_server: dict[str, Any] = {name: file for name, file in files.items() if name != "own_client_ca"}
    entrance = AdminListenConfig(f"unix://{directory}/admin.sock", f"127.0.0.1:{port}", token, **of_server)
    settings = directory / "vipmesh.toml"
    lines = ["[admin]", f'listen = "unix://{directory}/admin.sock"']
    if over_tcp:
        lines += [f'tcp = "127.0.0.1:{port}"', f'token_file = "{token}"']
    own = {**of_server, "client_ca": files["own_client_ca"]} if "own_client_ca" in files else of_server
    lines += [f'{name} = "{file}"' for name, file in own.items()]
    settings.write_text("\n".join(lines) + "\n")
    api = AdminApi(entrance, lambda: OBSERVED, connectivity=connectivity)
    await api.start()
    try:
        yield ("-c", str(settings))
    finally:
        await api.stop()


async def run_with(options: Sequence[str], *more: str) -> tuple[int, dict[str, Any]]:
    code, output = await call(*VIPMESH, "test", "--json", *options, *more)
    return code, json.loads(output)


async def test_another_worker_is_asked_and_its_rows_have_its_name(tmp_path: Path) -> None:
    async with http_server() as port:
        connectivity = LoopbackConnectivity(port, "127.0.0.1")
        async with two_workers(tmp_path, connectivity) as options:
            code, report = await run_with(options, "web.test")
    assert connectivity.asked == ["web.test"]
    assert code == 1
    assert [(row["client"], row["state"]) for row in report["rows"]] == [
        ("host", "ok"),
        ("worker w2", "ok"),
        ("worker w2, network desk (container web-1)", "failed"),
    ]
    assert [client["client"] for client in report["untested"]] == ["worker w2, network inner"]


@pytest.mark.parametrize(
    ("peer", "over_tcp", "reason"),
    [
        ("127.0.0.1", False, "not asked: [admin] tcp is not set, so workers do not answer each other"),
        (None, True, "not asked: its address is not known, since it does not listen for peers"),
        ("127.0.0.2", True, "not asked: no daemon answers on 127.0.0.2:"),
    ],
)
async def test_a_worker_that_cannot_be_asked_is_listed_and_is_no_failure(
    tmp_path: Path, peer: str | None, over_tcp: bool, reason: str
) -> None:
    async with http_server() as port:
        connectivity = LoopbackConnectivity(port, peer)
        async with two_workers(tmp_path, connectivity, over_tcp=over_tcp) as options:
            code, report = await run_with(options)
    assert (code, connectivity.asked) == (0, [])
    (missed,) = report["untested"]
    assert missed["client"] == "worker w2"
    assert missed["reason"].startswith(reason)
    assert missed["remedy"] == "run `vipmesh test` on w2"


async def test_another_worker_is_asked_over_tls_if_its_certificate_is_trusted(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    cert, key = signed(ca, "w2", "/CN=w2", "IP:127.0.0.1", "serverAuth")
    files = {"cert": cert, "key": key, "client_ca": ca}
    async with http_server() as port:
        connectivity = LoopbackConnectivity(port, "127.0.0.1")
        async with two_workers(tmp_path, connectivity, files=files) as options:
            _, report = await run_with(options, "web.test")
    assert connectivity.asked == ["web.test"]
    assert [row["client"] for row in report["rows"]][1] == "worker w2"


@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [
        pytest.param("IP:127.0.0.9", True, "is for another name", id="another name"),
        pytest.param("IP:127.0.0.1", False, "is not trusted: self-signed certificate", id="another authority"),
    ],
)
async def test_a_worker_whose_certificate_is_not_trusted_gets_no_token(
    tmp_path: Path, name: str, trusted: bool, reason: str
) -> None:
    ca = authority(tmp_path)
    cert, key = signed(ca, "w2", "/CN=w2", name, "serverAuth")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    files = {"cert": cert, "key": key, "client_ca": ca, "own_client_ca": ca if trusted else authority(stranger)}
    async with http_server() as port:
        connectivity = LoopbackConnectivity(port, "127.0.0.1")
        async with two_workers(tmp_path, connectivity, files=files) as options:
            code, report = await run_with(options)
    assert (code, connectivity.asked) == (0, [])
    (missed,) = report["untested"]
    assert missed["reason"].startswith("not asked: the certificate of https://127.0.0.1:")
    assert reason in missed["reason"]
