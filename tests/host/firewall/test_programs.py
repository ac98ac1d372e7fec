"""The programs of the firewall: one contract for the real ones, with both backends, and the fake."""

import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.host import HostError
from mesh.host.firewall.facts import AcceptMark, Backend, IptablesRule, read_facts
from mesh.host.firewall.marking import DEFAULT_MARK, MarkingRules, family_of, render_marking
from mesh.host.firewall.plan import wanted_rule
from mesh.host.firewall.programs import FirewallPrograms, SystemPrograms, explain_refusal
from mesh.host.nft_table import TableChange
from mesh.model.service import Transport
from mesh.testing.firewall import FakeFirewallPrograms
from mesh.util.program import ProgramResult
from tests.builders import POOL
from tests.netns import private_network, run_command, run_ip

RULE = wanted_rule(DEFAULT_MARK)
RETURN = IptablesRule(("-j", "RETURN"))
RULES = (
    "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n"
)


@pytest.fixture
def network() -> Iterator[None]:
    with private_network():
        yield


@pytest.fixture(params=["fake", "nft", "legacy"])
def programs(request: pytest.FixtureRequest) -> Iterator[tuple[FirewallPrograms, Backend]]:
    """Programs, and the backend in which the engine has its chain."""
    if request.param == "fake":
        yield FakeFirewallPrograms({Backend.NFT: ":FORWARD DROP [0:0]\n"}), Backend.NFT
        return
    with private_network():
        run_command(f"iptables-{request.param}-restore", given=RULES)
        yield SystemPrograms(), Backend(request.param)


async def user_chain(programs: FirewallPrograms, backend: Backend) -> tuple[IptablesRule, ...] | None:
    return read_facts(await programs.read(4), 4).filters[backend].user_chain


async def test_rules_are_inserted_found_again_and_deleted(programs: tuple[FirewallPrograms, Backend]) -> None:
    under_test, backend = programs
    assert await user_chain(under_test, backend) == (RETURN,)
    await under_test.edit(backend, 4, ("-I", "DOCKER-USER", "1", *RULE.words))
    await under_test.edit(backend, 4, ("-A", "DOCKER-USER", "-s", "192.0.2.9/32", "-j", "DROP"))
    found = await user_chain(under_test, backend)
    assert found == (RULE, RETURN, IptablesRule(("-s", "192.0.2.9/32", "-j", "DROP")))
    await under_test.edit(backend, 4, ("-D", "DOCKER-USER", *RULE.words))
    with pytest.raises(HostError):
        await under_test.edit(backend, 4, ("-D", "DOCKER-USER", *RULE.words))
    facts = read_facts(await under_test.read(4), 4)
    assert facts.filters[backend].drops("FORWARD")
    assert facts.failures == {}


async def test_the_other_ip_version_has_no_chain(programs: tuple[FirewallPrograms, Backend]) -> None:
    under_test, backend = programs
    assert not any(table.chains for table in read_facts(await under_test.read(6), 6).filters.values())
    with pytest.raises(HostError):
        await under_test.edit(backend, 6, ("-A", "DOCKER-USER", *RULE.words))


async def test_the_table_is_made_repaired_and_removed(programs: tuple[FirewallPrograms, Backend]) -> None:
    table = programs[0].marking_table("ip")
    script = render_marking(MarkingRules(POOL, addresses=("192.0.2.1",), open_interfaces=(1, 7)))
    assert [await table.ensure(script) for _ in range(2)] == [TableChange.MADE, TableChange.NONE]
    assert await table.ensure(render_marking(MarkingRules(POOL))) is TableChange.NONE, "our own change is no repair"
    assert [await table.remove() for _ in range(2)] == [True, False]
    assert await table.ensure(script) is TableChange.MADE


