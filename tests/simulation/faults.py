"""Faults of a simulated cluster, chosen by its seed, and the invariants afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from mesh.cluster.records.encode import build_view
from mesh.control.digest import plan_digest
from mesh.control.planner import make_plan
from mesh.model.claims import Claims
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Endpoint, Health, PortPublication, Route, Service, Transport
from tests.simulation.cluster import TTL, Simulation
from tests.simulation.workers import Worker

TOGETHER = 0.1
"""Seconds within which all workers start, as after a power cut: many ask for one claim at the same instant."""
QUIET = 3 * TTL
"""Seconds without faults at the end: time to mend everything."""


@dataclass(frozen=True, slots=True)
class Havoc:
    """How much of what, in so many seconds."""

    seconds: float
    verdicts: float
    """Changes of health in a second, over all workers."""
    cuts: int
    """Workers that are cut from the store, for up to three times a lease."""
    crashes: int
    """Daemons that die, most of which are started again."""
    outages: int
    """Times that nobody reaches the store."""
    compactions: int


def placed(workers: int, services: int, copies: int) -> list[Worker]:
    """Each service has copies on so many workers, all of them healthy; a tenth is published too."""
    offered: list[tuple[list[Service], list[Endpoint]]] = [([], []) for _ in range(workers)]
    for number in range(services):
        name = f"s{number}.test"
        publishes = (PortPublication(80, Transport.TCP, None),) if number % 10 == 0 else ()
        routes = (Route(name, 80, Transport.TCP, 80),)
        service = Service(f"shop/s{number}", name, routes, publishes, probe=Probe(ProbeKind.TCP, None))
        for copy in range(copies):
            at = (number + copy * (workers // copies or 1)) % workers
            address = str(IPv4Address("10.16.0.0") + number * copies + copy)
            offered[at][0].append(service)
            offered[at][1].append(Endpoint(f"{service.owner}/{address}", service.owner, f"w{at}", address))
    return [
        Worker(f"w{number}", tuple(declared), tuple(endpoints), {e.id: Health.HEALTHY for e in endpoints})
        for number, (declared, endpoints) in enumerate(offered)
    ]


def wreak(simulation: Simulation, havoc: Havoc) -> None:
    """Start all workers, let all of it befall them, and then let them mend it."""
    begins = simulation.now
    chance, workers = simulation.random, list(simulation.workers.values())
    for worker in workers:
        simulation.later(chance.uniform(0, TOGETHER), f"start {worker.name}", partial(simulation.start, worker))

    def some_time() -> float:
        return chance.uniform(TTL, havoc.seconds - TTL)

    for _ in range(int(havoc.seconds * havoc.verdicts)):
        worker = chance.choice(workers)
        endpoint = chance.choice(worker.endpoints)
        health = chance.choice([Health.HEALTHY, Health.UNHEALTHY])
        simulation.later(some_time(), f"probe {endpoint.id}", partial(simulation.probe, worker, endpoint.id, health))
    for worker in chance.sample(workers, havoc.cuts):
        at, lasts = some_time(), chance.uniform(0.1, 3 * TTL)
        simulation.later(at, f"cut {worker.name}", partial(simulation.cut, worker, True))
        simulation.later(at + lasts, f"heal {worker.name}", partial(simulation.cut, worker, False))
    for number, worker in enumerate(chance.sample(workers, havoc.crashes)):
        at, lasts = some_time(), chance.uniform(0.1, 2 * TTL)
        simulation.later(at, f"crash {worker.name}", partial(simulation.crash, worker))
        if number % 4:
            simulation.later(at + lasts, f"start {worker.name}", partial(simulation.start, worker))
    for _ in range(havoc.outages):
        at = some_time()
        simulation.later(at, "outage", partial(simulation.outage, True))
        simulation.later(at + chance.uniform(1, 2 * TTL), "return", partial(simulation.outage, False))
    for _ in range(havoc.compactions):
        simulation.later(some_time(), "compaction", simulation.compact)
    simulation.run(begins + havoc.seconds + 3 * TTL + QUIET)


def wrong(simulation: Simulation) -> list[str]:
    """What does not hold in the end, in words; empty: all is well."""
    return [*_of_tables(simulation), *_of_claims(simulation)]


def _of_tables(simulation: Simulation) -> Iterator[str]:
    fresh, problems = build_view(simulation.cluster.records)
    yield from (str(problem) for problem in problems)
    expected = plan_digest(make_plan(fresh, fresh.health))
    for worker in simulation.workers.values():
        if not worker.alive:
            if simulation.cluster.registered.get(worker.name):
                yield f"{worker.name} is gone, and what it offered is still there"
            continue
        if worker.revision != simulation.cluster.revision:
            yield f"{worker.name} is at revision {worker.revision} of {simulation.cluster.revision}"
        if worker.witness is not None and worker.witness.digest() != expected:
            yield f"{worker.name} has the digest {worker.witness.digest()} and not {expected}"
    lacking = [service.name for service in fresh.services if service.name not in fresh.claims.vips]
    if lacking:
        yield f"{len(lacking)} services have no VIP, {lacking[0]} first"


def _of_claims(simulation: Simulation) -> Iterator[str]:
    claims: Claims = build_view(simulation.cluster.records)[0].claims
    if len(set(claims.vips.values())) != len(claims.vips):
        yield "a VIP is given twice"
    if any(claims.holders.get(vip) != name for name, vip in claims.vips.items()):
        yield "a VIP is held by another service than the one that has it"
    for key in simulation.moved:
        yield f"{key} was changed after it was given"
