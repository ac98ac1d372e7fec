"""The control loop when many endpoints fail at once and when the workers that probe them depart; in virtual time."""

import logging
from dataclasses import dataclass

import pytest

from mesh.cluster.departed import RETENTION, VERDICT_VALIDITY
from mesh.cluster.records.encode import build_view, encode_daemon, encode_registration, encode_verdict
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Address, Endpoint, Health, Route, Service, Transport
from mesh.testing.store import MemoryStore
from tests.builders import PROBED_WEB_LABELS, numbered_instance
from tests.control.reported import status_of
from tests.control.test_reconciler import Bench

pytestmark = pytest.mark.looptime

FALL = 20.0
"""Seconds: three failures at the default interval, and the passes that follow."""
BAR = {"mesh.routing.port_80": "bar.test", "mesh.probe.url": "http://container:80"}


def addresses(bench: Bench) -> set[str]:
    """Which endpoints are in traffic, by the last octet."""
    servers = bench.plane.table.virtual_servers.values()
    return {real.address.rpartition(".")[2] for server in servers for real in server.real_servers}


def answers(bench: Bench, *octets: int, ok: bool = True) -> None:
    for octet in octets:
        bench.check.set(f"10.2.0.{octet}", 80, ok, "status 200" if ok else "no answer in 2 s")


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_half_of_the_endpoints_stay_when_most_fail_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    answers(bench, 1, 2, 3, 4)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(n, PROBED_WEB_LABELS) for n in (1, 2, 3, 4)])
        await bench.passes(5)
        assert addresses(bench) == {"1", "2", "3", "4"}
        answers(bench, 1, 2, 3, 4, ok=False)
        await bench.passes(FALL)
        assert len(addresses(bench)) == 2
        status = status_of(loop)
        (service,) = status.services
        assert [e.health for e in service.endpoints] == ["unhealthy"] * 4
        assert [e.serving for e in service.endpoints] == [e.kept for e in service.endpoints]
        assert sum(e.kept for e in service.endpoints) == 2
        assert len(status.suspicions) == 2
        assert "service demo/web: 4 of 4 endpoints fail at once" in status.suspicions[0]
        assert "endpoints that worker w1 probes: 4 of 4" in status.suspicions[1]
        assert "set probe.floor or [probes] floor to 0" in status.suspicions[0]
        told = [r for r in caplog.records if "fail at once" in r.getMessage()]
        assert [r.levelno for r in told] == [logging.ERROR] * 2, "each once, however often it is looked at"
        await bench.passes(600)
        assert len(addresses(bench)) == 2
        answers(bench, 1, 2, 3, 4)
        await bench.passes(FALL)
        assert addresses(bench) == {"1", "2", "3", "4"}
        assert not status_of(loop).suspicions


async def test_a_floor_of_zero_removes_every_unhealthy_endpoint(bench: Bench) -> None:
    answers(bench, 1, 2)
    async with bench.running():
        bench.source.say([numbered_instance(n, {**PROBED_WEB_LABELS, "mesh.probe.floor": "0"}) for n in (1, 2)])
        await bench.passes(5)
        assert addresses(bench) == {"1", "2"}
        answers(bench, 1, 2, ok=False)
        await bench.passes(FALL)
        assert addresses(bench) == set()


async def test_single_endpoints_stay_when_all_checks_of_the_worker_fail(bench: Bench) -> None:
    answers(bench, 1, 2)
    async with bench.running():
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS), numbered_instance(2, BAR, "demo/bar")])
        await bench.passes(5)
        answers(bench, 1, 2, ok=False)
        for _ in range(60):
            await bench.passes(1)
            assert addresses(bench) == {"1", "2"}


async def test_kept_endpoints_stay_kept_after_a_restart(bench: Bench) -> None:
    answers(bench, 1, 2, 3, 4)
    async with bench.running():
        bench.source.say([numbered_instance(n, PROBED_WEB_LABELS) for n in (1, 2, 3, 4)])
        await bench.passes(5)
        answers(bench, 1, 2, 3, 4, ok=False)
        await bench.passes(FALL)
        kept = addresses(bench)
    for _ in range(3):
        bench.source = type(bench.source)()
        async with bench.running() as loop:
            bench.source.say([numbered_instance(n, PROBED_WEB_LABELS) for n in (1, 2, 3, 4)])
            for _ in range(int(FALL * 3)):
                await bench.passes(1)
                assert addresses(bench) == kept
            assert status_of(loop).suspicions
    bench.source = type(bench.source)()
    async with bench.running():
        bench.source.say([numbered_instance(n, PROBED_WEB_LABELS) for n in (1, 2, 3, 4)])
        answers(bench, 1, 2, 3, 4)
        await bench.passes(FALL)
        assert addresses(bench) == {"1", "2", "3", "4"}


async def test_the_last_ten_verdicts_are_reported(bench: Bench) -> None:
    answers(bench, 1)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await bench.passes(80)
        (endpoint,) = status_of(loop).services[0].endpoints
        assert len(endpoint.verdicts) == 10
        assert {(v.ok, v.reason, v.seconds) for v in endpoint.verdicts} == {(True, "status 200", 0.0)}
        assert endpoint.last_probe == "status 200"
        assert [v.at for v in endpoint.verdicts] == sorted(v.at for v in endpoint.verdicts)
        assert endpoint.verdicts[0].at.endswith("+00:00")
        probes = status_of(loop).probes
        assert probes is not None
        assert (probes.endpoints, probes.failures, probes.late) == (1, 0, 0)
        assert probes.checks == len(bench.check.asked)