async def test_a_changed_table_is_repaired(network: None) -> None:
    table = SystemPrograms().marking_table("ip6")
    script = render_marking(MarkingRules(ip_network("fd00:112::/64")))
    await table.ensure(script)
    run_command("nft", "flush", "chain", "ip6", "vipmesh_forward", "forward")
    assert await table.ensure(script) is TableChange.REPAIRED
    assert "meta mark set" in run_command("nft", "list", "table", "ip6", "vipmesh_forward")


async def test_reading_lists_bridges_and_tables_of_others_and_changes_nothing(network: None) -> None:
    run_ip("link add br-shop type bridge", "link add v0 type veth")
    run_command(
        "nft", "-f", "-", given="table inet theirs { chain c { type filter hook forward priority 0; policy drop; }; }"
    )
    run_command("nft", "-f", "-", given="table ip vipmesh_lb { }")
    before = run_command("nft", "list", "ruleset")
    texts = await SystemPrograms().read(4)
    assert set(texts.bridges) == {"br-shop"}
    assert len(texts.links) == 3, "lo, and both ends of a veth pair that is on no bridge"
    assert "table inet theirs" in texts.nft
    assert "vipmesh" not in texts.nft
    assert texts.legacy_in_use is False
    assert run_command("nft", "list", "ruleset") == before


async def test_rules_of_nft_in_the_tables_of_iptables_are_a_reason(network: None) -> None:
    run_command("iptables-nft-restore", given=RULES)
    run_command("nft", "add", "rule", "ip", "filter", "FORWARD", "ct", "state", "established", "accept")
    facts = read_facts(await SystemPrograms().read(4), 4)
    assert "does not understand" in facts.failures[Backend.NFT]


async def test_missing_programs_are_named_with_the_package(
    network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_command("iptables-nft-restore", given=RULES)
    (tmp_path / "nft").symlink_to("/usr/sbin/nft")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("mesh.host.firewall.programs.ADMIN_PATH", "/nonexistent")
    facts = read_facts(await SystemPrograms().read(4), 4)
    assert "`apt-get install iptables`" in facts.failures[Backend.NFT]
    (tmp_path / "nft").unlink()
    monkeypatch.setattr("mesh.util.nft.ADMIN_PATH", "/nonexistent")
    with pytest.raises(HostError, match="apt-get install nftables"):
        await SystemPrograms().read(4)


async def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hanging = tmp_path / "iptables-nft"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("mesh.host.firewall.programs.PATIENCE", 0.2)
    with pytest.raises(HostError, match="did not end in time"):
        await SystemPrograms().edit(Backend.NFT, 4, ("-S",))


@pytest.mark.parametrize(
    ("program", "capability"), [("iptables-nft-save", "NET_ADMIN"), ("iptables-legacy-save", "NET_RAW")]
)
def test_a_missing_capability_is_named(network: None, program: str, capability: str) -> None:
    run_command(program.replace("-save", "-restore"), given=RULES)
    command = ("setpriv", "--reuid=65534", "--clear-groups", program, "-t", "filter")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = ProgramResult(done.returncode, done.stdout, done.stderr)
    backend = Backend.LEGACY if capability == "NET_RAW" else Backend.NFT
    assert done.returncode, done
    assert f"CAP_{capability}" in explain_refusal(program, backend, result)


@pytest.mark.parametrize(
    "rules",
    [
        MarkingRules(POOL),
        MarkingRules(POOL, AcceptMark(1, 0xFFFFFFFF), ("192.0.2.1", "2001:db8::1"), open_interfaces=(1, 999)),
        MarkingRules(POOL, published=tuple((transport, 30080) for transport in Transport), silent_bridges=(1,)),
        MarkingRules(ip_network("fd00:112::/64"), AcceptMark(2, 3), ("2001:db8::1",), internal_bridges=(1, 999)),
    ],
)
async def test_nft_accepts_every_table(network: None, rules: MarkingRules) -> None:
    table = SystemPrograms().marking_table(family_of(rules.pool))
    assert [await table.ensure(render_marking(rules)) for _ in range(2)] == [TableChange.MADE, TableChange.NONE]
