"""Lines of the engine's log driver: parts are joined, and nothing that a container writes breaks a line."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.platform.logs.json_file import MAX_TEXT, AssembledLines, LogLine, LogPosition, StoredLine, assemble_lines

TIME = "2026-11-30T11:59:16.358097495Z"


def entry(text: str, stream: str = "stdout", time: str = TIME) -> bytes:
    return json.dumps({"log": text, "stream": stream, "time": time}).encode()


def stored(entries: Sequence[bytes], start: int = 0) -> list[StoredLine]:
    lines = []
    for data in entries:
        end = start + len(data) + 1
        lines.append(StoredLine(LogPosition("g", start), LogPosition("g", end), data))
        start = end
    return lines


def texts(found: AssembledLines) -> list[str]:
    return [line.text for line in found.lines]


def test_a_line_has_its_text_stream_and_time_to_the_nanosecond() -> None:
    found = assemble_lines(stored([entry("hello\n", "stderr")]), final=False)
    (line,) = found.lines
    assert (line.text, line.stream, line.time) == ("hello", "stderr", TIME)
    assert line.start == LogPosition("g", 0)
    assert found.end == LogPosition("g", len(entry("hello\n", "stderr")) + 1)


def test_parts_are_joined_while_the_other_stream_writes_between_them() -> None:
    lines = stored([entry("a" * 10), entry("err\n", "stderr"), entry("b\n"), entry("next\n")])
    assert texts(assemble_lines(lines, final=False)) == ["a" * 10 + "b", "err", "next"]


def test_a_line_that_is_not_complete_is_not_consumed_and_neither_is_what_follows_it() -> None:
    lines = stored([entry("first\n"), entry("begun"), entry("err\n", "stderr")])
    found = assemble_lines(lines, final=False)
    assert (texts(found), found.end) == (["first"], lines[0].end)
    assert texts(assemble_lines(lines, final=True)) == ["first", "begun", "err"]


def test_no_line_lies_across_the_end() -> None:
    # The line of standard output is complete, but the one of standard error that began within it is not.
    lines = stored([entry("out "), entry("err ", "stderr"), entry("put\n")])
    assert assemble_lines(lines, final=False) == AssembledLines((), None)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xfe\x00", id="no UTF-8"),
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"", id="empty"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"log": 7}', id="no text"),
        pytest.param(b'{"log":"\\ud800","stream":"stdout"}', id="half of a surrogate pair"),
    ],
)
def test_a_line_of_another_form_is_kept_as_it_is_and_counted(data: bytes) -> None:
    found = assemble_lines(stored([entry("before\n"), data, entry("after\n")]), final=False)
    assert [texts(found)[0], texts(found)[-1]] == ["before", "after"]
    assert (len(found.lines), found.unreadable) == (3, 1)
    assert found.lines[1].stream == "unknown"
    found.lines[1].text.encode()


def test_a_time_of_another_form_is_none() -> None:
    assert assemble_lines(stored([entry("x\n", time="yesterday")]), final=False).lines[0].time is None


def test_a_line_over_the_bound_becomes_several_and_is_counted() -> None:
    part = "x" * 16384
    found = assemble_lines(stored([entry(part) for _ in range(9)] + [entry("end\n")]), final=False)
    assert "".join(texts(found)) == part * 9 + "end"
    assert max(map(len, texts(found))) <= MAX_TEXT
    assert found.split == 2


@given(
    st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.booleans()), max_size=30),
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
)
def test_reading_in_pieces_gives_the_lines_of_reading_at_once(parts: list[tuple[str, bool]], sizes: list[int]) -> None:
    lines = stored([entry(f"{n}{chr(10) if ends else ','}", stream) for n, (stream, ends) in enumerate(parts)])
    whole = assemble_lines(lines, final=False)
    found: list[LogLine] = []
    begin = size = turn = 0
    while begin < len(lines):
        size += sizes[turn % len(sizes)]  # more and more is read until something is complete
        turn += 1
        piece = assemble_lines(lines[begin : begin + size], final=False)
        if piece.end is None:
            if begin + size >= len(lines):
                break
            continue
        found += piece.lines
        begin = [line.end for line in lines].index(piece.end) + 1
        size = 0
    assert tuple(found) == whole.lines
