"""Usage of containers: sampled on a worker, as a record of the store, and as samples of a service."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from mesh.platform.autoscaling.cgroup_files import CgroupLimits, CgroupUsage, ContainerCgroup
from mesh.platform.autoscaling.cgroup_reader import CgroupSource
from mesh.platform.autoscaling.model import InstanceSample, ScalingMeasure
from mesh.platform.autoscaling.usage_history import FRESH, ScalingBase, UsageHistory
from mesh.platform.autoscaling.usage_records import (
    MAX_MEASURED_INSTANCES,
    MAX_USAGE_RECORD,
    InstanceUsage,
    WorkerUsage,
    decode_usage,
    decode_usages,
    encode_usage,
    usage_key,
    worker_of_usage,
)
from mesh.platform.autoscaling.usage_sampler import MeasuredContainer, UsageSampler

CPU, MEMORY = ScalingMeasure.CPU, ScalingMeasure.MEMORY
OWNER = "shop/web"
WEB = MeasuredContainer("c1", OWNER, 7, "first")


class FakeCgroups(CgroupSource):
    """Cgroups whose counters a test sets."""

    def __init__(self) -> None:
        self.counters: dict[str, CgroupUsage] = {}
        self.limited = CgroupLimits(0.2, 1000)
        self.searches = 0

    @override
    def find(self, container: str, pid: int) -> ContainerCgroup | None:
        self.searches += 1
        return ContainerCgroup(2, container, container, container) if container in self.counters else None

    @override
    def usage(self, cgroup: ContainerCgroup) -> CgroupUsage | None:
        return self.counters.get(cgroup.cpu)

    @override
    def limits(self, cgroup: ContainerCgroup) -> CgroupLimits:
        return self.limited


# ---------------------------------------------------------------------------------------------------- the sampler


def test_a_sample_is_what_was_used_since_the_one_before() -> None:
    cgroups = FakeCgroups()
    cgroups.counters["c1"] = CgroupUsage(1_000_000_000, 100, 10, 500)
    sampler = UsageSampler(cgroups, "run", 4000)
    first = sampler.sample([WEB], 100.0)
    assert first.services == {OWNER: (InstanceUsage("c1", None, 500, 0, True, 200, 1000),)}
    cgroups.counters["c1"] = CgroupUsage(2_500_000_000, 200, 50, 600)
    second = sampler.sample([WEB], 110.0)
    assert second.services == {OWNER: (InstanceUsage("c1", 150, 600, 400, True, 200, 1000),)}
    assert (first.round, second.round, second.memory) == (1, 2, 4000)
    assert cgroups.searches == 1, "a container is looked for once"


def test_a_container_that_started_again_has_no_sample_before() -> None:
    cgroups = FakeCgroups()
    cgroups.counters["c1"] = CgroupUsage(5_000_000_000)
    sampler = UsageSampler(cgroups, "run", 0)
    sampler.sample([WEB], 100.0)
    cgroups.counters["c1"] = CgroupUsage(9_000_000_000)
    again = sampler.sample([replace(WEB, run="second")], 110.0)
    assert again.services[OWNER][0].cpu is None
    cgroups.counters["c1"] = CgroupUsage(1_000_000)
    back = sampler.sample([replace(WEB, run="second")], 120.0)
    assert back.services[OWNER][0].cpu is None, "counters that go back are of another cgroup"


def test_a_probe_says_whether_a_container_starts_else_its_age() -> None:
    cgroups = FakeCgroups()
    cgroups.counters["c1"] = CgroupUsage(0)
    sampler = UsageSampler(cgroups, "run", 0)

    def is_starting(container: MeasuredContainer, now: float) -> bool:
        return sampler.sample([container], now).services[OWNER][0].is_starting

    assert is_starting(WEB, 100.0)
    assert is_starting(WEB, 129.0)
    assert not is_starting(WEB, 130.0)
    probed = replace(WEB, is_probed=True)
    assert is_starting(probed, 500.0), "however long it takes"
    assert not is_starting(replace(probed, has_served=True), 510.0)


def test_what_is_not_visible_is_told_and_left_out() -> None:
    cgroups = FakeCgroups()
    cgroups.counters["c1"] = CgroupUsage(0)
    sampler = UsageSampler(cgroups, "run", 0)
    found = sampler.sample([WEB, replace(WEB, id="c2"), replace(WEB, id="c3", pid=0)], 100.0)
    assert [each.id for each in found.services[OWNER]] == ["c1"]
    assert sampler.unreadable == ("c2", "c3")
    assert sampler.sample([WEB], 110.0).services.keys() == {OWNER}
    assert not sampler.unreadable


def test_changed_limits_are_read_again() -> None:
    cgroups = FakeCgroups()
    cgroups.counters["c1"] = CgroupUsage(0)
    sampler = UsageSampler(cgroups, "run", 0)
    sampler.sample([WEB], 0.0)
    cgroups.limited = CgroupLimits(2.0)
    last = [sampler.sample([WEB], 10.0 * turn) for turn in range(1, 7)][-1]
    assert (last.services[OWNER][0].cpu_limit, last.services[OWNER][0].memory_limit) == (2000, 0)


# ------------------------------------------------------------------------------------------------------- records

USAGES = st.builds(
    WorkerUsage,
    st.integers(0, 1 << 53),
    st.text(max_size=32),
    st.integers(0, 1 << 53),
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.lists(
            st.builds(
                InstanceUsage,
                st.text(min_size=1, max_size=64),
                st.none() | st.integers(0, 1 << 53),
                st.none() | st.integers(0, 1 << 53),
                st.integers(0, 1000),
                st.booleans(),
            ),
            max_size=3,
        ).map(tuple),
        max_size=4,
    ),
)


@given(USAGES)
def test_a_record_is_read_as_it_was_written(usage: WorkerUsage) -> None:
    assert decode_usage(encode_usage(usage)) == usage


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_none(value: bytes) -> None:
    found = decode_usage(value)
    assert found is None or decode_usage(encode_usage(found)) == found


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b'{"round":-1}',
        b'{"round":1.5}',
        b'{"round":1,"services":{"":[]}}',
        b'{"round":1,"services":{"a":[["c",-1]]}}',
        b'{"round":1,"services":{"a":[["c",1e400]]}}',
        b'{"round":1,"services":{"a":[["c",1,1,1001]]}}',
        b'{"round":1,"services":{"a":[[""]]}}',
        b'{"round":1,"services":{"' + b"a" * 257 + b'":[]}}',
        b'{"round":1,"services":{"a":[' + b",".join([b'["c"]'] * (MAX_MEASURED_INSTANCES + 1)) + b"]}}",
        b'{"round":1,"x":"' + b"x" * MAX_USAGE_RECORD + b'"}',
        b"[" * 100_000,
    ],
)
def test_what_is_beyond_the_bounds_is_no_record(value: bytes) -> None:
    assert decode_usage(value) is None


def test_fields_of_a_later_version_are_ignored_and_missing_ones_have_defaults() -> None:
    value = b'{"round":3,"later":{"x":1},"services":{"a":[["c",5,6,7,true,8,9,10,11,"later",{}],["d"]]}}'
    expected = (InstanceUsage("c", 5, 6, 7, True, 8, 9, 10, 11), InstanceUsage("d"))
    assert decode_usage(value) == WorkerUsage(3, services={"a": expected})


def test_a_record_is_never_longer_than_its_bound() -> None:
    many = tuple(InstanceUsage(f"{number:064}", 1000, 1 << 30, 500, False, 200, 1 << 30) for number in range(900))
    value = encode_usage(WorkerUsage(1, services={f"shop/{number}": many for number in range(20)}))
    found = decode_usage(value)
    assert found is not None
    assert 0 < len(found.services) < 20
    assert all(each == many for each in found.services.values()), "a service is there as a whole or not at all"


def test_keys_name_their_worker() -> None:
    assert usage_key("w1") == "usage/w1"
    assert worker_of_usage(usage_key("a/b")) == "a/b"
    assert worker_of_usage("workers/w1") is None
    assert worker_of_usage("usage/") is None
    assert decode_usages({"usage/w1": b'{"round":1}', "usage/w2": b"x", "other": b'{"round":1}'}).keys() == {"w1"}


# ------------------------------------------------------------------------------------------------------- history


def told(turn: int, *each: InstanceUsage, run: str = "a") -> WorkerUsage:
    """What a worker with 8,000 bytes of memory told."""
    return WorkerUsage(turn, run, 8000, {OWNER: each})


def samples(base: ScalingBase, **workers: WorkerUsage) -> tuple[InstanceSample, ...]:
    history = UsageHistory()
    history.take(workers, {OWNER: base}, 100.0)
    return history.samples(OWNER)[-1].instances


@pytest.mark.parametrize(
    ("base", "usage", "cpu", "memory", "named"),
    [
        (ScalingBase(0.5, 0, 2000), InstanceUsage("c", 250, 1000), 50, 50, ("of the limit", "of the limit")),
        (ScalingBase(), InstanceUsage("c", 100, 500, 0, False, 200, 1000), 50, 50, ("of the limit", "of the limit")),
        (
            ScalingBase(cpu_reservation=0.1, memory_reservation=4000),
            InstanceUsage("c", 250, 1000),
            250,
            25,
            ("of the reservation", "of the reservation"),
        ),
        (ScalingBase(), InstanceUsage("c", 250, 1000), 25, 12.5, ("of one core", "of the worker's memory")),
    ],
)
def test_per_cent_are_of_the_limit_else_of_the_reservation_else_of_what_there_is(
    base: ScalingBase, usage: InstanceUsage, cpu: float, memory: float, named: tuple[str, str]
) -> None:
    (found,) = samples(base, w1=told(1, usage))
    assert found.values == pytest.approx({CPU: cpu, MEMORY: memory})
    assert (base.cpu(usage)[1], base.memory(usage, 8000)[1]) == named


def test_the_instances_of_all_workers_are_one_sample() -> None:
    found = samples(
        ScalingBase(), w1=told(1, InstanceUsage("a", 100)), w2=told(9, InstanceUsage("b", 300, None, 250, True))
    )
    assert found == (InstanceSample({CPU: 10.0}), InstanceSample({CPU: 30.0}, 0.25, is_starting=True))


def test_connections_through_several_workers_are_added_to_what_the_own_worker_tells() -> None:
    elsewhere = InstanceUsage("a", connections=30, new_connections=1500)
    found = samples(
        ScalingBase(),
        w1=told(1, InstanceUsage("a", 100, connections=10, new_connections=500)),
        w2=told(1, elsewhere, InstanceUsage("gone", connections=4)),
    )
    values = {CPU: 10.0, ScalingMeasure.CONNECTIONS: 40.0, ScalingMeasure.CONNECTION_RATE: 2.0}
    assert found == (InstanceSample(values),)


def test_a_record_that_does_not_change_is_not_counted_for_long() -> None:
    history, record = UsageHistory(), {"w1": told(1, InstanceUsage("a", 100))}
    for now in (0.0, 10.0, FRESH, FRESH + 1):
        history.take(record, {OWNER: ScalingBase()}, now)
    assert [len(sample.instances) for sample in history.samples(OWNER)] == [1, 1, 1, 0]
    history.take({"w1": told(1, InstanceUsage("a", 100), run="b")}, {OWNER: ScalingBase()}, 40.0)
    assert len(history.samples(OWNER)[-1].instances) == 1, "another run of the daemon begins with the same round"


def test_services_that_are_not_scaled_any_more_are_forgotten_and_a_minute_is_kept() -> None:
    history = UsageHistory()
    for turn in range(20):
        history.take({"w1": told(turn, InstanceUsage("a", 100))}, {OWNER: ScalingBase()}, 10.0 * turn)
    assert len(history.samples(OWNER)) == 6
    history.take({}, {}, 200.0)
    assert history.samples(OWNER) == ()


def test_the_record_of_twenty_containers_is_small() -> None:
    """300 workers write one each 10 s."""
    each = tuple(InstanceUsage("f" * 64, 123, 123_456_789, 0, False, 500, 536_870_912) for _ in range(20))
    assert len(encode_usage(WorkerUsage(1, "a" * 16, 1 << 34, {OWNER: each}))) < 3000
    assert msgspec.json.decode(encode_usage(WorkerUsage(1))) == {"round": 1}
