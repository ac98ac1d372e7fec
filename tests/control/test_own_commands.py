"""Commands in containers: only what the labels of the container itself declare is run."""

import asyncio
from dataclasses import replace
from ipaddress import ip_network

import pytest
from typing_extensions import override

from mesh.control.own_commands import DeclaredCommandRunner, DeclaredCommands
from mesh.health.checks.command import CommandCheck, CommandRunner
from mesh.model.probe import Probe, ProbeKind
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed
from tests.builders import TCP_PROBE, endpoint, instance, service

OURS = Probe(ProbeKind.COMMAND, None, command="test -f /ready")
THEIRS = Probe(ProbeKind.COMMAND, None, command="rm -rf /")


class Journal(CommandRunner):
    """A runner that notes what it ran; everything succeeds."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []

    @override
    async def run(self, endpoint: str, command: str, seconds: float) -> tuple[int, str] | None:
        self.ran.append((endpoint, command))
        return 0, ""


async def test_a_command_from_elsewhere_is_not_run_and_says_nothing_of_the_endpoint() -> None:
    journal, declared = Journal(), DeclaredCommands()
    check = CommandCheck(DeclaredCommandRunner(journal, declared))
    assert await check("a", OURS) is None, "the sources have not answered yet: what the store says is not enough"
    declared.declare(
        [service(probe=OURS), service("db.test", probe=TCP_PROBE)], [endpoint("a"), endpoint("b", owner="demo/db")]
    )
    verdict = await check("a", OURS)
    assert verdict is not None
    assert verdict.ok
    for id, probe in (("a", THEIRS), ("b", OURS), ("b", THEIRS), ("unknown", OURS)):
        assert await check(id, probe) is None
    assert journal.ran == [("a", OURS.command)]


async def test_a_command_whose_label_is_gone_is_no_longer_run() -> None:
    journal, declared = Journal(), DeclaredCommands()
    declared.declare([service(probe=OURS)], [endpoint("a")])
    declared.declare([service(probe=TCP_PROBE)], [endpoint("a")])
    assert await CommandCheck(DeclaredCommandRunner(journal, declared))("a", OURS) is None
    assert journal.ran == []


async def test_each_endpoint_has_the_command_of_its_own_labels() -> None:
    journal, declared = Journal(), DeclaredCommands()
    check = CommandCheck(DeclaredCommandRunner(journal, declared))
    other = replace(endpoint("b"), declared=service(probe=THEIRS))
    declared.declare([service(probe=OURS)], [endpoint("a"), other, replace(endpoint("c"), declared=service())])
    for id, probe in (("a", THEIRS), ("b", OURS), ("c", OURS)):
        assert await check(id, probe) is None
    assert await check("b", THEIRS) is not None
    assert journal.ran == [("b", THEIRS.command)]


@pytest.mark.looptime
async def test_each_worker_probes_its_own_endpoints_as_its_own_labels_say() -> None:
    shared, workers, labels = MemoryCluster(), [], {"mesh.routing.port_80": "web.test"}
    field = WorkerBed(ip_network("10.112.0.0/16"))
    for name, command in (("w1", "old"), ("w2", "new")):
        worker = FakeWorker(name, MemoryStore(shared, name), field)
        labels = {**labels, "mesh.probe.cmd": command}
        worker.runs([replace(instance(f"web/{name}", labels), runs_commands=True)])
        workers.append(worker)
    one, two = workers
    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(worker.run()) for worker in workers]
        await asyncio.sleep(2)
        assert {key: target.probe.command for key, target in one.probes.targets.items()} == {("w1", "web/w1"): "old"}
        assert {key: target.probe.command for key, target in two.probes.targets.items()} == {("w2", "web/w2"): "new"}
        two.runs([replace(instance("web/w2", {**labels, "mesh.probe.cmd": "newer"}), runs_commands=True)])
        await asyncio.sleep(2)
        assert [target.probe.command for target in two.probes.targets.values()] == ["newer"], "though w1 comes first"
        for life in lives:
            life.cancel()
