"""Arbitrary bytes: the stored corpus on every run, and a bounded coverage-guided search for more."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.meshdns.fuzz.target import check
from tests.system.e2e.programs import call

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "10"))


def test_the_corpus() -> None:
    inputs = sorted(CORPUS.iterdir())
    assert len(inputs) > 50
    for path in inputs:
        check(path.read_bytes())


@pytest.mark.timeout(SECONDS + 60)
async def test_a_bounded_search_for_more(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris, which has no wheel for this Python and machine")
    found = tmp_path / "found"
    found.mkdir()
    command = (sys.executable, "-m", "tests.meshdns.fuzz.target", str(found), str(CORPUS))
    options = (f"-max_total_time={SECONDS}", "-max_len=700", "-timeout=5", f"-artifact_prefix={tmp_path}/", "-seed=1")
    code, output = await call(*command, *options, seconds=SECONDS + 50)
    assert code == 0, output[-4000:]
    assert "Done" in output, output[-4000:]
