"""HTTP checks that read the body or follow redirects, over real sockets."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from mesh.health.checks import network_checks
from mesh.health.checks.http_body import MAX_BODY_BYTES, check_http_body
from mesh.model.probe import Probe, ProbeKind
from tests.health.checks.endpoints import TIME_WAIT, Script, closes, endpoint, hangs, says, socket_states, until
from tests.health.checks.test_tls import trusting

PROBE = Probe(ProbeKind.HTTP, None, timeout=2.0, expect_body="ready")
FOLLOWING = Probe(ProbeKind.HTTP, None, path="/a?x=1", timeout=2.0, follow_redirects=True, expect_status=((200, 299),))


def answer(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    lines = (b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "ok", "reason"),
    [
        pytest.param(says(answer(b"it is ready")), True, "status 200", id="there"),
        pytest.param(says(CHUNKED, b"3\r\nrea\r\n2\r\ndy\r\n"), True, "status 200", id="in chunks, end not needed"),
        pytest.param(
            says(answer(b"no")), False, "status 200, but the body does not contain 'ready'", id="something else"
        ),
        pytest.param(says(answer(b"ready", b"503 X")), False, "status 503", id="status counts first"),
        pytest.param(
            says(answer(b"x" * MAX_BODY_BYTES + b"ready")),
            False,
            "status 200, but the body does not contain 'ready'",
            id="too far behind",
        ),
        pytest.param(closes, False, "closed before an answer", id="closed"),
        pytest.param(
            lambda t: (t.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nre"), t.close()),
            False,
            "closed within the body of an answer",
            id="closed in the body",
        ),
        pytest.param(says(b"SSH-2.0-x\r\n"), False, "not HTTP: ", id="garbage"),
    ],
)
async def test_the_expected_body_decides(script: Script, ok: bool, reason: str) -> None:
    async with endpoint(script) as (port, requests, open_ones):
        verdict = await check_http_body("127.0.0.1", port, PROBE)
        assert verdict.ok is ok
        assert verdict.reason == reason or (reason.endswith(": ") and verdict.reason.startswith(reason))
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)
    [request] = requests
    assert b"\r\nUser-Agent: vipmesh-probe/" in request
    assert b"accept-encoding" not in request.lower()


async def test_no_answer_in_time() -> None:
    for script in (hangs, says(CHUNKED, b"3\r\nrea\r\n")):
        async with endpoint(script) as (port, _, open_ones):
            verdict = await check_http_body("127.0.0.1", port, replace(PROBE, timeout=0.2))
            assert (verdict.ok, verdict.reason) == (False, "no answer in 0.2 s")
            await until(lambda: not open_ones)
        assert TIME_WAIT not in socket_states(port)


async def test_a_closed_port_is_refused() -> None:
    verdict = await check_http_body("127.0.0.1", 1, PROBE)
    assert (verdict.ok, verdict.reason) == (False, "refused")


async def test_over_tls() -> None:
    async with endpoint(says(answer(b"ready")), tls=True) as (port, _, open_ones):
        probe = replace(PROBE, kind=ProbeKind.HTTPS)
        verdict = await check_http_body("127.0.0.1", port, probe, tls=trusting())
        assert (verdict.ok, verdict.reason) == (True, "status 200")
        verdict = await check_http_body("127.0.0.1", port, replace(probe, host="shop.example:80"), tls=trusting())
        assert verdict.reason.startswith("certificate refused: Hostname mismatch, certificate is not valid for 'shop.")
        verdict = await network_checks()[ProbeKind.HTTPS]("127.0.0.1", port, probe)
        assert (verdict.ok, verdict.reason) == (False, "certificate refused: self-signed certificate")
        verdict = await network_checks()[ProbeKind.HTTPS]("127.0.0.1", port, replace(probe, tls_verify=False))
        assert (verdict.ok, verdict.reason) == (True, "status 200")
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)


def redirects(where: Callable[[int], bytes]) -> tuple[Script, list[int]]:
    """Redirect each request to what the number of it gives; an empty one is the answer 200."""
    count: list[int] = []

    def script(transport: asyncio.Transport) -> None:
        location = where(len(count))
        count.append(1)
        transport.write(answer(b"", b"302 Found", b"Location: " + location) if location else answer(b""))

    return script, count


@pytest.mark.parametrize(
    ("location", "ok", "reason"),
    [
        pytest.param(b"/b?y=2", True, "status 200", id="absolute path"),
        pytest.param(b"b", True, "status 200", id="relative path"),
        pytest.param(b"http://{here}/b", True, "status 200", id="the same place in full"),
        pytest.param(b"http://192.0.2.1/?t=secret", False, "the redirect leads away, to http://192.0.2.1", id="away"),
        pytest.param(b"https://{here}/", False, "the redirect leads away, to https://{here}", id="to TLS"),
        pytest.param(b"mailto:a@b", False, "the redirect leads away, to mailto", id="not HTTP"),
        pytest.param(b"//\x02\x1b[2J/", False, "the redirect leads to an invalid URL", id="no host"),
        pytest.param(b"http://[", False, "the redirect leads to an invalid URL", id="no URL"),
    ],
)
async def test_redirects_to_the_endpoint_itself_are_followed(location: bytes, ok: bool, reason: str) -> None:
    here = [b""]
    script, _ = redirects(lambda number: location.replace(b"{here}", here[0]) if number == 0 else b"")
    async with endpoint(script) as (port, requests, open_ones):
        here[0] = b"127.0.0.1:%d" % port
        verdict = await check_http_body("127.0.0.1", port, FOLLOWING)
        await until(lambda: not open_ones)
    assert (verdict.ok, verdict.reason) == (ok, reason.replace("{here}", here[0].decode()))
    assert "secret" not in verdict.reason
    if ok:
        assert requests[1].split(b" ")[1] in (b"/b", b"/b?y=2")
    assert TIME_WAIT not in socket_states(port)


async def test_redirects_without_end_are_not_followed_forever() -> None:
    script, count = redirects(lambda number: b"/%d" % number)
    async with endpoint(script) as (port, _, _):
        verdict = await check_http_body("127.0.0.1", port, FOLLOWING)
    assert (verdict.ok, verdict.reason, len(count)) == (False, "more than 5 redirects", 6)


async def test_redirects_are_not_followed_by_default() -> None:
    script, count = redirects(lambda _: b"/b")
    async with endpoint(script) as (port, _, _):
        verdict = await network_checks()[ProbeKind.HTTP]("127.0.0.1", port, replace(FOLLOWING, follow_redirects=False))
    assert (verdict.ok, verdict.reason, len(count)) == (False, "status 302", 1)
