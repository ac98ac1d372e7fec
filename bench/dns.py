"""The name server beside NSD, Knot, unbound and dnsmasq: the same own names, over UDP and TCP, in one run.

All servers run together, each on the same core, and are queried in turn and in random order; the load has the other
core. CPU time per query is the limit of a server, and other load on the machine disturbs it least.
"""

import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

from dns_forward import forwarded
from dns_load import Load, blast, converse, pace
from dns_peers import PEERS, Server, changing, ours
from dns_rounds import compare, per_core
from dns_worker import daemon
from dnslib import DNSRecord

from harness import Row, cores, main, ratio, scratch

NAMES = 2000
SERVICES = 1000
GOALS = {"NSD": 1.0, "Knot": 1.05, "unbound": 1.0, "dnsmasq": 1.7}


def questions(names: int, *, odd: bool = True) -> list[bytes]:
    """90 of 100 existing names, 5 AAAA without data, 5 names that do not exist; always the same ones."""
    pick = random.Random(1)
    asked = []
    for number in range(20_000):
        name, kind = f"n{pick.randrange(names)}.bench.test", "A"
        if odd and number % 20 == 0:
            kind = "AAAA"
        elif odd and number % 20 == 1:
            name = f"x{pick.randrange(10**9)}.bench.test"
        asked.append(bytes(DNSRecord.question(name, kind).pack()))
    return asked


def own_names(rounds: int, seconds: float, cpu: int) -> list[Row]:
    """The running daemon, with all that it does beside, and its name server alone; beside all peers."""
    packets = questions(SERVICES)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(peer(cpu, NAMES, stack.enter_context(scratch()))) for name, peer in PEERS.items()
        }
        servers["alone"] = stack.enter_context(ours(cpu, NAMES))
        servers["daemon"] = stack.enter_context(daemon(cpu, SERVICES))
        found = compare(servers, rounds, lambda server: blast(server[1], packets, seconds))
    name = f"own names, UDP, the running daemon with {SERVICES} probed services:"
    rows = [per_core(name, found["daemon"], peer, found[peer], GOALS[peer]) for peer in PEERS]
    return [*rows, per_core("own names, UDP, the name server alone:", found["alone"], "NSD", found["NSD"], 1.0)]


def over_tcp(rounds: int, seconds: float, cpu: int) -> list[Row]:
    """Sixty-four questions in a row on each of four connections."""
    packets = questions(NAMES, odd=False)
    with ExitStack() as stack:
        servers = {
            "NSD": stack.enter_context(PEERS["NSD"](cpu, NAMES, stack.enter_context(scratch()))),
            "ours": stack.enter_context(ours(cpu, NAMES)),
        }
        found = compare(servers, rounds, lambda server: converse(server[1], packets, seconds))
    return [per_core("own names, TCP, pipelined:", found["ours"], "NSD", found["NSD"], 0.5)]


def sizes(rounds: int, seconds: float, cpu: int) -> list[Row]:
    """A small zone and a large one."""
    with ours(cpu, 100) as small, ours(cpu, 10_000) as large:
        packets = {small: questions(100), large: questions(10_000)}
        found = compare(
            {"100": small, "10,000": large}, rounds, lambda server: blast(server[1], packets[server], seconds)
        )
    return [per_core("a zone of 10,000 names:", found["10,000"], "one of 100", found["100"], 0.9)]


def while_it_changes(rounds: int, seconds: float, cpu: int) -> list[Row]:
    """The slowest of a hundred answers at half load: of one worker, at rest and with a thousand changes per second."""
    packets = questions(SERVICES)
    rest: list[Load] = []
    busy: list[Load] = []
    with changing(cpu, SERVICES, 1000) as (pid, port):
        half = blast(port, packets, seconds).rate / 2
        for _ in range(rounds):
            for found in random.sample([rest, busy], 2):
                with toggled(pid) if found is busy else nullcontext():
                    found.append(pace(port, packets, seconds, half))
    us, them = ([load.quantile(0.99) for load in found] for found in (busy, rest))
    lost = sum(load.lost for load in busy) / sum(load.answers + load.lost for load in busy)
    value, spread = ratio(us, them)
    name = f"p99 at half load ({half / 1000:.0f}k/s) while 1,000 endpoints/s change, beside itself at rest"
    words = f"{statistics.median(us) / 1000:.2f} ms, {lost:.1%} lost"
    return [Row(name, words, f"{statistics.median(them) / 1000:.2f} ms", value, spread, "<= 2", value <= 2)]


@contextmanager
def toggled(pid: int) -> Iterator[None]:
    """A worker whose endpoints change, for a while."""
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.5)
    yield
    os.kill(pid, signal.SIGUSR1)
    time.sleep(1.0)


def swaps(rounds: int, seconds: float, cpu: int) -> list[Row]:
    """The longest time without an answer while a zone of 10,000 names is replaced, all of it, every second."""
    packets = questions(10_000)
    with ours(cpu, 10_000) as still, ours(cpu, 10_000, "swap") as swapped:
        found: dict[Server, list[float]] = {still: [], swapped: []}
        for _ in range(rounds):
            for each in random.sample([still, swapped], 2):
                found[each].append(pace(each[1], packets, max(seconds, 2.0), 20_000).gap * 1e3)
    us, them = found[swapped], found[still]
    value, spread = ratio(us, them)
    name = "longest gap at 20k/s while 10,000 names are swapped every second, beside no swap"
    words = [f"{statistics.median(gaps):.1f} ms (most: {max(gaps):.1f})" for gaps in (us, them)]
    return [Row(name, words[0], words[1], value, spread, "<= 2", value <= 2)]


def run(quick: bool) -> list[Row]:
    """Everything; `quick` takes two minutes."""
    rounds, seconds = (5, 0.5) if quick else (15, 2.0)
    server_cpu, load_cpu = cores()
    os.sched_setaffinity(0, {load_cpu})
    parts: Sequence[Callable[[int, float, int], list[Row]]] = (
        own_names,
        over_tcp,
        while_it_changes,
        swaps,
        sizes,
        forwarded,
    )
    return [row for part in parts for row in part(rounds, seconds, server_cpu)]


if __name__ == "__main__":
    sys.exit(main(run, "The name server beside NSD, Knot, unbound and dnsmasq."))
