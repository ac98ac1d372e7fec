"""Checks of a new release: inside its instances, at their addresses, and elsewhere only where it is allowed."""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest
from typing_extensions import override

from mesh.control.own_commands import DeclaredCommandRunner, DeclaredCommands
from mesh.health.checks.command import CommandCheck, CommandRunner
from mesh.health.state_machine import Verdict
from mesh.model.codes import Code
from mesh.model.part import ProblemPart
from mesh.model.probe import Probe, ProbeKind
from mesh.model.release_checks import CheckUrl, ReleaseChecks
from mesh.model.service import Address, Endpoint, HostPort, Transport
from mesh.platform.rollouts.check_targets import CheckTargets
from mesh.platform.rollouts.evidence_records import CheckCounts
from mesh.platform.rollouts.release_checker import CHECK_INTERVAL, CheckedInstance, ReleaseChecker, checked_commands
from mesh.platform.rollouts.release_evidence import ReleaseKey
from mesh.util.conditions import Conditions

KEY = ReleaseKey("shop/web", "v2")
CMD, URL = "release.check.cmd", "release.check.url"
TARGETS = CheckTargets(
    (ip_network("0.0.0.0/0"), ip_network("::/0")),
    ip_network("10.112.0.0/16"),
    own={"192.0.2.11", "2001:db8::11"},
    vips={"198.51.100.7"},
)


