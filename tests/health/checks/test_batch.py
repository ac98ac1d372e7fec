"""Batched plain checks give the same verdicts as single checks, and release their sockets."""

import asyncio
import os
import select
import socket
import sys
from dataclasses import replace

import pytest
from typing_extensions import override

from mesh.health.checks.batch import CheckBatch, PlainCheck, is_plain
from mesh.health.checks.http import MAX_HEAD_BYTES, build_request
from mesh.health.checks.tcp import ResourceLackError
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe, ProbeKind
from mesh.util.sockets import LACK_ERRNOS
from tests.health.checks.endpoints import TIME_WAIT, Script, closes, endpoint, hangs, says, socket_states, until
from tests.health.checks.test_http import reset

HTTP = Probe(ProbeKind.HTTP, None, timeout=2.0)
TCP = Probe(ProbeKind.TCP, None, timeout=2.0)


async def verdicts(volley: CheckBatch, *questions: tuple[str, int, Probe]) -> list[Verdict]:
    """Ask all at once; in the order in which they were answered."""
    found: list[Verdict | ResourceLackError] = []
    for address, port, probe in questions:
        sent = build_request(address, port, probe) if probe.kind is ProbeKind.HTTP else b""
        volley.begin(PlainCheck(probe, sent, found.append), address, port)
    async with asyncio.timeout(10):
        while len(found) < len(questions):
            volley.look()
            volley.expire()
            await asyncio.sleep(0.001)
    assert not len(volley)
    return [verdict for verdict in found if isinstance(verdict, Verdict)]


async def one(host: str, port: int, probe: Probe) -> Verdict:
    volley = CheckBatch()
    try:
        [verdict] = await verdicts(volley, (host, port, probe))
    finally:
        volley.close()
    return verdict


