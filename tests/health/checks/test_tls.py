"""The HTTPS check over real sockets."""

import ssl
from dataclasses import replace

import pytest

from mesh.health.checks import network_checks
from mesh.health.checks.http import check_http
from mesh.model.probe import Probe, ProbeKind
from tests.health.checks.endpoints import DATA, TIME_WAIT, endpoint, hangs, says, socket_states, until

PROBE = Probe(ProbeKind.HTTPS, None, timeout=2.0)
OK = says(b"HTTP/1.1 200 OK\r\n\r\n")


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=DATA / "endpoint-cert.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_trusted_certificate_for_the_address_is_accepted(host: str) -> None:
    async with endpoint(OK, host, tls=True) as (port, requests, open_ones):
        verdict = await check_http(host, port, PROBE, tls=trusting())
        assert (verdict.ok, verdict.reason) == (True, "status 200")
        await until(lambda: not open_ones)
    assert requests
    assert TIME_WAIT not in socket_states(port)


async def test_a_self_signed_certificate_is_refused_by_default() -> None:
    async with endpoint(OK, tls=True) as (port, requests, _):
        verdict = await network_checks()[ProbeKind.HTTPS]("127.0.0.1", port, PROBE)
    assert (verdict.ok, verdict.reason) == (False, "certificate refused: self-signed certificate")
    assert not requests


async def test_a_certificate_for_another_name_is_refused() -> None:
    async with endpoint(OK, "127.0.0.2", tls=True) as (port, requests, _):
        verdict = await check_http("127.0.0.2", port, PROBE, tls=trusting())
    assert not verdict.ok
    assert verdict.reason.startswith("certificate refused: IP address mismatch")
    assert not requests


async def test_an_https_check_of_a_plain_endpoint_fails() -> None:
    async with endpoint(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (port, _, open_ones):
        verdict = await check_http("127.0.0.1", port, PROBE, tls=trusting())
        await until(lambda: not open_ones)
    assert not verdict.ok
    assert verdict.reason.startswith("TLS failed: ")


async def test_an_http_check_of_a_tls_endpoint_fails() -> None:
    async with endpoint(OK, tls=True) as (port, _, _):
        verdict = await check_http("127.0.0.1", port, PROBE)
    assert (verdict.ok, verdict.reason) == (False, "closed before an answer")


async def test_the_timeout_covers_the_handshake() -> None:
    async with endpoint(hangs) as (port, _, open_ones):
        verdict = await check_http("127.0.0.1", port, replace(PROBE, timeout=0.2), tls=trusting())
        assert (verdict.ok, verdict.reason) == (False, "no answer in 0.2 s")
        assert 0.19 < verdict.duration < 0.5
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)


async def test_the_timeout_covers_the_answer_over_tls() -> None:
    async with endpoint(hangs, tls=True) as (port, requests, open_ones):
        verdict = await check_http("127.0.0.1", port, replace(PROBE, timeout=0.3), tls=trusting())
        assert (verdict.ok, verdict.reason) == (False, "no answer in 0.3 s")
        await until(lambda: not open_ones)
    assert requests
    assert TIME_WAIT not in socket_states(port)
