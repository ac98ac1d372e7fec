"""Lines and events of a file: the same whatever was read at once."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.platform.logs.file_lines import MAX_EVENT, EventRules, FileEvent, cut_events
from mesh.platform.logs.line_time import leading_time

EVENTS = EventRules(re.compile(rb"^\d").search)


def read_in_parts(data: bytes, sizes: list[int], rules: EventRules) -> list[FileEvent]:
    """What is delivered if a process reads as much as is written by then, in turns."""
    found: list[FileEvent] = []
    offset = written = 0
    for size in (*sizes, len(data)):
        written = min(len(data), written + size)
        cut = cut_events(data[offset:written], offset, final=False, rules=rules)
        found += cut.events
        offset = cut.end
    return [*found, *cut_events(data[offset:], offset, final=True, rules=rules).events]


@pytest.mark.parametrize("rules", [EventRules(), EVENTS], ids=["lines", "events"])
@given(st.lists(st.sampled_from([b"1 a\n", b"b\n", b"\n", b"\xff\r\n", b"no feed", b"2"])), st.lists(st.integers(0, 9)))
def test_the_parts_in_which_it_is_read_make_no_difference(
    rules: EventRules, lines: list[bytes], sizes: list[int]
) -> None:
    data = b"".join(lines)
    assert read_in_parts(data, sizes, rules) == list(cut_events(data, 0, final=True, rules=rules).events)


def test_a_long_line_is_cut_between_two_characters() -> None:
    data = "\N{EURO SIGN}".encode() * MAX_EVENT + b"\nnext\n"
    found = cut_events(data, 100, final=False)
    assert "".join(each.text for each in found.events) == "\N{EURO SIGN}" * MAX_EVENT + "next"
    assert (found.end, found.is_forced) == (100 + len(data), False)
    assert found.split == 3


def test_an_event_that_ends_because_nothing_follows_is_marked() -> None:
    assert cut_events(b"1 a\nb\n", 0, final=False, rules=EVENTS).events == ()
    found = cut_events(b"1 a\nb\nc", 0, final=False, rules=EventRules(EVENTS.begins, is_idle=True))
    assert ([each.text for each in found.events], found.end, found.is_forced) == (["1 a\nb"], 6, True)


def test_a_slow_pattern_ends_the_turn_with_at_least_one_event() -> None:
    found = cut_events(b"1\n2\n3\n", 0, final=False, rules=EventRules(EVENTS.begins, is_over=lambda: True))
    assert ([each.text for each in found.events], found.is_forced) == (["1"], True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-01T04:05:06.123456789Z x", "2026-12-01T04:05:06.123456789Z"),
        ("[2026-12-01 04:05:06,5 +02:00] x", "2026-12-01T02:05:06.5Z"),
        ("2026-12-01 04:05:06 UTC", "2026-12-01T04:05:06Z"),
        ("2026-12-01T00:05:06-0100", "2026-12-01T01:05:06Z"),
        ("2026-12-01 04:05:06 without zone", None),
        ("2026-13-01T04:05:06Z", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("9999-12-31T23:59:59-23:00", None),
        ("x 2026-12-01T04:05:06Z", None),
        ("", None),
    ],
)
def test_the_time_of_a_line_counts_if_it_says_its_zone(text: str, expected: str | None) -> None:
    assert leading_time(text) == expected
