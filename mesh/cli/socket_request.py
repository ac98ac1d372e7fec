"""One GET over a unix socket, for what nearly every response of a daemon is: status 200 and a body of a known length.

Python takes longer to import `http.client` than `vipmesh status` takes for everything else. For any other response
the caller asks again, by `http.client`.
"""

import socket
from collections.abc import Mapping
from typing import IO, NamedTuple

_MAX_HEADERS = 100
"""The most header fields; as `http.client` has it."""
_MAX_LINE = 65536
"""The most bytes of a line of the head; as `http.client` has it."""
_LENGTH_DIGITS = 12
"""The most digits of a length."""


class SocketReply(NamedTuple):
    """A response of status 200."""

    body: bytes
    headers: Mapping[str, str]
    """By their names in lower case."""


def get_over_socket(socket_path: str, target: str, accept: str, timeout: float, most: int) -> SocketReply | None:
    """Return the response to a GET of `target`, or None if it is none that `read_reply` returns.

    `timeout`: seconds of silence. `most`: bytes of a body. Raises `OSError`, and `ValueError` for a path that none can
    be.
    """
    if not (target.isascii() and target.isprintable()) or " " in target:
        return None
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\nAccept: {accept}\r\n\r\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(socket_path)
        connection.sendall(request.encode())
        with connection.makefile("rb") as stream:
            return read_reply(stream, accept, most)


def read_reply(stream: IO[bytes], accept: str, most: int) -> SocketReply | None:
    """Return the response in a stream: RFC 9112, with a body of type `accept` whose length its head says.

    None for any other one: an error, chunks, another type, more than `most` bytes, or an end before its end.
    """
    if stream.readline(_MAX_LINE) != b"HTTP/1.1 200 OK\r\n":
        return None
    headers: dict[str, str] = {}
    while (line := stream.readline(_MAX_LINE)) != b"\r\n":
        name, colon, text = line.decode("latin-1").partition(":")
        if not (colon and line.endswith(b"\r\n")) or name.lower() in headers or len(headers) >= _MAX_HEADERS:
            return None
        headers[name.lower()] = text.strip()
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS and int(length) <= most):
        return None
    if "transfer-encoding" in headers or headers.get("content-type", "").partition(";")[0].strip().lower() != accept:
        return None
    body = stream.read(int(length))
    return SocketReply(body, headers) if len(body) == int(length) else None
