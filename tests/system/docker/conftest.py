"""One engine for all tests of this folder, which each test leaves empty."""

from collections.abc import Iterator

import pytest

from tests.netns import Namespace
from tests.system.docker.engine import Engine, missing


@pytest.fixture(scope="session")
def _engine() -> Iterator[Engine]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    namespace = Namespace()
    namespace.ip("link set lo up")
    engine = Engine(namespace)
    try:
        engine.start()
        engine.import_image()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(_engine: Engine) -> Iterator[Engine]:
    """A running engine without containers."""
    yield _engine
    _engine.remove_all()
