"""A sample table with everything that this data plane may use, to check whether nft and the kernel support it."""

from mesh.dataplane.nftables.commands import server_commands
from mesh.dataplane.nftables.parse import RulesetState
from mesh.dataplane.nftables.ruleset import TABLE, base_chains, base_script
from mesh.model.service import Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, VirtualKey, VirtualServer

_PORT = SchedulerFlag.PORT


def sample_commands(version: int) -> list[str]:
    """Return the commands for a sample table, which has another name than ours.

    They must be checked and never committed.

    `version` is the IP version.
    """
    fixed = base_chains(version)
    address = "2001:db8::1" if version == 6 else "192.0.2.1"
    one = {RealKey(address, 80): RealServer()}
    two = {RealKey(address, port): RealServer(200) for port in (80, 81)}
    servers = {
        Transport.TCP: (
            VirtualServer(Scheduler.WRR, 0, one),
            VirtualServer(Scheduler.WRR, 0, {**two, RealKey(address, 82): RealServer(1)}),
            VirtualServer(Scheduler.SH, 60, two, frozenset({_PORT})),
            VirtualServer(),
        ),
        Transport.UDP: (VirtualServer(Scheduler.SH, 0, two, frozenset({_PORT})), VirtualServer()),
    }
    keys = {
        VirtualKey(address, 80 + number, transport): server
        for transport, several in servers.items()
        for number, server in enumerate(several)
    }
    parts = (server_commands(fixed, RulesetState(intact=True), key, server) for key, server in keys.items())
    lines = [*base_script(fixed, ()), *(line for lines in parts for line in lines)]
    return [line.replace(fixed.table, f"{fixed.family} {TABLE}_check", 1) for line in lines]
