"""The TCP check over real sockets."""

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest

from mesh.health.checks.tcp import await_verdict, check_tcp
from mesh.model.probe import Probe, ProbeKind
from tests.health.checks.endpoints import TIME_WAIT, endpoint, hangs, socket_states, until

PROBE = Probe(ProbeKind.TCP, None, timeout=5)
HASTY = replace(PROBE, timeout=0.2)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_accepted_connection_is_healthy(host: str) -> None:
    async with endpoint(hangs, host) as (port, requests, open_ones):
        verdict = await check_tcp(host, port, PROBE)
        assert (verdict.ok, verdict.reason) == (True, "connected")
        await until(lambda: not open_ones)
        assert not requests
    assert TIME_WAIT not in socket_states(port)


async def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    verdict = await check_tcp("127.0.0.1", port, PROBE)
    assert (verdict.ok, verdict.reason) == (False, "refused")


async def test_a_full_backlog_is_no_answer() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # more than the queue takes: the kernel then drops every SYN
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        verdict = await check_tcp("127.0.0.1", server.getsockname()[1], HASTY)
    assert (verdict.ok, verdict.reason) == (False, "no answer in 0.2 s")
    assert 0.19 < verdict.duration < 2


async def test_a_programming_error_is_raised_and_not_a_verdict() -> None:
    async def mistaken() -> tuple[bool, str]:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await await_verdict(mistaken(), 1.0)
