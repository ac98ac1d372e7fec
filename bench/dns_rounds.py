"""Queries servers in turn, in random order, and measures the cost of each answer."""

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dns_load import Load
from dns_peers import Server

from harness import Row, cpu_seconds, family, ratio


@dataclass
class Rounds:
    """The measurements of one server."""

    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    """CPU microseconds per answer."""

    def words(self) -> str:
        """The medians."""
        return f"{statistics.median(self.costs):.2f} us, {statistics.median(self.rates) / 1000:.0f}k/s"


def compare(servers: Mapping[str, Server], rounds: int, ask: Callable[[Server], Load]) -> dict[str, Rounds]:
    """Each server in each round, in random order; all of them warm."""
    found = {name: Rounds() for name in servers}
    for server in servers.values():
        ask(server)
    for _ in range(rounds):
        for name in random.sample(sorted(servers), len(servers)):
            pids = family(servers[name][0])
            before = sum(map(cpu_seconds, pids))
            load = ask(servers[name])
            used = sum(map(cpu_seconds, pids)) - before
            found[name].rates.append(load.rate)
            found[name].costs.append(used / load.answers * 1e6)
    return found


def per_core(name: str, us: Rounds, peer: str, them: Rounds, goal: float) -> Row:
    """Queries per CPU second."""
    value, spread = ratio([1 / cost for cost in us.costs], [1 / cost for cost in them.costs])
    return Row(
        f"{name} queries per CPU second beside {peer}",
        us.words(),
        them.words(),
        value,
        spread,
        f">= {goal}",
        value >= goal,
    )
