"""The source on a real Podman: what it tells in time, and what only its inspections tell."""

import asyncio
from dataclasses import replace

from mesh.config.settings import EndpointAddress
from mesh.model.service import DrainReason, Health, HostPort, Transport
from mesh.sources.docker.engine import DockerEngine
from mesh.sources.docker.exec import DockerExec
from mesh.sources.docker.source import DockerSource
from tests.system.docker.test_source import RULES, WEB, trouble, watching
from tests.system.podman.engine import PodmanEngine

LOST = "container share-1: it has no network since the container whose network it shares, db, has restarted"
IN_TIME = 5.0
"""Seconds, far less than the 30 until the next list."""


async def test_start_pause_kill_stop_and_removal_are_seen_in_time(podman: PodmanEngine) -> None:
    async with watching(DockerSource(podman.url, RULES)) as seen:
        await seen.until(lambda now: now == {})
        run = asyncio.to_thread(podman.run, "web-1", labels=WEB)
        await asyncio.gather(run, seen.until(lambda now: now.keys() == {"web-1"}))
        first = seen.instances["web-1"]
        assert first.address.startswith("172.28.0.")
        assert first.run is not None
        await podman.adocker("rename", "web-1", "web-2")
        await seen.until(lambda now: now.keys() == {"web-2"}, IN_TIME)
        await podman.adocker("pause", "web-2")
        await seen.until(lambda now: now["web-2"].drain is DrainReason.PAUSED, IN_TIME)
        await podman.adocker("unpause", "web-2")
        await seen.until(lambda now: now["web-2"].drain is None, IN_TIME)
        await podman.adocker("kill", "web-2")
        await seen.until(lambda now: now == {}, IN_TIME)
        await podman.adocker("start", "web-2")
        await seen.until(lambda now: now.keys() == {"web-2"}, IN_TIME)
        second = seen.instances["web-2"]
        assert second.id == first.id
        assert second.run not in (None, first.run), "another process"
        await podman.adocker("stop", "-t", "1", "web-2")
        await seen.until(lambda now: now == {}, IN_TIME)
        await podman.adocker("start", "web-2")
        await seen.until(lambda now: now.keys() == {"web-2"}, IN_TIME)
        await podman.adocker("rm", "-f", "web-2")
        await seen.until(lambda now: now == {}, IN_TIME)


async def test_a_process_that_ends_by_itself_is_seen_in_time(podman: PodmanEngine) -> None:
    await asyncio.to_thread(
        podman.run, "web-1", labels=WEB, command=("sh", "-c", "until test -e /tmp/end; do sleep 0.1; done")
    )
    async with watching(DockerSource(podman.url, RULES)) as seen:
        await seen.until(lambda now: now.keys() == {"web-1"})
        await podman.adocker("exec", "web-1", "touch", "/tmp/end")
        await seen.until(lambda now: now == {}, IN_TIME)


async def test_a_signal_that_does_not_end_it_changes_nothing(podman: PodmanEngine) -> None:
    """Podman does not tell which signal a container was sent."""
    await asyncio.to_thread(podman.run, "web-1", labels=WEB, command=("sleep", "1000"))
    async with watching(DockerSource(podman.url, RULES)) as seen:
        await seen.until(lambda now: "web-1" in now)
        await podman.adocker("kill", "-s", "HUP", "web-1")
        await podman.adocker("rename", "web-1", "web-2")
        await seen.until(lambda now: now.keys() == {"web-2"}, IN_TIME)
        assert seen.instances["web-2"].drain is None


async def test_healthcheck_results_are_seen(podman: PodmanEngine) -> None:
    """Podman runs a HEALTHCHECK by a timer of systemd, which the tests do not have: they run it themselves."""
    options = ("--health-cmd", "test -e /tmp/well", "--health-interval", "1h", "--health-retries", "1")
    await asyncio.to_thread(podman.run, "web-1", *options, labels=WEB)
    async with watching(DockerSource(podman.url, RULES)) as seen:
        await seen.until(lambda now: now["web-1"].health is Health.STARTING)
        await podman.adocker("exec", "web-1", "touch", "/tmp/well")
        assert await asyncio.to_thread(podman.podman, "healthcheck", "run", "web-1") == 0
        await seen.until(lambda now: now["web-1"].health is Health.HEALTHY, IN_TIME)
        await podman.adocker("exec", "web-1", "rm", "/tmp/well")
        assert await asyncio.to_thread(podman.podman, "healthcheck", "run", "web-1") == 1
        await seen.until(lambda now: now["web-1"].health is Health.UNHEALTHY, IN_TIME)


