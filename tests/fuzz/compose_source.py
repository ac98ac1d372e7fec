"""A source whose compose file is written anew again and again, as large as its bounds permit: it must not grow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mesh.sources.compose.limits import DEFAULT_LIMITS, ComposeLimits
from mesh.sources.compose.source import ComposeSource
from tests.fuzz.choices import ByteChoices
from tests.fuzz.dense_files import DENSE_FILES

SMALL, LARGE = ComposeLimits(values=1000, endpoints=100), ComposeLimits(endpoints=500)


@contextmanager
def dense_files() -> Iterator["DenseFiles"]:
    """Return what reads a file for each input, until the context ends."""
    with TemporaryDirectory() as directory:
        yield DenseFiles(Path(directory, "compose.yaml"))


class DenseFiles:
    """Reads one file after another as one source does, which keeps what it read last."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_text("services: {}\n")
        self._source = ComposeSource([file], env={})

    def __call__(self, data: bytes) -> None:
        """Read files of chosen shapes and sizes, one of them twice, and then one without services."""
        choices = ByteChoices(data)
        # A large one takes some tenths of a second, in which a hundred others find more.
        limits = LARGE if choices.number(16) == 1 else SMALL
        text = DENSE_FILES[choices.pick(tuple(DENSE_FILES))](limits)
        at = len(text) * choices.number(256) // 256 if choices.flag() else len(text)
        text = text[:at] + choices.rest().decode("utf-8", "replace") + text[at:]
        for each in (text, text + "# the same\n", "services: {}\n"):
            self._file.write_text(each)
            instances, problems = self._source.read()
            assert len(instances) <= DEFAULT_LIMITS.endpoints
            assert len(problems) <= DEFAULT_LIMITS.problems + 2