@dataclass
class Other:
    """Worker w2 with one endpoint of demo/web, of which only the records are there."""

    bench: Bench
    address: Address = "10.2.0.9"

    def __post_init__(self) -> None:
        service = Service(
            "demo/web",
            "web.test",
            (Route("web.test", 80, Transport.TCP, 80),),
            probe=Probe(ProbeKind.HTTP, 80),
        )
        self.records = encode_registration("w2", [service], [Endpoint("e", "demo/web", "w2", self.address)])
        self.records |= encode_daemon("w2", "1", "x")

    async def says(self, health: Health) -> None:
        said = dict([encode_verdict("w2", ("w2", "e"), health, kept=False, held_back=False)])
        await MemoryStore(self.bench.cluster, "w2").register({**self.records, **said})


async def test_endpoints_of_a_departed_worker_are_probed_by_others(bench: Bench) -> None:
    answers(bench, 1, 9)
    other = Other(bench)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await other.says(Health.HEALTHY)
        await bench.passes(5)
        assert addresses(bench) == {"1", "9"}
        assert not bench.check.times(other.address, 80), "its own worker asks it"
        bench.cluster.expire("w2")
        await bench.passes(3)
        assert addresses(bench) == {"1", "9"}
        assert bench.check.times(other.address, 80)
        assert build_view(bench.cluster.records)[0].health[("w2", "e")] is Health.HEALTHY, "and the others are told"
        (mine, its) = status_of(loop).services[0].endpoints
        assert (its.worker, its.serving, its.last_probe) == ("w2", True, "status 200")
        answers(bench, 9, ok=False)
        await bench.passes(FALL)
        assert addresses(bench) == {"1"}
        answers(bench, 9)
        await bench.passes(15)
        await other.says(Health.UNHEALTHY)  # it is back, and its word counts
        await bench.passes(1)
        asked = len(bench.check.times(other.address, 80))
        assert addresses(bench) == {"1"}
        await bench.passes(10)
        assert len(bench.check.times(other.address, 80)) == asked
        assert mine.serving


async def test_records_of_a_departed_worker_expire(bench: Bench) -> None:
    answers(bench, 1, 9)
    other = Other(bench)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await other.says(Health.HEALTHY)
        await bench.passes(5)
        bench.cluster.expire("w2")
        await bench.passes(RETENTION - 5)
        assert addresses(bench) == {"1", "9"}
        await bench.passes(10)
        assert addresses(bench) == {"1"}
        assert [e.worker for e in status_of(loop).services[0].endpoints] == ["w1"]


async def test_endpoints_of_a_failed_host_get_no_traffic(bench: Bench) -> None:
    answers(bench, 1)
    other = Other(bench)
    async with bench.running():
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await other.says(Health.HEALTHY)
        await bench.passes(5)
        assert addresses(bench) == {"1", "9"}
        bench.cluster.expire("w2")
        await bench.passes(0.5)
        assert addresses(bench) == {"1", "9"}, "the last word counts until somebody else has asked"
        await bench.passes(20)
        assert addresses(bench) == {"1"}
        await bench.passes(RETENTION)
        assert addresses(bench) == {"1"}


async def test_while_the_store_is_unreachable_each_worker_probes_all_endpoints(bench: Bench) -> None:
    answers(bench, 1, 9)
    other = Other(bench)
    async with bench.running():
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await other.says(Health.HEALTHY)
        await bench.passes(5)
        bench.cluster.out_of_reach = True
        await bench.passes(VERDICT_VALIDITY - 3)
        assert not bench.check.times(other.address, 80)
        await bench.passes(10)
        assert bench.check.times(other.address, 80)
        assert addresses(bench) == {"1", "9"}
        answers(bench, 9, ok=False)
        await bench.passes(FALL)
        assert addresses(bench) == {"1"}, "nobody could tell"
        bench.cluster.out_of_reach = False
        await bench.passes(10)
        assert addresses(bench) == {"1", "9"}, "as its own worker says"


async def test_an_endpoint_that_its_worker_keeps_stays_in_traffic(bench: Bench) -> None:
    answers(bench, 1)
    other = Other(bench)
    async with bench.running():
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await other.says(Health.UNHEALTHY)
        await bench.passes(5)
        assert addresses(bench) == {"1"}
        kept = dict([encode_verdict("w2", ("w2", "e"), Health.UNHEALTHY, kept=True, held_back=False)])
        await MemoryStore(bench.cluster, "w2").register({**other.records, **kept})
        await bench.passes(1)
        assert addresses(bench) == {"1", "9"}
        held = dict([encode_verdict("w2", ("w2", "e"), Health.UNHEALTHY, kept=False, held_back=True)])
        await MemoryStore(bench.cluster, "w2").register({**other.records, **held})
        await bench.passes(1)
        assert addresses(bench) == {"1"}
        answers(bench, 1, ok=False)
        await bench.passes(FALL)
        assert addresses(bench) == {"9"}, "it answers at least"


async def test_the_answer_that_decided_is_published_once(bench: Bench) -> None:
    answers(bench, 1)
    async with bench.running():
        bench.source.say([numbered_instance(1, {**PROBED_WEB_LABELS, "mesh.probe.floor": "0"})])
        await bench.passes(FALL)
        answers(bench, 1, ok=False)
        await bench.passes(2 * FALL)
        (key,) = [key for key in bench.cluster.records if key.startswith("health/w1/")]
        published = bench.cluster.records[key]
        assert b'"reason":"no answer in 2 s"' in published
        bench.check.set("10.2.0.1", 80, False, "refused")
        before = bench.cluster.revision
        await bench.passes(2 * FALL)
        assert (bench.cluster.records[key], bench.cluster.revision) == (published, before)
        answers(bench, 1)
        await bench.passes(2 * FALL)
        assert b"reason" not in bench.cluster.records[key]
