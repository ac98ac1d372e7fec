"""The cache with a limit of the size of its keys."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.util.sized_cache import SizedCache


def test_what_was_used_the_longest_ago_is_dropped_first() -> None:
    cache: SizedCache[str, int] = SizedCache(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    cache.put("c", 3, 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_what_is_too_large_by_itself_drops_nothing() -> None:
    cache: SizedCache[str, int] = SizedCache(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 11)
    assert (cache.get("a"), cache.get("b")) == (1, None)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 12)), max_size=60))
def test_the_sizes_never_exceed_the_room(steps: list[tuple[int, int]]) -> None:
    cache: SizedCache[int, int] = SizedCache(20)
    sizes: dict[int, int] = {}
    for key, size in steps:
        if cache.get(key) is None:
            cache.put(key, key, size)
            sizes[key] = size
        there = [key for key in sizes if cache.get(key) is not None]
        assert sum(sizes[key] for key in there) <= 20
        assert len(cache) == len(there)
