"""The parser of HTTP responses without a network: pieces of any size, any bytes, and its shortcut."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.health.checks.http_response import MAX_BODY_BYTES, HttpResponse, NotHttpError, is_ordinary_head
from tests.health.checks.fuzz.target import TEXT, check, outcome
from tests.health.checks.test_http_servers import CODINGS, HEADS, LENGTHS, Row
from tests.system.e2e.programs import call

ROWS = [row for row in [*HEADS, *LENGTHS, *CODINGS] if len(row.sent) < 2000]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "10"))


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_the_outcome_does_not_depend_on_the_size_of_the_pieces(row: Row) -> None:
    check(row.sent)
    for size in (2, 3, 7):
        assert outcome(row.sent, size) == outcome(row.sent, len(row.sent))


@settings(max_examples=300)
@given(st.sampled_from(ROWS), st.data())
def test_a_damaged_response_is_parsed_or_refused(row: Row, data: st.DataObject) -> None:
    damaged = bytearray(row.sent)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        damaged += b"x"
    check(bytes(damaged))


NAMES = st.sampled_from(
    [b"Content-Length", b"CONTENT-LENGTH", b"tRansfer-encoding", b"Cookie", b"T", b"", b"X Y", b" a"]
)
VALUES = st.sampled_from([b"1", b" 1", b"1,1", b"-1", b"chunked", b" gzip", b"", b"a\0", b"a\rb", b"\t"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), st.sampled_from([b"\r\n", b"\n"]))
def test_the_shortcut_accepts_nothing_that_the_parser_refuses(headers: list[tuple[bytes, bytes]], end: bytes) -> None:
    line = b"HTTP/1.1 200 OK\r\n"
    head = line + b"".join(name + b":" + value + end for name, value in headers) + end
    if is_ordinary_head(head, len(line)):
        response = HttpResponse("GET", TEXT)
        response.feed(head)
        assert response.head_ended


def test_a_body_in_the_smallest_pieces_is_searched_as_far_as_any_other() -> None:
    response = HttpResponse("GET", TEXT)
    response.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    while not response.ended:
        response.feed(b"1\r\n")
        response.feed(b"x")
        response.feed(b"\r\n")
        sent += 1
    assert sent == MAX_BODY_BYTES
    assert not response.found


def test_chunk_sizes_without_end_are_refused() -> None:
    response = HttpResponse("GET", TEXT)
    response.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1000):
        response.feed(b";" * 1000 if response.head_ended else b"")
    with pytest.raises(NotHttpError, match="endless chunk sizes"):
        response.feed(b";" * 100_000)


@pytest.mark.timeout(SECONDS + 60)
async def test_a_bounded_search_for_more(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris, which has no wheel for this Python and machine")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, row in enumerate(ROWS):
        (corpus / str(number)).write_bytes(row.sent)
    command = (sys.executable, "-m", "tests.health.checks.fuzz.target", str(corpus))
    options = (f"-max_total_time={SECONDS}", "-max_len=700", "-timeout=5", f"-artifact_prefix={tmp_path}/", "-seed=1")
    code, output = await call(*command, *options, seconds=SECONDS + 50)
    assert code == 0, output[-4000:]
    assert "Done" in output, output[-4000:]