@pytest.mark.parametrize(
    ("script", "ok", "reason"),
    [
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), True, "status 200", id="200"),
        pytest.param(says(b"HTTP/1.1 404 Not Found\r\n\r\n"), False, "status 404", id="404"),
        pytest.param(
            says(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"), True, "status 200", id="1xx first"
        ),
        pytest.param(
            says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n"), False, "status 503", id="1xx in one piece"
        ),
        pytest.param(says(b"HTT", b"P/1.1 20", b"0 OK\r", b"\n"), True, "status 200", id="in pieces"),
        pytest.param(says(b"SSH-2.0-x\r\n"), False, "not HTTP: 'SSH-2.0-x'", id="garbage"),
        pytest.param(
            says(b"HTTP/1.1 103 " + b"x" * MAX_HEAD_BYTES),
            False,
            f"not HTTP: no final status in {MAX_HEAD_BYTES} bytes",
            id="endless",
        ),
        pytest.param(closes, False, "closed before an answer", id="close"),
        pytest.param(lambda t: (t.write(b"HTTP/1.1 2"), t.close()), False, "closed before an answer", id="close early"),
        pytest.param(reset, False, "reset before an answer", id="reset"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_answer_is_a_verdict(host: str, script: Script, ok: bool, reason: str) -> None:
    async with endpoint(script, host) as (port, requests, open_ones):
        verdict = await one(host, port, HTTP)
        assert (verdict.ok, verdict.reason) == (ok, reason)
        assert 0 < verdict.duration < 1
        await until(lambda: not open_ones)
    assert requests == [build_request(host, port, HTTP)]
    assert TIME_WAIT not in socket_states(port)


async def test_tcp_only_connects() -> None:
    async with endpoint(hangs) as (port, requests, open_ones):
        verdict = await one("127.0.0.1", port, TCP)
        assert (verdict.ok, verdict.reason) == (True, "connected")
        await until(lambda: not open_ones)
    assert not requests
    assert TIME_WAIT not in socket_states(port)


@pytest.mark.parametrize("probe", [HTTP, TCP])
async def test_a_closed_port_is_refused(probe: Probe) -> None:
    verdict = await one("127.0.0.1", 1, probe)
    assert (verdict.ok, verdict.reason) == (False, "refused")


async def test_an_unreachable_network_is_a_failure() -> None:
    verdict = await one("255.255.255.255", 80, TCP)
    assert (verdict.ok, verdict.reason) in [
        (False, "this worker cannot ask: permission denied"),
        (False, "network is unreachable"),
    ]


async def test_no_answer_in_time_and_not_before() -> None:
    hasty = replace(HTTP, timeout=0.2)
    async with endpoint(hangs) as (port, _, open_ones):
        verdict = await one("127.0.0.1", port, hasty)
        assert (verdict.ok, verdict.reason) == (False, "no answer in 0.2 s")
        assert 0.2 <= verdict.duration < 2
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)


async def test_a_short_timeout_expires_before_a_long_one() -> None:
    volley = CheckBatch()
    async with endpoint(hangs) as (port, _, _):
        questions = [("127.0.0.1", port, replace(HTTP, timeout=seconds)) for seconds in (0.3, 0.1, 0.3, 0.1)]
        found = await verdicts(volley, *questions)
    assert [verdict.reason for verdict in found] == ["no answer in 0.1 s"] * 2 + ["no answer in 0.3 s"] * 2
    assert volley.next_deadline() is None
    volley.close()


async def test_an_answer_that_arrived_in_time_counts_although_it_is_read_late() -> None:
    """As after the process was suspended."""
    volley, found = CheckBatch(), list[Verdict | ResourceLackError]()
    async with endpoint(says(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, requests, _):
        probe = replace(HTTP, timeout=0.05)
        volley.begin(PlainCheck(probe, build_request("127.0.0.1", port, probe), found.append), "127.0.0.1", port)
        while not requests:
            volley.look()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        volley.look()
        volley.expire()
    volley.close()
    assert [verdict.reason for verdict in found if isinstance(verdict, Verdict)] == ["status 200"]


async def test_a_hundred_checks_run_at_once() -> None:
    volley = CheckBatch()
    async with endpoint(says(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, _, open_ones):
        found = await verdicts(volley, *[("127.0.0.1", port, HTTP)] * 80, *[("127.0.0.1", 1, TCP)] * 40)
        await until(lambda: not open_ones)
    volley.close()
    assert sum(verdict.ok for verdict in found) == 80
    assert {verdict.reason for verdict in found} == {"status 200", "refused"}
    assert TIME_WAIT not in socket_states(port)


async def test_a_cancelled_check_reports_nothing_and_closes_its_socket() -> None:
    volley, found = CheckBatch(), list[Verdict | ResourceLackError]()
    async with endpoint(hangs) as (port, requests, open_ones):
        shots = [PlainCheck(HTTP, build_request("127.0.0.1", port, HTTP), found.append) for _ in range(3)]
        for shot in shots:
            volley.begin(shot, "127.0.0.1", port)
        while len(requests) < 3:
            volley.look()
            await asyncio.sleep(0.001)
        volley.cancel(shots[0])
        volley.cancel(shots[0])
        await until(lambda: len(open_ones) == 2)
        volley.close()
        await until(lambda: not open_ones)
    assert not found
    assert TIME_WAIT not in socket_states(port)


async def test_a_request_larger_than_the_send_buffer_is_sent_whole() -> None:
    probe = replace(HTTP, headers=tuple((f"X-{number}", "x" * 4000) for number in range(200)))

    def script(transport: asyncio.Transport) -> None:
        if b"".join(received[0]).endswith(b"\r\n\r\n"):
            transport.write(b"HTTP/1.1 200 OK\r\n\r\n")

    received: list[list[bytes]] = []
    async with endpoint(script) as (port, requests, _):
        received.append(requests)
        assert (await one("127.0.0.1", port, probe)).ok
    assert b"".join(requests) == build_request("127.0.0.1", port, probe)


async def test_the_request_ends_the_handshake() -> None:
    """The kernel sends the last packet of the handshake alone if it has waited too long for the request, as on a busy
    machine: in one of several connections it does not.
    """
    async with endpoint(hangs) as (port, _, _):
        volley = CheckBatch()
        try:
            sent = [segments_until_connected(volley, port) for _ in range(50)]
        finally:
            volley.close()
    assert min(sent) == 1


def segments_until_connected(volley: CheckBatch, port: int) -> int:
    """How many segments a check has sent when it is connected and has sent no request (struct tcp_info, linux/tcp.h:
    the state is byte 0, TCP_ESTABLISHED is 1, the segments are at 136).
    """
    check = PlainCheck(HTTP, b"GET / HTTP/1.1\r\n\r\n", lambda verdict: None)
    volley.begin(check, "127.0.0.1", port)
    assert check.sock is not None
    select.select([], [check.sock.fileno()], [], 30)
    told = check.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    assert told[0] == 1
    return int.from_bytes(told[136:140], sys.byteorder)


class LackingSocket(socket.socket):
    """A socket that lacks a resource in one of its calls."""

    place = ""
    error: OSError | MemoryError = OSError()

    @classmethod
    def lack(cls, place: str, error: OSError | MemoryError) -> type["LackingSocket"]:
        return type("Lacking", (cls,), {"place": place, "error": error})

    def _come_to(self, place: str) -> None:
        if self.place == place:
            raise self.error

    def __init__(self, *args: int) -> None:
        self._come_to("socket")
        super().__init__(*args)

    @override
    def setsockopt(self, *args: object) -> None:
        self._come_to("setsockopt")
        super().setsockopt(*args)  # type: ignore[call-overload]

    @override
    def connect_ex(self, address: object) -> int:
        if self.place == "connect":
            assert isinstance(self.error, OSError)
            return self.error.errno or 0
        return super().connect_ex(address)  # type: ignore[arg-type]

    @override
    def send(self, *args: object) -> int:
        self._come_to("send")
        return super().send(*args)  # type: ignore[arg-type]

    @override
    def recv(self, *args: int) -> bytes:
        self._come_to("recv")
        return super().recv(*args)


LACKS: list[OSError] = [OSError(code, "x") for code in sorted(LACK_ERRNOS)]


@pytest.mark.parametrize("error", [*LACKS, MemoryError()], ids=repr)
@pytest.mark.parametrize("place", ["socket", "setsockopt", "connect", "send", "recv"])
@pytest.mark.parametrize("probe", [TCP, HTTP], ids=["tcp", "http"])
async def test_what_this_worker_lacks_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, probe: Probe, place: str, error: OSError | MemoryError
) -> None:
    if probe is TCP and place in ("send", "recv"):
        return  # nothing is sent
    if isinstance(error, BlockingIOError) and place in ("send", "recv"):
        return  # the socket is not ready yet
    if isinstance(error, MemoryError) and place == "connect":
        return  # the kernel says ENOMEM
    async with endpoint(says(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, _, _):
        monkeypatch.setattr(socket, "SocketType", LackingSocket.lack(place, error))
        volley, found = CheckBatch(), list[object]()
        request = build_request("127.0.0.1", port, probe) if probe.kind is ProbeKind.HTTP else b""
        volley.begin(PlainCheck(probe, request, found.append), "127.0.0.1", port)
        monkeypatch.undo()
        while not found:
            volley.look()
            await asyncio.sleep(0.01)
        volley.close()
    (lack,) = found
    assert isinstance(lack, ResourceLackError)
    assert str(lack) == (os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "out of memory")


@pytest.mark.parametrize(
    ("probe", "plain"),
    [
        (TCP, True),
        (HTTP, True),
        (replace(HTTP, expect_body="x"), False),
        (replace(HTTP, follow_redirects=True), False),
        (replace(HTTP, kind=ProbeKind.HTTPS), False),
        (replace(HTTP, kind=ProbeKind.COMMAND), False),
    ],
)
def test_which_probes_can_be_batched(probe: Probe, plain: bool) -> None:
    assert is_plain(probe) is plain
