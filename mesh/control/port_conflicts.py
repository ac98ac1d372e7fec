"""Finds published ports that a program on this worker already listens on: balancing them would take them from the
program.

Publishing 22 by mistake would otherwise lock operators out of every worker. A port that already leads to its service
here stays with it: then the program that came later is the conflict.
"""

from collections.abc import Collection, Iterator

from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Transport
from mesh.model.table import Table


def served_ports(table: Table) -> frozenset[tuple[Transport, int]]:
    """The published ports that a data plane serves: those of virtual servers that are not on a VIP."""
    return frozenset((key.transport, key.port) for key in table.virtual_servers if key.address not in table.vips)


def contested_ports(
    claims: Claims, listening: Collection[tuple[Transport, int]], serving: Collection[tuple[Transport, int]]
) -> frozenset[tuple[Transport, int]]:
    """The claimed ports that programs of this worker listen on and that are not served here yet."""
    return frozenset(port for port in claims.ports if port in listening and port not in serving)


def conflict_problems(claims: Claims, ports: Collection[tuple[Transport, int]]) -> Iterator[Problem]:
    """One problem for each port that is left to a program."""
    for transport, port in sorted(ports):
        name, _ = claims.ports[transport, port]
        reason = f"{transport} port {port} is not published here: a program of this worker listens on it"
        remedy = f"publish another port, or stop that program (`ss -lnp sport = {port}` shows it)"
        yield Problem(Code.PUBLISHED_PORT_IN_USE, Severity.ERROR, f"service {name}", reason, remedy)
