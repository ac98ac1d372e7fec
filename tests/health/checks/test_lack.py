"""What this worker lacks is no verdict, whichever check lacks it."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from mesh.health.checks import network_checks
from mesh.health.checks.tcp import ResourceLackError, await_verdict
from mesh.health.prober import LACK_LASTS, Prober
from mesh.health.targets import ProbeTarget
from mesh.model.codes import Code
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Health
from mesh.util.sockets import LACK_ERRNOS, LOCAL_ERRNOS
from tests.health.checks.endpoints import endpoint, hangs

OTHERS = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET, errno.EPERM, errno.EACCES)
NETWORK = [kind for kind in ProbeKind if kind is not ProbeKind.COMMAND]
VARIANTS = [
    *(Probe(kind, None, send=b"x") for kind in NETWORK),
    Probe(ProbeKind.HTTP, None, expect_body="x"),
    Probe(ProbeKind.HTTPS, None, follow_redirects=True),
]


@pytest.mark.parametrize("code", sorted(LACK_ERRNOS | set(OTHERS)), ids=errno.errorcode.get)
async def test_the_errno_decides_whether_there_is_a_verdict(code: int) -> None:
    async def ask() -> tuple[bool, str]:
        raise OSError(code, os.strerror(code))

    if code in OTHERS:
        assert not (await await_verdict(ask(), 1)).ok
    else:
        with pytest.raises(ResourceLackError, match=os.strerror(code).lower()):
            await await_verdict(ask(), 1)


def test_peers_are_not_judged_either() -> None:
    assert LACK_ERRNOS < LOCAL_ERRNOS
    assert {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL} < LACK_ERRNOS


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No file descriptor can be opened any more, as the kernel sees it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest + 8), hard))
    taken = []
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        yield
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "probe", VARIANTS, ids=lambda probe: f"{probe.kind}-{probe.expect_body or probe.follow_redirects}"
)
async def test_no_check_judges_without_a_descriptor(probe: Probe) -> None:
    check = network_checks()[probe.kind]
    with no_descriptors(), pytest.raises(ResourceLackError, match="too many open files"):
        await check("127.0.0.1", 1, replace(probe, timeout=1.0))


@pytest.mark.parametrize("kind", [ProbeKind.TCP, ProbeKind.HTTP, ProbeKind.HTTPS])
async def test_a_prober_without_descriptors_keeps_the_health_and_says_what_it_lacks(
    caplog: pytest.LogCaptureFixture, kind: ProbeKind
) -> None:
    async with endpoint(hangs) as (port, _, _):
        prober = Prober(lambda: None)
        probe = Probe(kind, None, interval=0.1, timeout=0.1, unhealthy_threshold=1)
        key = ("w1", "web")
        prober.watch({key: ProbeTarget(probe, "127.0.0.1", port, Health.HEALTHY)})
        error = OSError(errno.EMFILE, "x")
        with (
            mock.patch.object(socket, "socket", side_effect=error),
            mock.patch.object(socket, "SocketType", side_effect=error),
            mock.patch.object(asyncio.get_running_loop(), "create_connection", side_effect=error),
        ):
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(prober.run())
                async with asyncio.timeout(10):
                    while prober.stats.checks < 5:
                        await asyncio.sleep(0.01)
                running.cancel()
        assert prober.health() == {key: Health.HEALTHY}
        assert prober.history(key) == ()
        assert prober.lack is not None
        assert prober.lack.code is Code.WORKER_LACKS_RESOURCES
        assert "too many open files" in prober.lack.text
    assert [record.code for record in caplog.records if hasattr(record, "code")] == [Code.WORKER_LACKS_RESOURCES]


@pytest.mark.looptime
async def test_a_lack_that_is_over_is_no_longer_reported() -> None:
    lacks = True

    async def check(address: str, port: int, probe: Probe, /) -> None:
        if lacks:
            raise ResourceLackError("too many open files")
        raise ConnectionError

    prober = Prober(lambda: None, dict.fromkeys(ProbeKind, check))  # type: ignore[arg-type]
    prober.watch({("w1", "web"): ProbeTarget(Probe(ProbeKind.TCP, 80), "10.2.0.1", 80)})
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prober.run())
        await asyncio.sleep(20)
        reported = [prober.lack]
        lacks = False
        await asyncio.sleep(LACK_LASTS + 6)
        reported.append(prober.lack)
        running.cancel()
    assert [lack is not None for lack in reported] == [True, False]
