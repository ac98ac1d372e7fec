"""Fuzzing that stays: the kept corpus and a few seconds more on every run, and limits that do catch what passes them.

`make fuzz MINUTES=5` searches longer, guided by coverage.
"""

import base64
import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.model.part import DaemonPart
from mesh.util.bulkhead import INTERNAL_ERRORS
from tests.fuzz.choices import BUDGET, ByteChoices, places_in
from tests.fuzz.limits import MAX_GROWTH, MAX_TURN, CaughtErrors, InputLimits, measured
from tests.fuzz.targets import TARGETS, FuzzTarget

SECONDS = 10.0
"""The length of the search in all targets together."""
ROOT = Path(__file__).parents[2]
BOUNDARIES = (
    "labels",
    "compose files",
    "engine events and lists",
    "etcd records",
    "evidence of releases",
    "usage of containers",
    "etcd answers",
    "probe answers of each kind",
    "DNS questions and answers",
    "admin API",
    "answers of other workers",
    "the port for peers",
    "settings",
    "the saved view",
    "lines of containers",
    "answers of stores of logs",
)


def spoilt(inputs: Sequence[bytes], chance: random.Random) -> bytes:
    """One of the inputs with a few bytes changed, or random bytes."""
    if not inputs or chance.random() < 0.3:
        return chance.randbytes(chance.choice((0, 5, 40, 300)))
    data = bytearray(chance.choice(inputs))
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(data) + 1)
        data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
    return bytes(data)


def test_each_boundary_has_a_target_and_its_corpus_is_kept() -> None:
    assert {boundary for boundary in BOUNDARIES if not any(boundary in target.boundary for target in TARGETS)} == set()
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    assert [target.name for target in TARGETS if not any(target.corpus.iterdir())] == []
    assert sum(path.stat().st_size for target in TARGETS for path in target.corpus.iterdir()) < 1 << 20


# A request that is cancelled in the moment in which its connection is made leaves that to the destructor of aiohttp.
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_corpus_and_a_bounded_search_for_more(target: FuzzTarget) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    inputs = [path.read_bytes() for path in sorted(target.corpus.iterdir())]
    with target.open() as check:
        for data in inputs:
            check(data)
        limits = InputLimits(SECONDS / len(TARGETS))
        while not limits.is_over():
            limits.run(check, spoilt(inputs, chance))
    gc.collect()  # what is left to destructors is of this test
    assert limits.inputs > 0


def test_the_search_ends_in_time_and_prints_its_seed() -> None:
    command = (sys.executable, "-m", "tests.fuzz", "--minutes", "0.03", "--target", "dns")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'dns'}"}
    ended = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("seed "), ended.stdout
    assert "dns: " in ended.stdout, ended.stdout


class TestTheLimits:
    def test_an_exception_has_the_input_in_it(self) -> None:
        def check(data: bytes) -> None:
            raise LookupError(data)

        with pytest.raises(LookupError) as caught:
            InputLimits(1.0).run(measured(check), b"poison")
        assert base64.b64encode(b"poison").decode() in str(caught.value.__notes__)

    def test_an_input_that_takes_long_each_time(self) -> None:
        def check(data: bytes) -> None:
            began = time.thread_time()
            while time.thread_time() - began < MAX_TURN * 1.5:
                pass

        with pytest.raises(AssertionError, match="CPU time"):
            InputLimits(1.0).run(measured(check), b"")

    def test_an_input_that_takes_long_once_is_none(self) -> None:
        took = [MAX_TURN * 3, 0.0]
        InputLimits(1.0).run(lambda _: took.pop(0), b"")
        assert not took

    def test_growth_after_the_first_tenth(self) -> None:
        now, kept = [0.0], []
        limits = InputLimits(10.0, lambda: now[0])

        def run(count: int, size: int) -> None:
            for _ in range(count):
                kept.append(bytes(size) and os.urandom(size))
                limits.run(lambda _: 0.0, b"")

        run(128, MAX_GROWTH // 64)  # caches that fill at first
        now[0] = 2.0
        run(128, 0)
        with pytest.raises(AssertionError, match="grown by"):
            run(256, MAX_GROWTH // 64)

    def test_an_internal_error(self) -> None:
        errors = CaughtErrors()
        with errors.attached():
            errors.check()
            INTERNAL_ERRORS.caught(DaemonPart.SOURCES, "an event", ArithmeticError("poison"))
            with pytest.raises(AssertionError, match="internal error") as caught:
                errors.check()
            errors.check()
        assert caught.value.__cause__ is None or "poison" in str(caught.value.__cause__)


class TestTheChoices:
    def test_the_same_bytes_make_the_same_input_of_a_bounded_size(self) -> None:
        value = {"a": [1, {"b": "c"}], "d": None}
        chance = random.Random(1)
        for _ in range(500):
            data = chance.randbytes(100)
            made = ByteChoices(data).encoded(value)
            assert made == ByteChoices(data).encoded(value)
            assert len(made) < 20 * BUDGET

    def test_without_bytes_nothing_is_changed(self) -> None:
        assert ByteChoices(b"").encoded({"a": 1}) == b'{"a": 1}'
        assert ByteChoices(b"").pieces(b"abc") == [b"abc"]

    def test_each_part_of_a_value_is_found(self) -> None:
        assert places_in({"a": [1, {"b": 2}]}) == [("a",), ("a", 0), ("a", 1), ("a", 1, "b")]
