"""The source while its engine is away: the processes of the host say what has ended and what has begun again."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.sources.docker.inspection import inspection_of
from mesh.sources.docker.messages import ContainerDetails
from mesh.sources.docker.source import DockerSource
from mesh.testing.source import FakeContainerProcesses
from tests.sources.docker.fake_engine import ID, NAME, FakeEngine
from tests.system.docker.test_source import RULES, watching

FIRST, SECOND = "2026-11-30T11:59:16.358097495Z", "2026-11-30T12:00:00Z"


async def test_a_container_ends_and_begins_again_before_the_engine_answers(tmp_path: Path) -> None:
    fake, processes, ended = FakeEngine(), FakeContainerProcesses(), list[Any]()
    fake.pid = processes.start(ID, "172.29.0.2/16")
    source = DockerSource(
        f"unix://{tmp_path}/docker.sock", RULES, processes=processes, on_ended=lambda *end: ended.append(end)
    )
    async with watching(source) as seen:
        async with fake.listening(tmp_path / "docker.sock"):
            await seen.until(lambda now: now.keys() == {NAME})
            assert seen.instances[NAME].run == FIRST
        processes.end(ID)
        await seen.until(lambda now: now == {})
        assert ended == [(f"docker/web.test/{ID[:12]}", NAME, None, False, False)]
        assert source.trouble
        fake.pid, fake.run = processes.start(ID, "172.29.0.3/16"), SECOND
        await seen.until(lambda now: now.keys() == {NAME})
        assert (seen.instances[NAME].address, seen.instances[NAME].run) == ("172.29.0.3", None)
        async with fake.listening(tmp_path / "docker.sock"):
            await seen.until(lambda now: bool(now) and now[NAME].run == SECOND)
        # The engine's own list counts, here that of a container with its former address.
        assert seen.instances[NAME].address == "172.29.0.2"


async def test_an_end_that_an_event_has_told_is_told_once(tmp_path: Path) -> None:
    fake, processes, ended = FakeEngine(), FakeContainerProcesses(), list[Any]()
    fake.pid = processes.start(ID, "172.29.0.2/16")
    source = DockerSource(
        f"unix://{tmp_path}/docker.sock", RULES, processes=processes, on_ended=lambda *end: ended.append(end)
    )
    async with watching(source) as seen:
        async with fake.listening(tmp_path / "docker.sock"):
            await seen.until(lambda now: now.keys() == {NAME})
            processes.end(ID)
            fake.tell("die", exitCode="3")
            await seen.until(lambda now: now == {})
        processes.start(ID, "172.29.0.2/16")
        await seen.until(lambda now: now.keys() == {NAME})
        assert [code for _, _, code, *_ in ended] == [3]


async def test_without_visible_processes_the_last_list_stays_and_the_engine_is_found_again(tmp_path: Path) -> None:
    fake, processes = FakeEngine(), FakeContainerProcesses()
    fake.pid = 7
    source = DockerSource(f"unix://{tmp_path}/docker.sock", RULES, processes=processes)
    async with watching(source) as seen:
        async with fake.listening(tmp_path / "docker.sock"):
            await seen.until(lambda now: now.keys() == {NAME})
        async with asyncio.timeout(30):
            while source.trouble is None:
                await asyncio.sleep(0.01)
        assert seen.instances.keys() == {NAME}
        fake.run = SECOND
        async with fake.listening(tmp_path / "docker.sock"):
            await seen.until(lambda now: bool(now) and now[NAME].run == SECOND)


@pytest.mark.parametrize(
    ("bindings", "fixed"),
    [
        ({"80/tcp": [{"HostIp": "", "HostPort": "8082"}]}, {("tcp", 80, 8082)}),
        ({"53/udp": [{"HostPort": "53"}, {"HostPort": "5353"}]}, {("udp", 53, 53), ("udp", 53, 5353)}),
        ({"80/tcp": [{"HostPort": ""}], "81/tcp": [{"HostPort": "0"}], "82/tcp": [{"HostPort": "8000-8010"}]}, set()),
        ({"80/tcp": None, "x/tcp": [{"HostPort": "1"}], "": [{}]}, set()),
        ({}, set()),
        (None, set()),
    ],
)
def test_ports_that_a_container_asks_for_by_number(bindings: Any, fixed: set[tuple[str, int, int]]) -> None:
    told = {"Id": ID, "HostConfig": {"PortBindings": bindings}, "State": {"Pid": 42}}
    found = inspection_of(msgspec.convert(told, ContainerDetails))
    assert set(found.fixed_ports) == fixed
    assert found.pid == 42
