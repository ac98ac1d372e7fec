"""YAML as nodes with lines: syntax errors, merge keys, scalars as text, and hostile documents."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.sources.compose.yaml_nodes import (
    DuplicateKey,
    YamlError,
    YamlMapping,
    YamlScalar,
    YamlWalker,
    find_duplicate_keys,
    load_graphs,
    scalar_text,
)


def mapping(text: str) -> YamlMapping:
    (root,) = load_graphs(text)
    assert isinstance(root, YamlMapping)
    return root


def flat(text: str, key: str) -> dict[str, tuple[str, int]]:
    """The mapping under a key: key -> text and line."""
    walk = YamlWalker()
    node = walk.entries(mapping(text))[key].node
    assert isinstance(node, YamlMapping)
    found = {}
    for name, entry in walk.entries(node).items():
        assert isinstance(entry.node, YamlScalar)
        found[name] = (entry.node.value, entry.line)
    return found


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("a: b\n c: d", 2, 3, "mapping values are not allowed"),
        ("a: 1\nb: [1, 2\n", 3, 1, "did not find expected ',' or ']'"),
        ("a: *b", 1, 4, "undefined alias"),
        ("a: &b 1\n---\nc: *b", 3, 4, "undefined alias"),
        ("a: &b 1\nc: &b 2", 2, 4, "duplicate anchor 'b', which is on line 1"),
        ("\ta: b", 1, 1, "cannot start any token"),
        ("a: 1\nb: \x01", 2, 4, "control characters are not allowed"),
        ("a: 1\nb: \ud800", 2, 0, "surrogate"),
        ("[" * 100_000, 1, 0, "nested more than 100 levels deep"),
        ("x" * (4 * 2**20 + 1), 1, 0, "larger than 4 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 50 else "",
)
def test_invalid_yaml_is_refused_with_its_location(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(YamlError) as caught:
        load_graphs(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert reason in caught.value.reason
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "---\n---\n", "--- ~\n...\n"])
def test_an_empty_text_has_no_services(text: str) -> None:
    assert load_graphs(text) == []


def test_merge_keys_follow_the_yaml_rule_and_keep_their_lines() -> None:
    text = """\
one: &one {a: "1", b: "1"}
two: &two
  b: "2"
  c: "2"
both:
  a: own
  <<: [*one, *two]
single:
  <<: *one
  b: own
"""
    assert flat(text, "both") == {"a": ("own", 6), "b": ("1", 1), "c": ("2", 4)}
    assert flat(text, "single") == {"a": ("1", 1), "b": ("own", 10)}


def follow(text: str, key: str) -> None:
    walk = YamlWalker()
    node = walk.entries(mapping(text))[key].node
    assert isinstance(node, YamlMapping)
    walk.entries(node)


CHAIN = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: *a{i - 1}\n" for i in range(1, 200))
LAUGHS = "a0: &a0 {x: y}\n" + "".join(f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 20))


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        pytest.param("a: &a\n  <<: *a\n", "a", "merges itself", id="itself"),
        pytest.param("a:\n  <<: 1\n", "a", "merges a value that is not a mapping", id="a scalar"),
        pytest.param("a:\n  [1]: 1\n", "a", "a key is not text", id="a key"),
        pytest.param(CHAIN, "a199", "more than 100 anchors merge one another", id="chain"),
        pytest.param(LAUGHS, "a19", "aliases expand to more than 80000 entries", id="laughs"),
    ],
)
def test_unreadable_mappings_are_refused(text: str, key: str, reason: str) -> None:
    with pytest.raises(YamlError, match=reason):
        follow(text, key)


def test_duplicate_keys_are_reported_at_any_depth_and_once() -> None:
    text = "a: &a\n  x: 1\n  'x': 2\nb: *a\nc: [{y: 1, z: 1, y: 2, y: 3}]\n<<: *a\n"
    found = list(find_duplicate_keys(mapping(text)))
    assert sorted(found, key=lambda d: d.second) == [
        DuplicateKey("x", 2, 3),
        DuplicateKey("y", 5, 5),
        DuplicateKey("y", 5, 5),
    ]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("word", "word"),
        ("true", "true"),
        ("True", "true"),
        ("yes", "yes"),
        ("1", "1"),
        ("1_000", "1000"),
        ("010", "8"),
        ("0o10", "8"),
        ("0x1F", "31"),
        ("-0b11", "-3"),
        ("+5", "5"),
        ("1.10", "1.1"),
        ("2.0", "2"),
        (".5", "0.5"),
        ("1e3", "1000"),
        ("1e999", "1e999"),
        ("1:30", "1:30"),
        ("2026-11-01", "2026-11-01"),
        ("null", ""),
        ("~", ""),
        ("", ""),
        ("'1.10'", "1.10"),
        ('"null"', "null"),
        ("!!str 010", "010"),
        ("!!str 0o10", "0o10"),
        ("! 010", "010"),
        ("|\n  010", "010"),
    ],
)
def test_scalars_become_the_same_text_as_in_compose(written: str, text: str) -> None:
    ((_, node),) = mapping(f"k: {written}").pairs
    assert isinstance(node, YamlScalar)
    assert scalar_text(node) == text


def test_lines_count_from_one() -> None:
    root = mapping("# first\na: 1\n\nb: 2")
    assert [key.line for key, _ in root.pairs] == [2, 4]


@given(st.lists(st.sampled_from([*"0123456789_xob.eE+-~ ", "true", "null"])).map("".join) | st.text())
def test_every_plain_scalar_has_a_text(value: str) -> None:
    for tag in ("int", "float", "str", "null", "bool"):
        assert isinstance(scalar_text(YamlScalar(1, f"tag:yaml.org,2002:{tag}", False, value)), str)


@given(
    st.lists(st.sampled_from(["a: ", "b", "- ", "\n", "  ", "&x ", "*x", "<<: ", "{", "}", "[", "]", "'", "!t "])).map(
        "".join
    )
)
def test_any_text_is_a_graph_or_refused(text: str) -> None:
    with suppress(YamlError):
        for root in load_graphs(text):
            if isinstance(root, YamlMapping):
                list(find_duplicate_keys(root))
                YamlWalker().entries(root)
