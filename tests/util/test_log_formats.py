"""Log lines: one per decision, machine-readable, without secrets, rate limited."""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.codes import Code
from mesh.util.logging.formats import LineFormatter, format_logfmt
from mesh.util.logging.handler import QueuedLogHandler
from mesh.util.logging.log_format import LogFormat
from mesh.util.logging.rate_limit import KINDS, LogRateLimit

AT = datetime(2026, 11, 23, 17, 5, 9, 42_000, UTC).timestamp()


def record(message: str, *arguments: object, level: int = logging.WARNING, **fields: str | None) -> logging.LogRecord:
    made = logging.LogRecord("vipmesh", level, "", 0, message, arguments, None)
    made.created, made.msecs = AT, 42.0
    made.fields = fields
    return made


def coded(made: logging.LogRecord, code: Code) -> logging.LogRecord:
    vars(made).update(code.extra)
    return made


HELD = coded(
    record("%s", "service shop/api: the name a.b is held by shop/web; give it another", owner="shop/api", label=None),
    Code.NAME_TAKEN,
)


def test_logfmt() -> None:
    assert LineFormatter(LogFormat.LOGFMT).format(HELD) == (
        "time=2026-11-23T17:05:09.042Z level=warning code=VM201 "
        'msg="service shop/api: the name a.b is held by shop/web; give it another" owner=shop/api'
    )


def test_json() -> None:
    assert json.loads(LineFormatter(LogFormat.JSON).format(HELD)) == {
        "time": "2026-11-23T17:05:09.042Z",
        "level": "warning",
        "code": "VM201",
        "msg": "service shop/api: the name a.b is held by shop/web; give it another",
        "owner": "shop/api",
    }


def test_text_lines_end_with_the_code_if_there_is_one() -> None:
    line = LineFormatter().format(HELD)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,042 WARNING service shop/api: .* another \[VM201\]", line)
    assert (
        LineFormatter()
        .format(record("docker engine at x answers again", level=logging.INFO))
        .endswith(" answers again")
    )


@pytest.mark.parametrize("shape", LogFormat)
def test_secrets_are_in_no_line(shape: LogFormat) -> None:
    lines = LineFormatter(shape, ["hunter2!", "", "abc"])
    try:
        raise ValueError("hunter2! again")
    except ValueError:
        made = record("etcd refuses hunter2! of %s abc", "x", password="hunter2!")
        made.exc_info = sys.exc_info()
    line = lines.format(made)
    assert "hunter2" not in line
    assert "etcd refuses *** of x abc" in line, "too short to be looked for"
    assert "again" in line, "the trace is told"


HOSTILE = st.text() | st.sampled_from(["a\nb", "\x1b[2J", "\u2028x", 'level=error "', "a=b", "\r"])


@given(HOSTILE, st.dictionaries(st.sampled_from(["owner", "label"]), HOSTILE), st.sampled_from(LogFormat))
def test_a_line_is_one_line_whatever_it_is_about(text: str, fields: Mapping[str, str], shape: LogFormat) -> None:
    line = LineFormatter(shape).format(record("%s", text, level=logging.WARNING, **fields))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    if shape is LogFormat.JSON:
        assert json.loads(line)["msg"] == text
        assert {name: json.loads(line)[name] for name in fields} == fields


@given(st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), HOSTILE, min_size=1))
def test_logfmt_can_be_read_back(fields: Mapping[str, str]) -> None:
    found = {}
    for key, quoted, plain in re.findall(r'([a-z]+)=(?:("(?:[^"\\]|\\.)*")|(\S+))', format_logfmt(fields)):
        text = re.sub(r"\\x([0-9a-f]{2})", r"\\u00\1", quoted)
        text = re.sub(r"\\U([0-9a-f]{8})", lambda m: json.dumps(chr(int(m[1], 16)))[1:-1], text)
        found[key] = json.loads(text) if quoted else plain
    assert found == fields


def test_repeated_lines_are_rate_limited_after_a_burst() -> None:
    limit = LogRateLimit(burst=3, rate=0.5)
    assert [limit.left_out("a", 0.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert limit.left_out("b", 0.0) == 0, "another kind has a burst of its own"
    assert [limit.left_out("a", at) for at in (1.0, 2.0, 2.5, 4.0)] == [None, 3, None, 1]
    assert limit.left_out("a", 1000.0) == 0


def test_the_least_recent_kinds_of_lines_are_forgotten() -> None:
    limit = LogRateLimit(burst=1, rate=0.0)
    for kind in range(KINDS + 1):
        assert limit.left_out(kind, 0.0) == 0
    assert limit.left_out(1, 0.0) is None
    assert limit.left_out(0, 0.0) == 0


def test_suppressed_lines_are_reported() -> None:
    ours, theirs = os.pipe()
    log = logging.Logger("of this test", logging.DEBUG)  # noqa: LOG001 (no other test may share it)
    handler = QueuedLogHandler(theirs)
    handler.limit = LogRateLimit(burst=2, rate=1000.0)
    log.addHandler(handler)
    now = iter([0.0, 0.0, 0.0, 1.0])
    handler.clock = lambda: next(now)
    for number in range(4):
        log.info("probe %d", number)
    log.debug("each step")
    handler.close()
    os.close(theirs)
    lines = os.read(ours, 65536).decode().splitlines()
    os.close(ours)
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO probe 0",
        "INFO probe 1",
        "WARNING 1 lines like the next one were left out [VM702]",
        "INFO probe 3",
        "DEBUG each step",
    ]
