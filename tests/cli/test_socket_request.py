"""The short way of a GET over a unix socket, and what it leaves to `http.client`."""

import io
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.client import Reply
from mesh.cli.main import main
from mesh.cli.socket_request import SocketReply, get_over_socket, read_reply
from mesh.cli.status import sent_at

JSON = "application/json"
OK = b"HTTP/1.1 200 OK\r\n"
TYPE = b"Content-Type: application/json; charset=utf-8\r\n"
PATIENCE = 30.0


def test_a_body_of_a_known_length_is_returned_with_its_headers() -> None:
    stream = io.BytesIO(OK + TYPE + b"Content-Length: 2\r\nVipmesh-Works: true\r\n\r\n{}and more")
    assert read_reply(stream, JSON, 2) == SocketReply(
        b"{}", {"content-type": "application/json; charset=utf-8", "content-length": "2", "vipmesh-works": "true"}
    )


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 409 Conflict\r\n" + TYPE + b"Content-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\n" + TYPE + b"Content-Length: 2\r\n\r\n{}",
        OK + TYPE + b"Content-Length: 2\r\n",
        OK + TYPE + b"\r\n{}",
        OK + TYPE + b"Content-Length: 3\r\n\r\n{}",
        OK + TYPE + b"Content-Length: 5\r\n\r\n12345",
        OK + TYPE + b"Content-Length: -1\r\n\r\n{}",
        OK + TYPE + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
        OK + TYPE + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        OK + TYPE + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        OK + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"Content-Length: 2\r\n\r\n{}",
        OK + TYPE + b"no colon\r\nContent-Length: 2\r\n\r\n{}",
        OK + TYPE + b"Long: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        OK + TYPE + b"".join(b"X-%d: a\r\n" % i for i in range(200)) + b"Content-Length: 2\r\n\r\n{}",
    ],
)
def test_any_other_response_is_left_to_http_client(response: bytes) -> None:
    assert read_reply(io.BytesIO(response), JSON, 4) is None


@given(st.binary(), st.sampled_from([b"", OK, OK + TYPE + b"Content-Length: "]))
def test_bytes_of_any_kind_are_a_response_or_none(body: bytes, head: bytes) -> None:
    found = read_reply(io.BytesIO(head + body), JSON, 100)
    assert found is None or len(found.body) <= 100


@contextmanager
def answering(path: Path, responses: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Listen at a unix socket, and answer each connection with the next response. Yields the requests."""
    asked: list[bytes] = []

    def serve() -> None:
        for response in responses:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(PATIENCE)
                asked.append(connection.recv(65536))
                connection.sendall(response)

    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(PATIENCE)
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def test_a_request_names_what_it_asks_for_and_accepts(tmp_path: Path) -> None:
    with answering(tmp_path / "s", [OK + TYPE + b"Content-Length: 2\r\n\r\n{}"]) as asked:
        found = get_over_socket(str(tmp_path / "s"), "/v1/status", JSON, PATIENCE, 100)
    assert found is not None
    assert found.body == b"{}"
    assert asked[0].startswith(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n")
    assert b"\r\nAccept: application/json\r\n" in asked[0]


@pytest.mark.parametrize("target", ["/v1/a b", "/v1/a\r\nX: y", "/v1/\xe4"])
def test_a_target_that_would_be_more_than_one_is_not_sent(target: str, tmp_path: Path) -> None:
    assert get_over_socket(str(tmp_path / "nobody"), target, JSON, PATIENCE, 100) is None


def test_the_client_asks_again_for_a_response_in_chunks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunks = OK + TYPE + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with answering(tmp_path / "s", [chunks, chunks]) as asked:
        assert main(["status", "--json", "--admin", f"unix://{tmp_path}/s"]) == 0
    assert capsys.readouterr().out == "{}\n"
    assert len(asked) == 2


def test_the_client_says_why_a_daemon_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal = b'HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n{"error": "no"}'
    with answering(tmp_path / "s", [refusal, refusal]):
        assert main(["status", "--admin", f"unix://{tmp_path}/s"]) == 1
    assert "refuses the request with status 404: no" in capsys.readouterr().err


def test_the_time_of_a_response_is_that_of_its_date() -> None:
    reply = Reply("", {"date": "Mon, 30 Nov 2026 14:05:09 GMT"})
    assert sent_at(reply) == datetime(2026, 11, 30, 14, 5, 9, tzinfo=UTC)


@pytest.mark.parametrize("date", ["", "now", "Mon, 30 Foo 2026 14:05:09 GMT", "Mon, 31 Nov 2026 14:05:09 GMT"])
def test_without_a_date_that_can_be_read_it_is_the_time_here(date: str) -> None:
    before = datetime.now(UTC)
    assert before <= sent_at(Reply("", {"date": date})) <= datetime.now(UTC)
