"""Freed memory is given back where the C library can."""

import pytest

from mesh.util import free_memory


def test_it_asks_the_c_library_to_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def trim(kept: int) -> int:
        asked.append(kept)
        return 1

    monkeypatch.setattr(free_memory, "_trim", trim)
    free_memory.release_free_memory()
    assert asked == [0]


def test_a_c_library_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_trim", None)
    free_memory.release_free_memory()
