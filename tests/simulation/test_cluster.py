"""A cluster in virtual time, with faults chosen by a seed: all tables agree afterwards, and every claim is unique."""

import pytest

from mesh.model.service import Health
from tests.builders import POOL
from tests.simulation.cluster import Simulation
from tests.simulation.faults import Havoc, placed, wreak, wrong

HAVOC = Havoc(seconds=40, verdicts=20, cuts=8, crashes=6, outages=1, compactions=2)


def simulated(seed: int, havoc: Havoc = HAVOC, *, workers: int = 20, services: int = 60) -> Simulation:
    simulation = Simulation(seed, placed(workers, services, 5), POOL, range(30000, 31000), witnesses=5)
    wreak(simulation, havoc)
    return simulation


@pytest.mark.parametrize("seed", range(6))
def test_after_all_faults_every_table_is_the_same_and_every_claim_unique(seed: int) -> None:
    simulation = simulated(seed)
    assert wrong(simulation) == []
    claims = sum(key.startswith("claims/") for key in simulation.cluster.records)
    assert simulation.counts.requests["claim"] > claims, "several asked for one at the same instant"
    pictures = [w.witness.pictures for w in simulation.workers.values() if w.witness is not None and w.alive]
    assert len(set(pictures)) > 1, "each in its own portions"
    assert sum(pictures) > 100


def test_a_seed_determines_the_trace() -> None:
    short = Havoc(seconds=15, verdicts=5, cuts=3, crashes=3, outages=1, compactions=1)
    one, again, other = (simulated(seed, short, workers=8, services=12) for seed in (1, 1, 2))
    assert one.trace == again.trace
    assert one.cluster.records == again.cluster.records
    assert one.counts == again.counts
    assert other.trace != one.trace


def test_store_operations_are_counted() -> None:
    calm = Havoc(seconds=20, verdicts=0, cuts=0, crashes=0, outages=0, compactions=0)
    busy = Havoc(seconds=20, verdicts=50, cuts=0, crashes=0, outages=0, compactions=0)
    one, other = simulated(1, calm), simulated(1, busy)
    assert one.counts.requests["list"] == 2 * 20, "everything, and what a former life has left"
    assert abs(one.counts.requests["keepalive"] - other.counts.requests["keepalive"]) < 10
    assert other.counts.requests["write"] > one.counts.requests["write"]
    changed = other.cluster.revision - one.cluster.revision
    assert changed > 100
    assert other.counts.events - one.counts.events >= 20 * changed, "each watch is told of each"
    assert other.counts.told > one.counts.told


def test_the_simulation_detects_planted_defects() -> None:
    simulation = simulated(3, Havoc(seconds=12, verdicts=5, cuts=0, crashes=0, outages=0, compactions=0))
    assert wrong(simulation) == []
    witness = next(worker for worker in simulation.workers.values() if worker.witness is not None)
    assert witness.witness is not None
    witness.witness.follow({f"health/{witness.name}/x": b"", next(iter(witness.wanted())): None})
    simulation.cluster.change({"claims/services/s0.test": simulation.cluster.records["claims/services/s1.test"]})
    simulation.probe(witness, witness.endpoints[0].id, Health.UNHEALTHY)
    found = " ".join(wrong(simulation))
    assert f"{witness.name} has the digest" in found
    assert "a VIP is given twice" in found
    assert "is at revision" in found
