"""What the engine sends of a log: frames, lines of a terminal, and anything else."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from mesh.sources.docker.container_lines import MAX_LINE, ContainerLine, parse_container_lines

AT = "2026-11-30T11:59:16.358097495Z"


def frame(text: str, stream: int = 1) -> bytes:
    data = f"{AT} {text}".encode()
    return struct.pack(">BxxxI", stream, len(data)) + data


def test_frames_of_two_streams_are_lines_and_parts_of_a_line_are_joined() -> None:
    data = frame("begin, ") + frame("an error\n", 2) + frame("end\n")
    assert parse_container_lines(data) == [
        ContainerLine(AT, "an error", "stderr"),
        ContainerLine(AT, "begin, end", "stdout"),
    ]


def test_a_terminal_has_no_frames() -> None:
    data = f"{AT} one\r\n{AT} two\r\n{AT} thr".encode()
    assert parse_container_lines(data) == [ContainerLine(AT, "one", "stdout"), ContainerLine(AT, "two", "stdout")]


def test_a_line_without_end_becomes_several() -> None:
    part = "x" * (MAX_LINE // 2)
    found = parse_container_lines(frame(part) * 5 + frame("end\n"))
    assert [len(each.text) for each in found] == [MAX_LINE, MAX_LINE, MAX_LINE // 2 + 3]


@given(st.integers(0, 200))
def test_an_answer_may_be_cut_anywhere(size: int) -> None:
    data = frame("one\n") + frame("two\n", 2) + frame("three\n")
    found = parse_container_lines(data[:size])
    assert [each.text for each in found] == ["one", "two", "three"][: len(found)]


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    parse_container_lines(data)
    parse_container_lines(b"\1\0\0\0" + data)
