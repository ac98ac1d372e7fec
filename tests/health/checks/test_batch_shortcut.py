"""A batched check says of any bytes, in any pieces, what the parser alone says of them.

The check has a shortcut for the ordinary responses that nearly all servers send; the parser has none.
"""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mesh.health.checks.batch import PlainCheck, judge_at_once
from mesh.health.checks.http import judge_status
from mesh.health.checks.http_response import HttpResponse, NotHttpError
from mesh.model.probe import Probe, ProbeKind
from tests.health.checks.test_http_servers import CODINGS, HEADS, LENGTHS, Row

PROBE = Probe(ProbeKind.HTTP, None, expect_status=((200, 299), (404, 404)))
ROWS = [*HEADS, *LENGTHS, *CODINGS]
ORDINARY = b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Tue, 01 Dec 2026 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok"


def by_parser(pieces: Sequence[bytes]) -> tuple[bool, str]:
    """The outcome by the parser alone."""
    response = HttpResponse()
    for piece in pieces:
        try:
            response.feed(piece)
        except NotHttpError as error:
            return False, str(error)
        if response.status is not None:
            return judge_status(response.status, PROBE.expect_status)
    return False, "closed before an answer"


def by_check(pieces: Sequence[bytes]) -> tuple[bool, str]:
    """The outcome by a check of a batch, which reads one piece at a time."""
    check = PlainCheck(PROBE, b"GET / HTTP/1.1\r\n\r\n", lambda verdict: None)
    for piece in (*pieces, b""):
        outcome = check.read(piece, PROBE.expect_status)
        if outcome is not None:
            return outcome
    raise AssertionError("the end of the connection is always an outcome")


def cut(sent: bytes, places: Sequence[int]) -> list[bytes]:
    """The pieces between these places; none is empty, as an empty read is the end of a connection."""
    ends = sorted({place % (len(sent) + 1) for place in places} | {0, len(sent)})
    return [sent[begin:end] for begin, end in pairwise(ends)]


def agree(pieces: Sequence[bytes]) -> None:
    """Twice, since a shortcut that keeps outcomes must say the same again."""
    expected = by_parser(pieces)
    assert by_check(pieces) == expected
    assert by_check(pieces) == expected


end_of_line = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\n\r", b"", b"\0\r\n"])
version = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"http/1.1", b"HTTP/2", b"HTTP/1.2", b"HTP/1.1", b""])
status = st.sampled_from(
    [b"200", b"200", b"404", b"503", b"302", b"100", b"101", b"103", b"099", b"20", b"2000", b"OK"]
)
reason = st.sampled_from([b" OK", b"", b" ", b" Not Found", b"\t", b" \xc3\xa4", b" a\0b", b" " + b"r" * 300])
name = st.sampled_from(
    [
        *(b"Date", b"Server", b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Transfer-Encoding"),
        *(b"tRansfer-encoding", b"Content-Type", b"Trailer", b"C", b"T", b"", b"X Y", b" folded", b"\tfolded"),
        b"\xc3\xa4",
    ]
)
value = st.sampled_from(
    [
        *(b" x", b" 2", b"2", b" 0002", b" 2, 2", b" 2,3", b" -1", b" ", b"", b" chunked", b" gzip", b" identity"),
        *(b" a\0b", b" a\rb", b" " + b"v" * 600, b" " + b"9" * 30),
    ]
)
header = st.tuples(name, st.sampled_from([b":", b":", b":", b" :", b""]), value, end_of_line).map(b"".join)
head = st.tuples(
    version,
    st.sampled_from([b" ", b" ", b"  ", b"", b"\t"]),
    status,
    reason,
    end_of_line,
    st.lists(header, max_size=5).map(b"".join),
    end_of_line,
).map(b"".join)
body = st.sampled_from([b"", b"ok", b"2\r\nok\r\n0\r\n\r\n", b"HTTP/1.1 503 No\r\n\r\n", b"\0\xff"])
response = st.tuples(st.lists(head, min_size=1, max_size=3).map(b"".join), body).map(b"".join)
places = st.lists(st.integers(0, 4000), max_size=4)


@settings(max_examples=500)
@given(response, places)
def test_responses_of_the_grammar(sent: bytes, places: list[int]) -> None:
    pieces = cut(sent, places)
    event(f"shortcut: {bool(pieces) and judge_at_once(pieces[0], PROBE.expect_status) is not None}")
    agree(pieces)


@settings(max_examples=500)
@given(st.sampled_from([ORDINARY, ORDINARY, *(row.sent for row in ROWS if len(row.sent) < 2000)]), st.data())
def test_damaged_responses(sent: bytes, data: st.DataObject) -> None:
    damaged = bytearray(sent)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"\r\n", b"\n", b":", b" ", b"\0", b"Content-Length: 1\r\n"])
        )
    agree(cut(bytes(damaged), data.draw(places)))


@given(st.binary(max_size=100), places)
def test_any_bytes(sent: bytes, places: list[int]) -> None:
    agree(cut(sent, places))


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_each_response_whose_verdict_by_curl_is_known(row: Row) -> None:
    agree(cut(row.sent, []))
    for place in range(1, len(row.sent) if len(row.sent) < 300 else 0):
        agree(cut(row.sent, [place]))


@pytest.mark.parametrize("padding", [0, 400, 1000], ids=["short", "longer", "not kept"])
def test_the_shortcut_takes_ordinary_responses(padding: int) -> None:
    sent = ORDINARY.replace(b"Server: x", b"Server: " + b"x" * (padding + 1))
    assert judge_at_once(sent, PROBE.expect_status) == (True, "status 200")
    assert judge_at_once(sent, ((500, 500),)) == (False, "status 200")
    agree([sent])