class RecordingRunner(CommandRunner):
    """Notes what runs where, and returns what a test sets."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.result: tuple[int, str] | None = (0, "")

    @override
    async def run(self, endpoint: str, command: str, seconds: float) -> tuple[int, str] | None:
        self.ran.append((endpoint, command))
        return self.result


@dataclass
class Lab:
    """A checker with what it asks."""

    checks: ReleaseChecks = field(default_factory=ReleaseChecks)
    instances: int = 1
    targets: CheckTargets = TARGETS
    resolved: Sequence[Address] | OSError = ("203.0.113.5",)
    answer: Verdict = field(default_factory=lambda: Verdict(True, "status 200", 0.01))
    asked: list[tuple[Address, int, str, str]] = field(default_factory=list)
    runner: RecordingRunner = field(default_factory=RecordingRunner)
    declared: DeclaredCommands = field(default_factory=DeclaredCommands)
    conditions: Conditions = field(default_factory=Conditions)

    def __post_init__(self) -> None:
        self.checker = ReleaseChecker(
            self.found,
            lambda: dict.fromkeys((ProbeKind.HTTP, ProbeKind.HTTPS), self.ask),
            CommandCheck(DeclaredCommandRunner(self.runner, self.declared)),
            self.allowed,
            conditions=self.conditions,
            resolve=self.resolve,
        )
        self.declared.declare_checks(checked_commands(self.found()))

    def found(self) -> Mapping[ReleaseKey, Sequence[CheckedInstance]]:
        mapped = (HostPort(Transport.TCP, 8080, 32001),)
        endpoints = [
            Endpoint(f"web/{n}", KEY.owner, "w1", "10.1.0.9", host_ports=mapped) for n in range(self.instances)
        ]
        return {KEY: [CheckedInstance(each, self.checks) for each in endpoints]}

    async def ask(self, address: Address, port: int, probe: Probe, /) -> Verdict:
        self.asked.append((address, port, probe.path, probe.host))
        return self.answer

    async def allowed(self) -> CheckTargets:
        return self.targets

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        if isinstance(self.resolved, OSError):
            raise self.resolved
        return self.resolved

    @property
    def problems(self) -> list[Code]:
        return [problem.code for problem in self.conditions.problems.get(ProblemPart.RELEASE_CHECKS, ())]


async def test_a_command_runs_inside_an_instance_the_next_one_each_time() -> None:
    lab = Lab(ReleaseChecks("/bin/check"), instances=2)
    for _ in range(3):
        await lab.checker.check()
    assert sorted(lab.runner.ran) == [("web/0", "/bin/check"), ("web/1", "/bin/check"), ("web/1", "/bin/check")]
    assert lab.checker.results == {KEY: {CMD: CheckCounts(3)}}
    lab.runner.result = (3, "no such table")
    await lab.checker.check()
    assert lab.checker.results[KEY][CMD] == CheckCounts(4, 1, "exit status 3: no such table")


async def test_a_command_that_cannot_be_run_is_no_result() -> None:
    lab = Lab(ReleaseChecks("/bin/check"))
    lab.runner.result = None
    await lab.checker.check()
    assert lab.checker.results == {KEY: {}}


async def test_a_command_that_own_labels_do_not_declare_does_not_run() -> None:
    lab = Lab(ReleaseChecks("/bin/check"))
    lab.declared.declare_checks({"web/0": "/bin/other"})
    await lab.checker.check()
    assert lab.runner.ran == []


async def test_the_container_is_asked_where_its_port_is_reached() -> None:
    lab = Lab(ReleaseChecks(url=CheckUrl(False, "container", 8080, "/check")))
    await lab.checker.check()
    assert lab.asked == [("10.1.0.9", 32001, "/check", "")]
    lab.answer = Verdict(False, "status 500", 0.01)
    await lab.checker.check()
    assert lab.checker.results == {KEY: {URL: CheckCounts(2, 1, "status 500")}}


async def test_another_host_is_asked_at_the_address_that_was_looked_at() -> None:
    lab = Lab(ReleaseChecks(url=CheckUrl(False, "metrics.example", 9090, "/q")))
    await lab.checker.check()
    assert lab.asked == [("203.0.113.5", 9090, "/q", "metrics.example:9090")]
    assert lab.problems == []


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        (["127.0.0.1"], "this host"),
        (["203.0.113.5", "127.0.0.1"], "this host"),
        (["::1"], "this host"),
        (["::ffff:127.0.0.1"], "this host"),
        (["0.0.0.0"], "this host"),
        (["192.0.2.11"], "this host"),
        (["::ffff:192.0.2.11"], "this host"),
        (["2001:db8::11"], "this host"),
        (["169.254.169.254"], "link-local"),
        (["fe80::1%eth0"], "link-local"),
        (["10.112.3.4"], "a VIP"),
        (["::ffff:10.112.3.4"], "a VIP"),
        (["64:ff9b::a70:304"], "a VIP"),
        (["198.51.100.7"], "a VIP"),
        (["what"], "no address"),
        ([], "no address"),
    ],
)
async def test_a_name_that_leads_where_no_check_may_go_is_not_asked(addresses: list[str], says: str) -> None:
    lab = Lab(ReleaseChecks(url=CheckUrl(False, "metrics.example", 80)), resolved=addresses)
    await lab.checker.check()
    assert lab.asked == []
    assert lab.checker.results == {KEY: {}}, "it has no result: the release is not to blame"
    assert lab.problems == [Code.RELEASE_CHECK]
    assert says in str(lab.conditions.problems[ProblemPart.RELEASE_CHECKS][0])


async def test_nothing_is_allowed_without_the_setting() -> None:
    lab = Lab(ReleaseChecks(url=CheckUrl(False, "metrics.example", 80)), targets=CheckTargets())
    await lab.checker.check()
    assert (lab.asked, lab.problems) == ([], [Code.RELEASE_CHECK])


async def test_a_name_without_an_answer_is_no_result_and_the_problem_ends() -> None:
    lab = Lab(ReleaseChecks(url=CheckUrl(True, "metrics.example", 443)), resolved=OSError(errno.EIO, "no answer"))
    await lab.checker.check()
    assert (lab.asked, lab.problems) == ([], [Code.RELEASE_CHECK])
    lab.resolved = ("203.0.113.5",)
    await lab.checker.check()
    assert (lab.asked, lab.problems) == ([("203.0.113.5", 443, "/", "metrics.example")], [])


@pytest.mark.looptime
async def test_a_round_every_few_seconds_and_none_without_a_rollout() -> None:
    lab = Lab(ReleaseChecks(url=CheckUrl(False, "container", 8080)))
    task = asyncio.get_running_loop().create_task(lab.checker.run())
    await asyncio.sleep(2.5 * CHECK_INTERVAL)
    assert len(lab.asked) == 3
    lab.instances = 0
    await asyncio.sleep(2 * CHECK_INTERVAL)
    assert (len(lab.asked), lab.checker.results) == (3, {})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
