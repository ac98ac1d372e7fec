"""Files of each shape, just inside the default bounds: they are read, once more without anything new, and dropped."""

from pathlib import Path

import pytest

from mesh.sources.compose.limits import DEFAULT_LIMITS, ComposeLimits
from mesh.sources.compose.source import ComposeSource
from tests.fuzz.dense_files import DENSE_FILES


@pytest.mark.parametrize("shape", DENSE_FILES)
def test_a_file_just_inside_the_bounds_is_read(tmp_path: Path, shape: str) -> None:
    file = tmp_path / "compose.yaml"
    text = DENSE_FILES[shape](DEFAULT_LIMITS)
    assert len(text) <= DEFAULT_LIMITS.file_bytes
    file.write_text(text)
    source = ComposeSource([file], env={})
    instances, problems = source.read()
    assert source.trouble is None
    assert 0 < len(instances) <= DEFAULT_LIMITS.endpoints
    assert len(problems) <= DEFAULT_LIMITS.problems + 1

    file.write_text(text + "# no change\n")
    again = source.read()
    assert again[0] is instances
    assert again[1] is problems

    file.write_text("services: {}\n")
    assert source.read() == ((), ())


def test_the_densest_files_are_near_the_bounds() -> None:
    few = ComposeLimits(values=2000, endpoints=100)
    assert sum(DENSE_FILES["services"](few).count(word) for word in (": ", ":\n")) > few.values / 3
    assert DENSE_FILES["endpoints"](few).count("127.0.4.1:") == few.endpoints
