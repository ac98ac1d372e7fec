"""A block that is read at once has the lines that are right: those that are read line by line."""

import json

import msgspec
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from mesh.config.labels.logs import LogLabels
from mesh.platform.logs.documents import LogOrigin, make_documents, make_plain_documents, size_of
from mesh.platform.logs.json_file import LogPosition, assemble_lines
from mesh.platform.logs.plain_lines import LogBlock, read_plain_lines
from mesh.platform.logs.sinks.bulk import encode_bulk, encode_plain_bulk
from mesh.platform.logs.tail import lines_of

TIME = "2026-11-30T11:59:16.358097495Z"
ORIGIN = LogOrigin("f" * 64, 'shop-"web"-1', "shop/web", "w1", "web:1", "v2")
READ_AT = "2026-12-01T12:00:00Z"


def entry(text: str = "a line\n", stream: str = "stdout", time: str = TIME) -> bytes:
    return json.dumps({"log": text, "stream": stream, "time": time}, ensure_ascii=False).encode() + b"\n"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(lambda text: f"{text}\n")
TIMES = st.sampled_from([TIME, "2026-11-30T11:59:17Z", "2026-11-30T11:59:17.1Z"])
ODD_TIMES = st.sampled_from(
    ["", "2026-02-30T11:59:17Z", "2026-11-30T11:59:17+01:00", "1970-01-01T00:00:00Z", f"{TIME}\n"]
)
GOOD = st.builds(entry, TEXTS, st.sampled_from(["stdout", "stderr"]), TIMES)
ODD = st.one_of(
    st.builds(entry, st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
    st.builds(entry, TEXTS, st.sampled_from(["", "stdin"])),
    st.builds(entry, TEXTS, st.just("stdout"), ODD_TIMES),
    st.sampled_from(
        [
            b"\n",
            b"{\n}\n",
            entry()[:-1] + entry(),
            entry().replace(b",", b",\n"),
            entry().replace(b"\n", b"\r\n"),
            b" " + entry(),
            b'{"log":"x\\n","attrs":{"a":\n{"b":"}"}},"stream":"stdout"}\n',
            b'{"log":"a\\n","log":"b\\n","stream":"stdout","time":"%s"}\n' % TIME.encode(),
            b'{"log":"\\ud800\\n","stream":"stdout","time":"%s"}\n' % TIME.encode(),
            b'{"log":"\xff\\n","stream":"stdout","time":"%s"}\n' % TIME.encode(),
            b'{"log":"\\u003c\\\\n\\n","stream":"stdout","time":"%s","attrs":{"k":"v"}}\n' % TIME.encode(),
        ]
    ),
    st.binary(max_size=9),
)
BLOCKS = st.one_of(st.lists(GOOD), st.lists(GOOD | ODD, max_size=6)).map(b"".join)


@given(BLOCKS, st.integers(0, 10**12), st.booleans())
@example(b"", 0, False)
def test_a_block_at_once_is_the_same_as_line_by_line(data: bytes, offset: int, stamped: bool) -> None:
    block = LogBlock("0" * 16, offset, data)
    plain = read_plain_lines(block)
    event("plain" if plain is not None else "not plain")
    if plain is None:
        return
    right = assemble_lines(lines_of([block]), final=False)
    assert (right.split, right.unreadable) == (0, 0)
    assert right.end == LogPosition(block.generation, plain.end)
    labels = LogLabels("app", timestamp=stamped)
    documents = make_plain_documents(plain, ORIGIN, labels)
    assert tuple(documents) == make_documents(right.lines, ORIGIN, labels, READ_AT)
    assert documents.size == size_of(tuple(documents))
    assert encode_plain_bulk(documents, "logs") == encode_bulk(documents, ["logs"] * len(documents))
    assert tuple(documents[1:]) + tuple(documents[:1]) == tuple(documents)[1:] + tuple(documents)[:1]


@given(st.lists(GOOD, min_size=1))
def test_what_the_driver_writes_is_plain(entries: list[bytes]) -> None:
    plain = read_plain_lines(LogBlock("g", 7, b"".join(entries)))
    assert plain is not None
    assert len(plain.starts) == len(entries)


def test_a_document_is_what_an_encoder_makes_of_its_fields() -> None:
    plain = read_plain_lines(LogBlock("0123456789abcdef", 5, entry('say "x" é\n') + entry("\n", "stderr")))
    assert plain is not None
    first, second = make_plain_documents(plain, ORIGIN, LogLabels("app", 7))
    assert (first.id, first.store) == ("ffffffffffffffff-0123456789abcdef-5", "shop-app")
    fixed = {
        "service": "shop/web",
        "container": 'shop-"web"-1',
        "container_id": "f" * 64,
        "image": "web:1",
        "worker": "w1",
        "release": "v2",
        "ttl_days": 7,
    }
    expected = {"@timestamp": TIME, "message": 'say "x" é', "stream": "stdout", **fixed}
    assert first.body == msgspec.json.encode(expected)
    assert json.loads(second.body) == {"@timestamp": TIME, "message": "", "stream": "stderr", **fixed}


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_the_first_lines_alone_are_the_ones_that_the_rate_admits(count: int) -> None:
    plain = read_plain_lines(LogBlock("g", 0, entry("a\n") + entry("b\n")))
    assert plain is not None
    assert list(plain.first(count).texts) == ["a", "b"][:count]
    assert plain.first(count).end == plain.end
