"""The processes of containers: the fake, and a directory as /proc is, under the same tests."""

import os
from pathlib import Path
from typing import Protocol

import pytest

from mesh.sources.docker.process_facts import ContainerProcess
from mesh.sources.docker.processes import ContainerProcesses, ProcContainerProcesses
from mesh.testing.source import FakeContainerProcesses
from tests.sources.docker.test_process_facts import HEADER, route, stat

A, B = "a" * 64, "b" * 64
ENGINE = 50


class Host(Protocol):
    """Where a test starts processes of containers on the network 172.18.0.0/16."""

    @property
    def processes(self) -> ContainerProcesses: ...

    def start(self, container: str, address: str | None) -> int: ...

    def end(self, container: str) -> None: ...


class FakeHost:
    def __init__(self) -> None:
        self.processes = FakeContainerProcesses()

    def start(self, container: str, address: str | None) -> int:
        return self.processes.start(container, *([f"{address}/16"] if address else []))

    def end(self, container: str) -> None:
        self.processes.end(container)


class ProcHost:
    """A directory with the files of processes."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self._pids: dict[str, int] = {}
        self._last = 100
        self.add(ENGINE, "0::/system.slice/docker.service\n", parent=1)
        self.own = proc / "self/net/dev"
        self.own.parent.mkdir(parents=True)
        os.link(proc / str(ENGINE) / "net/dev", self.own)
        self.processes: ContainerProcesses = ProcContainerProcesses(proc)

    def add(self, pid: int, cgroup: str, parent: int = ENGINE, address: str | None = None) -> None:
        """A process; with an address in a network of its own."""
        net = self.proc / str(pid) / "net"
        net.mkdir(parents=True)
        (net.parent / "cgroup").write_text(cgroup)
        (net.parent / "stat").write_text(stat(parent=str(parent), began=str(pid * 10)))
        (net / "fib_trie").write_text(f"  |-- {address}\n  /32 host LOCAL\n" if address else "")
        (net / "route").write_text(HEADER + route("172.18.0.0", "255.255.0.0"))
        (net / "if_inet6").write_text("")
        if address is None and pid != ENGINE:
            os.link(self.proc / str(ENGINE) / "net/dev", net / "dev")
        else:
            (net / "dev").write_text("")

    def start(self, container: str, address: str | None) -> int:
        self._last += 1
        self._pids[container] = self._last
        self.add(self._last, f"0::/system.slice/docker-{container}.scope\n", address=address)
        return self._last

    def end(self, container: str) -> None:
        self.remove(self._pids.pop(container))

    def remove(self, pid: int) -> None:
        (self.proc / str(pid)).rename(self.proc / f"ended-{pid}")


@pytest.fixture(params=["fake", "proc"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return FakeHost() if request.param == "fake" else ProcHost(tmp_path)


def test_a_process_is_identified_as_one_of_its_own_container_alone(host: Host) -> None:
    pid = host.start(A, "172.18.0.2")
    process = host.processes.identify(A, pid)
    assert process is not None
    assert process.pid == pid
    assert host.processes.identify(B, pid) is None
    assert host.processes.identify(A, 0) is None
    assert host.processes.identify(A, pid + 1) is None


def test_a_process_that_ends_does_not_run(host: Host) -> None:
    process = host.processes.identify(A, host.start(A, "172.18.0.2"))
    assert process is not None
    assert host.processes.is_running(process)
    assert not host.processes.is_running(ContainerProcess(process.pid, process.began + 1)), "the PID is used again"
    host.end(A)
    assert not host.processes.is_running(process)


def test_a_look_finds_the_wanted_containers_with_their_addresses(host: Host) -> None:
    first = host.start(A, "172.18.0.2")
    host.start(B, "172.18.0.3")
    seen = host.processes.look({A})
    assert seen.keys() == {A}
    assert seen[A].process.pid == first
    assert {str(each) for each in seen[A].interfaces} == {"172.18.0.2/16"}
    host.end(A)
    assert host.processes.look({A}) == {}
    again = host.start(A, "172.18.0.4")
    seen = host.processes.look({A})
    assert (seen[A].process.pid, {str(each) for each in seen[A].interfaces}) == (again, {"172.18.0.4/16"})


def test_a_process_in_the_network_of_the_host_has_no_address_of_its_own(host: Host) -> None:
    host.start(A, None)
    assert host.processes.look({A})[A].interfaces == frozenset()


class TestProc:
    """What only the files show."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> ProcHost:
        return ProcHost(tmp_path)

    def test_the_first_process_counts(self, host: ProcHost) -> None:
        first = host.start(A, "172.18.0.2")
        host.add(200, (host.proc / str(first) / "cgroup").read_text(), parent=first, address="172.18.0.9")
        assert host.processes.look({A})[A].process.pid == first

    def test_a_process_that_enters_the_cgroup_after_its_start_is_found(self, host: ProcHost) -> None:
        host.processes.look({A})
        host.add(200, "0::/system.slice/docker.service\n", address="172.18.0.2")
        assert host.processes.look({A}) == {}
        (host.proc / "200/cgroup").write_text(f"0::/system.slice/docker-{A}.scope\n")
        assert host.processes.look({A}).keys() == {A}

    def test_old_processes_are_not_read_again_until_the_next_absence(self, host: ProcHost) -> None:
        for _ in range(20):
            host.processes.look({A})
        (host.proc / str(ENGINE) / "cgroup").write_text(f"0::/docker/{A}\n")
        assert host.processes.look({A}) == {}
        host.processes.forget()
        host.add(1, "0::/init.scope\n", parent=0)
        assert host.processes.look({A}).keys() == {A}

    def test_in_the_network_of_its_parent_a_process_has_no_address_wherever_this_one_runs(self, host: ProcHost) -> None:
        """As the first steps of runc, when the engine is in a network namespace of its own."""
        host.own.unlink()
        host.own.write_text("")
        host.start(A, None)
        assert host.processes.look({A})[A].interfaces == frozenset()

    def test_a_process_whose_parent_has_ended_is_seen_once_another_one_has_adopted_it(self, host: ProcHost) -> None:
        host.add(60, "0::/system.slice/docker.service\n")
        host.add(200, f"0::/docker/{A}\n", parent=60, address="172.18.0.2")
        assert len(host.processes.look({A})[A].interfaces) == 1
        host.remove(60)
        assert host.processes.look({A}) == {}
        (host.proc / "200/stat").write_text(stat(parent=str(ENGINE), began="2000"))
        assert len(host.processes.look({A})[A].interfaces) == 1

    @pytest.mark.parametrize("name", ["stat", "cgroup", "net/dev"])
    def test_what_is_hidden_is_not_seen(self, host: ProcHost, name: str) -> None:
        pid = host.start(A, "172.18.0.2")
        (host.proc / str(pid) / name).unlink()
        assert host.processes.look({A}) == {}

    @pytest.mark.parametrize("name", ["net/fib_trie", "net/route", "net/if_inet6", "cgroup", "stat"])
    @pytest.mark.parametrize("text", ["|-- x\n/32 host LOCAL\nnonsense\n" * 2, "0" * 100_000, "\0\xff"])
    def test_unreadable_files_are_no_addresses(self, host: ProcHost, name: str, text: str) -> None:
        pid = host.start(A, "172.18.0.2")
        (host.proc / str(pid) / name).write_text(text, encoding="latin-1")
        seen = host.processes.look({A})
        assert A not in seen or len(seen[A].interfaces) <= 1

    def test_without_proc_nothing_is_seen(self, tmp_path: Path) -> None:
        processes = ProcContainerProcesses(tmp_path / "missing")
        assert processes.identify(A, 1) is None
        assert processes.look({A}) == {}
