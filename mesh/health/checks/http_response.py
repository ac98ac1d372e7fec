"""Parses HTTP/1 responses as their bytes arrive: the one parser of all HTTP checks.

It accepts what curl accepts, because that is what works for the endpoint's other clients: header lines of any length
within the limit, any number of them, odd header names, lines that end with a bare LF, equal lengths that are repeated.
It is stricter where two readers would see different bodies: lengths that differ or are not numbers, transfer codings
that were not asked for. Syntax: RFC 9112, sections 4 to 7; interim responses: RFC 9110, section 15.2.
"""

import re
from enum import Enum, auto

MAX_HEAD_BYTES = 307_200
"""Bytes within which the head of the final response must end, interim responses included."""
MAX_BODY_BYTES = 65_536
"""Bytes of the body that are searched."""

_MAX_FRAMING_BYTES = 1_048_576
"""Bytes that chunk sizes and their extensions may take."""
_MAX_LENGTH_DIGITS = 18
"""A longer Content-Length counts as endless."""
_ENDLESS = 10**_MAX_LENGTH_DIGITS

_STATUS_LINE = re.compile(rb"HTTP/(?:1\.[01]|2(?:\.0)?) +([1-9][0-9]{2})(?![0-9])[^\n\0]*\n", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_NO_BODY = frozenset((101, 204, 304))
_TLS_ALERT = b"\x15\x03"
"""A record of type alert (RFC 8446, section 5.1), which a TLS server sends in response to plain text."""

# Header lines that need no closer look: they say nothing of the body, and their names are ordinary. The quantifiers
# are possessive, so that no input takes more than linear time.
_ORDINARY_LINES = (
    rb"(?:(?:[!#-9;-BD-SU-bd-su-~]|[cC](?!(?i:ontent-length))|[tT](?!(?i:ransfer-encoding)))"
    rb"[!#-9;-~]*+:[^\0\r\n]*+\r\n)*+"
)
_ORDINARY_HEAD = re.compile(
    _ORDINARY_LINES
    + rb"(?:[cC]ontent-[lL]ength: ?[0-9]{1,18}\r\n|[tT]ransfer-[eE]ncoding: ?chunked\r\n)?"
    + _ORDINARY_LINES
    + rb"\r\n"
)


class NotHttpError(Exception):
    """The bytes are not a response of an HTTP/1 server. The text begins with "not HTTP: "."""


class _State(Enum):
    """What the next byte belongs to."""

    STATUS_LINE = auto()
    HEADER_LINES = auto()
    BODY = auto()
    """A body with a length, or one that ends with the connection."""
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    ENDED = auto()


class HttpResponse:
    """Parses the bytes of one response. Each byte is looked at once, however small the pieces are."""

    # 14 attributes: the state of one state machine, all of which the next byte may change.

    def __init__(self, method: str = "GET", wanted: bytes = b"", body_bytes: int = MAX_BODY_BYTES) -> None:
        """`method` is that of the request. `wanted` is searched for in the first `body_bytes` of the body; empty: the
        body is not kept.
        """
        self.status: int | None = None
        """The final status; None until its line is complete."""
        self.location: bytes | None = None
        """The value of the first Location header that is not empty, or None if there is none so far."""
        self.found = False
        """Whether the body contains `wanted` within its first `body_bytes`."""
        self._most = body_bytes
        self._method = method
        self._wanted = wanted
        self._state = _State.STATUS_LINE
        self._buffer = bytearray()
        self._scanned = 0
        """Bytes of the buffer that contain no line end."""
        self._line_bytes = 0
        """Bytes of all lines so far."""
        self._first_line = True
        """Whether the next line is the first after the status line."""
        self._framing = _BodyFraming()
        self._left = 0
        """Bytes of the body or the chunk that are still to come."""
        self._body = bytearray()

    @property
    def head_ended(self) -> bool:
        """Whether all headers of the final response are known."""
        return self._state not in (_State.STATUS_LINE, _State.HEADER_LINES)

    @property
    def ended(self) -> bool:
        """Whether no more bytes are needed: the body has ended or is known as far as it is searched."""
        return self._state is _State.ENDED

    def feed(self, data: bytes | memoryview) -> None:
        """Process the next bytes. Raises `NotHttpError`; the response must not be used afterwards."""
        if self._state is _State.ENDED:
            return
        self._buffer += data
        while self._advance():
            pass

    def close(self) -> bool:
        """Process the end of the connection; returns whether the response is complete.

        Like curl, it takes a head that is cut off after the status line for a complete one.
        """
        match self._state:
            case _State.HEADER_LINES:
                complete = self.status is not None
            case _State.BODY:
                complete = self._framing.length is None
            case state:
                complete = state is _State.ENDED
        self._state = _State.ENDED
        return complete

    def _advance(self) -> bool:
        """Process one line or one piece of the body. Returns False if more bytes are needed, or none."""
        match self._state:
            case _State.BODY | _State.CHUNK_DATA:
                return self._take_body()
            case _State.ENDED:
                self._buffer.clear()
                return False
        line = self._next_line()
        if line is None:
            return False
        match self._state:
            case _State.STATUS_LINE:
                self._take_status_line(line)
            case _State.HEADER_LINES:
                self._take_header_line(line)
            case _State.CHUNK_SIZE:
                self._take_chunk_size(line)
            case _:
                self._take_chunk_end(line)
        return True

    def _next_line(self) -> bytes | None:
        """Return the next line with its end, or None if it is not complete. Raises `NotHttpError` beyond the limit."""
        end = self._buffer.find(b"\n", self._scanned) + 1
        length = end or len(self._buffer)
        if self._state is _State.STATUS_LINE and not end:
            _expect_http(self._buffer)
        if self.head_ended:
            if self._line_bytes + length > _MAX_FRAMING_BYTES:
                raise NotHttpError("not HTTP: endless chunk sizes")
        elif self._line_bytes + length >= MAX_HEAD_BYTES:
            what = "no final status" if self.status is None else "no end of the headers"
            raise NotHttpError(f"not HTTP: {what} in {MAX_HEAD_BYTES} bytes")
        if not end:
            self._scanned = length
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._scanned = 0
        self._line_bytes += end
        return line

    def _take_status_line(self, line: bytes) -> None:
        status = parse_status_line(line)
        if status >= 200 or status == 101:  # after 101 (Switching Protocols) only the other protocol follows
            self.status = status
        self._state = _State.HEADER_LINES
        self._first_line = True

    def _take_header_line(self, line: bytes) -> None:
        if line in (b"\r\n", b"\n"):
            self._end_head()
            return
        folded = line[0] in b" \t"
        if b"\0" in line or (self._first_line if folded else b":" not in line):
            raise NotHttpError(f"not HTTP: the header line {_quote(line)}")
        self._first_line = False
        # A folded line continues the value of the header before it, none of which matter here. An interim response has
        # no body, whatever its headers say.
        if not folded and self.status is not None:
            name, _, value = line.partition(b":")
            self._take_header(name.lower(), value.strip())

    def _take_header(self, name: bytes, value: bytes) -> None:
        match name:
            case b"content-length":
                self._framing.add_length(value)
            case b"transfer-encoding":
                self._framing.add_codings(value)
            case b"location" if self.location is None and value:
                self.location = value

    def _end_head(self) -> None:
        if self.status is None:
            self._state = _State.STATUS_LINE
            return
        self._line_bytes = 0
        if self._method == "HEAD" or self.status in _NO_BODY or self._framing.length == 0 or not self._wanted:
            self._state = _State.ENDED
        elif self._framing.chunked:
            self._state = _State.CHUNK_SIZE
        else:
            self._state = _State.BODY
            self._left = _ENDLESS if self._framing.length is None else self._framing.length

    def _take_chunk_size(self, line: bytes) -> None:
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None or (length := int(size[1], 16)) >= 1 << 63:
            raise NotHttpError(f"not HTTP: the chunk size {_quote(line)}")
        self._left = length
        self._state = _State.CHUNK_DATA if length else _State.ENDED  # no trailer matters

    def _take_chunk_end(self, line: bytes) -> None:
        if line not in (b"\r\n", b"\n"):
            raise NotHttpError(f"not HTTP: {_quote(line)} after a chunk")
        self._state = _State.CHUNK_SIZE

    def _take_body(self) -> bool:
        room = self._most - len(self._body)
        taken = min(len(self._buffer), self._left, room)
        overlap = max(0, len(self._body) - len(self._wanted) + 1)
        self._body += self._buffer[:taken]
        del self._buffer[:taken]
        self._left -= taken
        self.found = self._body.find(self._wanted, overlap) >= 0
        if self.found or taken == room:
            self._state = _State.ENDED
        elif not self._left:
            self._state = _State.CHUNK_END if self._framing.chunked else _State.ENDED
        return not self._left or self.ended


class _BodyFraming:
    """How the body of a response is delimited (RFC 9112, section 6.3)."""

    def __init__(self) -> None:
        self.chunked = False
        self._length: int | None = None

    @property
    def length(self) -> int | None:
        """The length of the body in bytes; None: it ends with the connection, or is sent in chunks."""
        return None if self.chunked else self._length

    def add_length(self, value: bytes) -> None:
        """Add the value of a Content-Length, or of a list of equal ones. Raises `NotHttpError`."""
        for item in value.split(b","):
            digits = item.strip()
            if not digits.isdigit():
                raise NotHttpError(f"not HTTP: the Content-Length {_quote(value)}")
            significant = digits.lstrip(b"0") or b"0"
            length = int(significant) if len(significant) <= _MAX_LENGTH_DIGITS else _ENDLESS
            if self._length not in (None, length):
                raise NotHttpError("not HTTP: two different Content-Length values")
            self._length = length

    def add_codings(self, value: bytes) -> None:
        """Add the value of a Transfer-Encoding. Raises `NotHttpError` for a coding that the request did not offer."""
        for item in value.lower().split(b","):
            coding = item.strip()
            if coding == b"chunked":
                self.chunked = True
            elif coding not in (b"", b"identity"):
                raise NotHttpError(f"not HTTP: the Transfer-Encoding {_quote(value)}")


def parse_status_line(line: bytes) -> int:
    """Return the status code of a complete status line. Raises `NotHttpError`."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise NotHttpError(_describe(line))
    return int(match[1])


def is_ordinary_head(received: bytes, start: int) -> bool:
    """Return whether the header lines from `start` on are complete and beyond doubt.

    This is a shortcut for the parser: where it returns True, `HttpResponse` accepts the head.
    """
    return _ORDINARY_HEAD.match(received, start) is not None


def final_status(received: bytes | bytearray) -> int | None:
    """Return the status code of the final response, or None if more bytes are needed. Raises `NotHttpError`."""
    response = HttpResponse()
    response.feed(bytes(received))
    return response.status


def _expect_http(beginning: bytearray) -> None:
    if not beginning[:5].upper() == b"HTTP/"[: len(beginning)]:
        raise NotHttpError(_describe(bytes(beginning[:80])))


def _describe(beginning: bytes) -> str:
    if beginning.startswith(_TLS_ALERT):
        return "not HTTP: the port speaks TLS; probe it with https://"
    return f"not HTTP: {_quote(beginning)}"


def _quote(line: bytes) -> str:
    return repr(line[:40].decode("latin-1").strip())
