"""What is asked, and cursors: whatever a client sends is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.platform.logs.json_file import LogPosition
from mesh.platform.logs.reading.cursors import MAX_INSTANCES, InstanceCursor, encode_cursor, parse_cursor
from mesh.platform.logs.reading.query import LogQuery, is_meant, parse_log_query

POSITIONS = st.one_of(
    st.none(), st.builds(LogPosition, st.text("0123456789abcdef", min_size=16, max_size=16), st.integers(0, 10**14))
)
CURSORS = st.dictionaries(
    st.text("0123456789abcdef", min_size=12, max_size=12),
    st.builds(InstanceCursor, POSITIONS, st.integers(0, 2**63)),
    max_size=MAX_INSTANCES,
)


@given(CURSORS)
def test_a_cursor_is_read_as_it_was_written_and_fits_into_a_request(cursor: dict[str, InstanceCursor]) -> None:
    text = encode_cursor(cursor)
    assert parse_cursor(text) == cursor
    assert len(text) < 8190 - 1000, "what aiohttp takes of a request line"


@given(CURSORS, st.integers(0, 100), st.integers(0, 10**10), st.text(max_size=20).filter(lambda text: "\0" not in text))
def test_a_query_means_the_same_after_it_was_sent(
    cursor: dict[str, InstanceCursor], lines: int, since: int, pattern: str
) -> None:
    query = LogQuery("shop/web", lines, float(since), pattern, cursor)
    assert parse_log_query("shop/web", query.parameters(), 0.0) == query
    assert parse_log_query("shop/web", query._replace(after=None).parameters(), 0.0).after is None


@pytest.mark.parametrize("text", ["x", "a.b.c.d", "~", "a.0.-1.0", "a..0.0~", "é.0.0.0", "0" * 6000, "a.0.1.2\n"])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        parse_cursor(text)


@pytest.mark.parametrize(
    "query",
    [
        {"lines": "-1"},
        {"lines": "10001"},
        {"lines": "1e3"},
        {"since": "nan"},
        {"since": "inf"},
        {"since": "soon"},
        {"grep": "x" * 201},
        {"grep": "\0"},
        {"after": "../../etc/passwd"},
    ],
)
def test_a_query_out_of_bounds_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"must|too long|cannot be read"):
        parse_log_query("web", query, 0.0)


@pytest.mark.parametrize("service", ["", "x" * 301, "a\nb", "\x1b[2J"])
def test_a_name_out_of_bounds_is_refused(service: str) -> None:
    with pytest.raises(ValueError, match="service"):
        parse_log_query(service, {}, 0.0)


def test_a_time_may_be_an_age() -> None:
    assert parse_log_query("web", {"since": "-60"}, 1000.0).since == 940.0
    assert parse_log_query("web", {"since": "-6000"}, 1000.0).since == 0.0


def test_which_services_a_name_means() -> None:
    assert is_meant("shop/web", "shop/web")
    assert is_meant("web", "shop/web")
    assert is_meant("alone", "alone")
    assert not is_meant("shop", "shop/web")
    assert not is_meant("web", "shop/web2")
    assert not is_meant("other/web", "shop/web")
    assert not is_meant("", "shop")
