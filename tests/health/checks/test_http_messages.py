"""The HTTP check without a network: the request that is sent, and the parsing of the response bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import __version__
from mesh.health.checks.http import MAX_HEAD_BYTES, NotHttpError, build_request, final_status
from mesh.model.probe import Probe, ProbeKind


def test_the_request() -> None:
    assert build_request("127.0.0.11", 18080, Probe(ProbeKind.HTTP, 18080, "/health?deep=1")) == (
        b"GET /health?deep=1 HTTP/1.1\r\nHost: 127.0.0.11:18080\r\n"
        b"User-Agent: vipmesh-probe/" + __version__.encode() + b"\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )


def test_an_ipv6_host_is_written_in_brackets() -> None:
    assert b"\r\nHost: [fd00::7]:80\r\n" in build_request("fd00::7", 80, Probe(ProbeKind.HTTP, 80, "/"))


@given(st.text().map(lambda text: "/" + text))
def test_a_path_cannot_inject_headers(path: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in path):
        return
    line, _, rest = build_request("127.0.0.1", 80, Probe(ProbeKind.HTTP, 80, path)).partition(b"\r\n")
    assert len(line.split(b" ")) == 3
    assert rest == build_request("127.0.0.1", 80, Probe(ProbeKind.HTTP, 80, "/")).partition(b"\r\n")[2]


@pytest.mark.parametrize(
    ("received", "status"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", 200, id="complete"),
        pytest.param(b"HTTP/1.0 503 Service Unavailable\r\nServer: x\r\n", 503, id="1.0"),
        pytest.param(b"HTTP/1.1 204\r\n", 204, id="no reason, no space"),
        pytest.param(b"HTTP/1.1 204 \r\n", 204, id="empty reason"),
        pytest.param(b"HTTP/1.1 200 OK\n", 200, id="bare line feed"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", 200, id="interim"),
        pytest.param(
            b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 X\r\n\r\nHTTP/1.1 404 N\r\n", 404, id="two"
        ),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n", 101, id="a switch is final"),
        pytest.param(b"", None, id="nothing yet"),
        pytest.param(b"HT", None, id="two letters"),
        pytest.param(b"HTTP/1.1 200 O", None, id="no end of line"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n", None, id="head of the interim answer is open"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP", None, id="after the interim answer"),
    ],
)
def test_final_status(received: bytes, status: int | None) -> None:
    assert final_status(received) == status


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP: 'SSH-2.0-OpenSSH_9.2'", id="ssh"),
        pytest.param(b"\x00\x01\x02", "not HTTP: '\\x00\\x01\\x02'", id="binary, without an end of line"),
        pytest.param(
            b"\x15\x03\x01\x00\x02\x02\x16", "not HTTP: the port speaks TLS; probe it with https://", id="TLS"
        ),
        pytest.param(b"HTTP/1.1 2000 OK\r\n", "not HTTP: 'HTTP/1.1 2000 OK'", id="four digits"),
        pytest.param(b"HTTP/1.1 OK\r\n", "not HTTP: 'HTTP/1.1 OK'", id="no code"),
        pytest.param(b"\r\nHTTP/1.1 200 OK\r\n", "not HTTP: ''", id="empty line first"),
        pytest.param(b"x" * MAX_HEAD_BYTES, f"not HTTP: {'x' * 40!r}", id="long"),
    ],
)
def test_a_reply_that_is_not_http_is_quoted(received: bytes, reason: str) -> None:
    with pytest.raises(NotHttpError) as caught:
        final_status(received)
    assert str(caught.value) == reason


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda rest: b"HTTP/1.1 1" + rest))
def test_any_bytes_give_a_status_more_or_not_http(received: bytes) -> None:
    try:
        status = final_status(received)
    except NotHttpError:
        status = None
    assert status is None or 100 <= status <= 999


@given(st.integers(0, 60), st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n"]))
def test_the_response_may_arrive_in_any_fragments(cut: int, interim: bytes) -> None:
    answer = interim + b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n"
    assert final_status(answer[:cut]) in (None, 301)
    assert final_status(answer) == 301


def test_probe_options_shape_the_request() -> None:
    probe = Probe(ProbeKind.HTTP, 80, method="POST", host="shop.example", headers=(("X-Token", "a"), ("Accept", "b")))
    assert build_request("10.0.0.7", 80, probe) == (
        b"POST / HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: vipmesh-probe/" + __version__.encode() + b"\r\n"
        b"Accept: b\r\nContent-Length: 0\r\nX-Token: a\r\nConnection: close\r\n\r\n"
    )
