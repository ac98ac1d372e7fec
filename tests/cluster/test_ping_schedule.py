"""Which workers and endpoints are pinged next: scheduled pings and extra pings of doubtful targets, bounded."""

from mesh.cluster.failure_detector import MISSES_BEFORE_LOST, DetectorState, PingTarget
from mesh.cluster.ping_schedule import MAX_DOUBTFUL_PINGS, PINGS_PER_SECOND, plan_pings
from mesh.model.service import EndpointKey
from mesh.model.table import RealKey

ROUND = 0.2
SHARE = int(PINGS_PER_SECOND * ROUND)
ETCD = RealKey("10.9.0.1", 2379)


def workers(count: int) -> dict[str, RealKey]:
    return {f"w{n}": RealKey(f"10.1.{n // 250}.{n % 250}", 9781) for n in range(count)}


def endpoints(count: int, worker: str = "w0") -> dict[EndpointKey, PingTarget]:
    return {
        (worker, f"e{n}"): PingTarget(RealKey(f"10.2.{n // 250}.{n % 250}", 80), datagrams=False) for n in range(count)
    }


def test_a_few_workers_are_all_pinged_in_every_round() -> None:
    few = workers(SHARE)
    asked = plan_pings(DetectorState(), few, {}, (), last=dict.fromkeys(few.values(), 7.0), seconds=ROUND)
    assert (set(asked.turn), asked.again) == (set(few.values()), ())


def test_of_many_workers_each_is_pinged_once_before_any_is_pinged_again() -> None:
    many, seen = workers(SHARE * 5), set()
    last: dict[RealKey, float] = {}
    for one in range(5):
        asked = plan_pings(DetectorState(), many, {}, (), last=last, seconds=ROUND)
        last |= dict.fromkeys(asked.turn, float(one))
        assert len(asked.turn) == SHARE
        seen |= {*asked.turn}
    assert seen == set(many.values())


def test_a_longer_round_has_more_turns() -> None:
    assert len(plan_pings(DetectorState(), workers(500), {}, (), last={}, seconds=0.3).turn) == PINGS_PER_SECOND * 0.3


def test_witnesses_are_pinged_while_a_worker_is_doubtful() -> None:
    two = workers(2)
    assert ETCD not in plan_pings(DetectorState({"w0": 0}), two, {}, [ETCD], last={}, seconds=ROUND).turn
    assert ETCD in plan_pings(DetectorState({"w0": 1}), two, {}, [ETCD], last={}, seconds=ROUND).turn
    assert ETCD in plan_pings(DetectorState(unleased=frozenset({"w7"})), two, {}, [ETCD], last={}, seconds=ROUND).turn


def test_doubtful_targets_get_extra_pings() -> None:
    many, doubted = workers(1000), endpoints(3)
    last = {real: float(n) for n, real in enumerate(reversed(many.values()))}
    asked = plan_pings(DetectorState({"w0": 1, "w1": 0}), many, doubted, (), last=last, seconds=ROUND)
    assert many["w0"] not in asked.turn
    assert set(asked.again) == {many["w0"], *(place.real for place in doubted.values())}


def test_targets_closest_to_being_lost_are_pinged_first_under_the_limit() -> None:
    doubted = endpoints(3 * MAX_DOUBTFUL_PINGS)
    known = DetectorState(
        {"w0": MISSES_BEFORE_LOST},
        {key: n % MISSES_BEFORE_LOST for n, key in enumerate(doubted)} | {("w0", "e0"): MISSES_BEFORE_LOST - 1},
    )
    asked = plan_pings(known, {}, doubted, (), last={}, seconds=ROUND)
    misses = [known.endpoints[key] for real in asked.again for key in doubted if doubted[key].real == real]
    assert len(misses) == MAX_DOUBTFUL_PINGS
    assert set(misses) == {MISSES_BEFORE_LOST - 1}


def test_extra_pings_are_limited_whatever_the_number_of_misses() -> None:
    doubted = endpoints(2 * MAX_DOUBTFUL_PINGS)
    for missed in (0, MISSES_BEFORE_LOST, MISSES_BEFORE_LOST + 9):
        known = DetectorState({"w0": MISSES_BEFORE_LOST}, dict.fromkeys(doubted, missed))
        assert len(plan_pings(known, {}, doubted, (), last={}, seconds=ROUND).again) == SHARE
