"""The HTTP check over real sockets: every way an endpoint can answer or fail, and every socket closed afterwards."""

import asyncio
import errno
import socket
from dataclasses import replace

import pytest

from mesh.health.checks.http import MAX_HEAD_BYTES, check_http
from mesh.health.checks.tcp import explain_error
from mesh.model.probe import Probe, ProbeKind
from tests.health.checks.endpoints import TIME_WAIT, Script, closes, endpoint, hangs, says, socket_states, until

PROBE = Probe(ProbeKind.HTTP, None, timeout=2.0)
HASTY = replace(PROBE, timeout=0.2)


@pytest.mark.parametrize(
    ("script", "ok", "reason"),
    [
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), True, "status 200", id="200"),
        pytest.param(says(b"HTTP/1.1 204 No Content\r\n\r\n"), True, "status 204", id="204"),
        pytest.param(
            says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), True, "status 302", id="302"
        ),
        pytest.param(says(b"HTTP/1.1 404 Not Found\r\n\r\n"), False, "status 404", id="404"),
        pytest.param(says(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), False, "status 503", id="503"),
        pytest.param(
            says(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"), True, "status 200", id="1xx first"
        ),
        pytest.param(says(b"HTT", b"P/1.1 20", b"0 OK\r", b"\n"), True, "status 200", id="in pieces"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nX-Never-Ending: "), True, "status 200", id="slow headers do not matter"),
        pytest.param(says(b"SSH-2.0-x\r\n"), False, "not HTTP: 'SSH-2.0-x'", id="garbage"),
        pytest.param(
            says(b"HTTP/1.1 103 " + b"x" * MAX_HEAD_BYTES),
            False,
            f"not HTTP: no final status in {MAX_HEAD_BYTES} bytes",
            id="endless",
        ),
        pytest.param(closes, False, "closed before an answer", id="close"),
        pytest.param(lambda t: (t.write(b"HTTP/1.1 2"), t.close()), False, "closed before an answer", id="close early"),
    ],
)
async def test_an_answer_is_a_verdict(script: Script, ok: bool, reason: str) -> None:
    async with endpoint(script) as (port, _, open_ones):
        verdict = await check_http("127.0.0.1", port, PROBE)
        assert (verdict.ok, verdict.reason) == (ok, reason)
        assert 0 < verdict.duration < 1
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(hangs, id="says nothing"),
        pytest.param(says(b"HTTP/1.1 100 Continue\r\n\r\n"), id="only an interim answer"),
        pytest.param(says(*(b"HTTP/1.1 200 OK"[i : i + 1] for i in range(15))), id="no end of the line"),
    ],
)
async def test_no_answer_in_time(script: Script) -> None:
    async with endpoint(script) as (port, _, open_ones):
        verdict = await check_http("127.0.0.1", port, HASTY)
        assert (verdict.ok, verdict.reason) == (False, "no answer in 0.2 s")
        assert 0.19 < verdict.duration < 0.5
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)


async def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    verdict = await check_http("127.0.0.1", port, PROBE)
    assert (verdict.ok, verdict.reason) == (False, "refused")


async def test_reset() -> None:
    async with endpoint(reset) as (port, _, _):
        verdict = await check_http("127.0.0.1", port, PROBE)
    assert (verdict.ok, verdict.reason) == (False, "reset before an answer")


def reset(transport: asyncio.Transport) -> None:
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    transport.abort()


async def test_the_probe_sets_the_expected_statuses() -> None:
    probe = replace(PROBE, expect_status=((401, 401), (500, 599)))
    for status, ok in ((200, False), (401, True), (402, False), (500, True), (599, True)):
        async with endpoint(says(b"HTTP/1.1 %d X\r\n" % status)) as (port, _, _):
            verdict = await check_http("127.0.0.1", port, probe)
        assert (verdict.ok, verdict.reason) == (ok, f"status {status}")


async def test_the_endpoint_receives_one_small_request() -> None:
    async with endpoint(says(b"HTTP/1.1 200 OK\r\n")) as (port, requests, _):
        await check_http("127.0.0.1", port, replace(PROBE, path="/ready"))
    [request] = requests
    assert request.startswith(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)


async def test_ipv6() -> None:
    async with endpoint(says(b"HTTP/1.1 200 OK\r\n"), host="::1") as (port, requests, _):
        verdict = await check_http("::1", port, PROBE)
    assert verdict.ok
    assert b"Host: [::1]:%d\r\n" % port in requests[0]
    assert TIME_WAIT not in socket_states(port)


async def test_a_cancelled_check_closes_its_connection() -> None:
    async with endpoint(hangs) as (port, requests, open_ones), asyncio.TaskGroup() as group:
        task = group.create_task(check_http("127.0.0.1", port, PROBE))
        await until(lambda: bool(requests))
        task.cancel()
        await until(lambda: not open_ones)
    assert task.cancelled()
    assert TIME_WAIT not in socket_states(port)


async def test_an_ordinary_client_would_leave_time_wait_behind() -> None:
    """The measure of the other tests: it does see what they say is not there."""
    async with endpoint(hangs) as (port, _, open_ones):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: bool(open_ones))
        writer.close()
        await writer.wait_closed()
        await until(lambda: not open_ones)
        await until(lambda: TIME_WAIT in socket_states(port))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EHOSTUNREACH, "Connect call failed"), "no route to host"),
        (OSError(errno.EMFILE, "x"), "this worker cannot ask: too many open files"),
        (OSError(errno.ETIMEDOUT, "x"), "connection timed out"),
        (OSError("odd"), "odd"),
        (TimeoutError(), ""),
    ],
)
def test_errors_are_described_in_words(error: OSError, reason: str) -> None:
    assert explain_error(error) == reason
