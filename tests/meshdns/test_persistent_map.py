"""A persistent map behaves like any mapping and shares what has not changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdns.persistent_map import PersistentMap, changed_keys

keys = st.one_of(st.text(max_size=3), st.tuples(st.text(max_size=2), st.integers(0, 9)), st.binary(max_size=2))
contents = st.dictionaries(keys, st.integers())


def assert_is(made: PersistentMap[object, int], content: dict[object, int]) -> None:
    assert made == content
    assert content == made
    assert dict(made) == dict(made.items()) == content
    assert len(made) == len(content)
    assert sorted(made.values()) == sorted(content.values())
    assert set(made) == made.keys() == content.keys()
    assert all(key in made and made[key] == made.get(key) == value for key, value in content.items())


@given(contents, st.lists(st.dictionaries(keys, st.none() | st.integers()), max_size=5))
def test_it_equals_a_dictionary_after_any_changes(
    content: dict[object, int], steps: list[dict[object, int | None]]
) -> None:
    made = PersistentMap(content)
    assert_is(made, content)
    for changes in steps:
        before, was = made, dict(content)
        made = made.changed(changes)
        content = {key: value for key, value in {**content, **changes}.items() if value is not None}
        assert_is(made, content)
        assert_is(before, was)
        assert changed_keys(before, made) == {k for k in {*was, *content} if was.get(k) is not content.get(k)}
        assert changed_keys(before, made) == changed_keys(was, content) == changed_keys(was, made)
        assert (made == before) == (content == was)


@given(contents)
def test_a_change_without_effect_returns_the_same_map(content: dict[object, int]) -> None:
    made = PersistentMap(content)
    assert made.changed(dict(made.items())) is made
    assert made.changed({"not there": None}) is made
    assert PersistentMap.of(made) is made
    assert PersistentMap.of(content) == PersistentMap(made) == made


def test_missing_keys_and_unequal_maps() -> None:
    made = PersistentMap({"a": 1})
    with pytest.raises(KeyError):
        made["b"]
    assert made.get("b") is None
    assert made.get("b", 7) == 7
    assert "b" not in made
    assert made != {"a": 2}
    assert made != {"a": 1, "b": 1}
    assert made != ["a"]
    assert repr(made) == "PersistentMap({'a': 1})"


def test_unchanged_parts_are_shared() -> None:
    before = PersistentMap({("w", number): number for number in range(100_000)})
    after = before.changed({("w", 7): -1, ("w", 8): None, ("v", 7): 7})
    anew = sum(one is not other for one, other in zip(before._shards, after._shards, strict=True))  # noqa: SLF001
    assert 1 <= anew <= 3