async def test_the_host_network_and_the_network_of_another_container(podman: PodmanEngine) -> None:
    await asyncio.to_thread(podman.run, "db")
    await asyncio.to_thread(podman.run, "host-1", "--network", "host", labels=WEB, command=("sleep", "1000"))
    shared = ("--network", "container:db")
    await asyncio.to_thread(podman.run, "share-1", *shared, labels=WEB, command=("sleep", "1000"))
    async with watching(DockerSource(podman.url, RULES)) as seen:
        await seen.until(lambda now: now.keys() == {"host-1", "share-1"})
        assert seen.instances["host-1"].address == RULES.worker
        assert seen.instances["share-1"].address.startswith("172.28.0.")
        await podman.adocker("restart", "-t", "0", "db")
        await seen.until(lambda now: any(LOST in str(problem) for problem in seen.problems), IN_TIME)
        assert seen.instances.keys() == {"host-1"}


async def test_published_ports(podman: PodmanEngine) -> None:
    await asyncio.to_thread(podman.run, "web-1", "-p", "30080:80", labels=WEB)
    rules = replace(RULES, alone=False, endpoint_address=EndpointAddress.AUTO)
    async with watching(DockerSource(podman.url, rules)) as seen:
        await seen.until(lambda now: now.keys() == {"web-1"})
        found = seen.instances["web-1"]
        assert (found.address, found.host_ports) == (RULES.worker, (HostPort(Transport.TCP, 80, 30080),))


async def test_a_restart_while_the_socket_is_gone_is_another_run(podman: PodmanEngine) -> None:
    """Containers do not end with the service. A restart by the podman program in the meantime is seen by the processes,
    with the new address; which run it is, the service tells afterwards.
    """
    await asyncio.to_thread(podman.run, "web-1", labels=WEB)
    source = DockerSource(podman.url, RULES)
    async with watching(source) as seen:
        await seen.until(lambda now: now.keys() == {"web-1"})
        first = seen.instances["web-1"]
        await asyncio.to_thread(podman.end)
        await trouble(source, "it does not answer")
        assert await asyncio.to_thread(podman.podman, "restart", "-t", "0", "web-1") == 0
        await seen.until(lambda now: bool(now) and now["web-1"].run is None)
        meanwhile = seen.instances["web-1"]
        await asyncio.to_thread(podman.start)
        await seen.until(lambda now: bool(now) and now["web-1"].run not in (None, first.run))
        after = seen.instances["web-1"]
        assert (after.id, after.address) == (first.id, meanwhile.address)


async def test_commands_run_and_containers_are_stopped(podman: PodmanEngine) -> None:
    await asyncio.to_thread(podman.run, "web-1", labels=WEB)
    source = DockerSource(podman.url, RULES)
    async with watching(source) as seen:
        await seen.until(lambda now: now.keys() == {"web-1"})
        endpoint = seen.instances["web-1"].id
        assert await DockerExec(podman.url).run(endpoint, "echo well; exit 3", 20) == (3, "well\n")
        engine = DockerEngine(podman.url, source, lambda code, reason: AssertionError(reason))
        await engine.signal(endpoint.rpartition("/")[2], "SIGTERM")
        await engine.stop(endpoint)
        await seen.until(lambda now: now == {}, IN_TIME)


async def test_a_network_is_connected_and_disconnected(podman: PodmanEngine) -> None:
    front, back = podman.network("front"), podman.network("back")
    await podman.adocker("network", "create", "--subnet", "172.31.1.0/24", front)
    await asyncio.to_thread(podman.run, "web-1", "--network", front, labels=WEB)
    async with watching(DockerSource(podman.url, RULES)) as seen:
        await seen.until(lambda now: now["web-1"].address.startswith("172.31.1."))
        await podman.adocker("network", "create", "--subnet", "172.31.2.0/24", back)
        await podman.adocker("network", "connect", back, "web-1")
        await seen.until(lambda now: now["web-1"].address.startswith("172.31.2."), IN_TIME)
        await podman.adocker("network", "disconnect", back, "web-1")
        await seen.until(lambda now: now["web-1"].address.startswith("172.31.1."), IN_TIME)
