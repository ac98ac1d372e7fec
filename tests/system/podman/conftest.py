"""One Podman for all tests of this folder, which each test leaves empty."""

from collections.abc import Iterator

import pytest

from tests.netns import Namespace
from tests.system.podman.engine import PodmanEngine, missing


@pytest.fixture(scope="session")
def _podman() -> Iterator[PodmanEngine]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    namespace = Namespace()
    namespace.ip("link set lo up")
    podman = PodmanEngine(namespace)
    try:
        podman.start()
        podman.import_image()
        yield podman
    finally:
        podman.close()


@pytest.fixture
def podman(_podman: PodmanEngine) -> Iterator[PodmanEngine]:
    """A running Podman without containers."""
    yield _podman
    _podman.remove_all()
