"""One engine for all tests of this folder, which each test leaves empty."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.netns import Namespace
from tests.system.docker.engine import CLIENT, HOST, Engine, root_archive, running_engine


@pytest.fixture(scope="session")
def _engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture
def engine(_engine: Engine) -> Iterator[Engine]:
    """A running engine without containers."""
    yield _engine
    _engine.remove_all()


@pytest.fixture
def client(engine: Engine) -> Iterator[Namespace]:
    """Another host, which has this one as the router to the VIPs."""
    other = Namespace()
    engine.namespace.ip(
        f"link add eth0 type veth peer name eth0 netns {other.path}",
        f"address add {HOST}/24 dev eth0",
        "link set eth0 up",
    )
    other.ip("link set lo up", f"address add {CLIENT}/24 dev eth0", "link set eth0 up", f"route add default via {HOST}")
    yield other
    engine.namespace.ip("link delete eth0")
    other.close()


START = 'CMD ["sh", "-c", "trap \'exit 0\' TERM; httpd -f -p 80 -h /www & wait"]'


@pytest.fixture
def swarm_engine() -> Iterator[Engine]:
    """An engine of the test's own, which is part of no swarm yet."""
    with running_engine() as engine:
        engine.docker("import", "--change", START, "-", "test_service", given=root_archive())
        try:
            yield engine
        finally:
            # Else the swarm starts again what is removed.
            subprocess.run(engine.command("swarm", "leave", "--force"), capture_output=True, check=False, timeout=50)
