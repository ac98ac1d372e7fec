"""Whom a worker asks next: whose turn it is, and what is in doubt, within their bounds."""

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


def test_few_workers_are_asked_in_every_round() -> None:
    few = workers(SHARE)
    asked = plan_pings(DetectorState(), few, {}, (), last=dict.fromkeys(few.values(), 7.0), seconds=ROUND)
    assert (set(asked.turn), asked.again) == (set(few.values()), ())


def test_of_many_each_has_its_turn_before_any_has_the_next() -> None:
    many, seen = workers(SHARE * 5), set()
    last: dict[RealKey, float] = {}
    for one in range(5):
        asked = plan_pings(DetectorState(), many, {}, (), last=last, seconds=ROUND)
        last |= dict.fromkeys(asked.turn, float(one))
        assert len(asked.turn) == SHARE
        seen |= {*asked.turn}
    assert seen == set(many.values())


def test_a_round_that_lasts_longer_has_more_turns_so_that_all_have_one_as_soon() -> None:
    assert len(plan_pings(DetectorState(), workers(500), {}, (), last={}, seconds=0.3).turn) == PINGS_PER_SECOND * 0.3


def test_witnesses_have_a_turn_while_somebody_is_in_doubt() -> None:
    two = workers(2)
    assert ETCD not in plan_pings(DetectorState({"w0": 0}), two, {}, [ETCD], last={}, seconds=ROUND).turn
    assert ETCD in plan_pings(DetectorState({"w0": 1}), two, {}, [ETCD], last={}, seconds=ROUND).turn
    assert ETCD in plan_pings(DetectorState(unleased=frozenset({"w7"})), two, {}, [ETCD], last={}, seconds=ROUND).turn


def test_what_is_in_doubt_does_not_wait_for_its_turn() -> None:
    many, doubted = workers(1000), endpoints(3)
    last = {real: float(n) for n, real in enumerate(reversed(many.values()))}
    asked = plan_pings(DetectorState({"w0": 1, "w1": 0}), many, doubted, (), last=last, seconds=ROUND)
    assert many["w0"] not in asked.turn
    assert set(asked.again) == {many["w0"], *(place.real for place in doubted.values())}


def test_who_is_nearest_to_being_lost_goes_first_where_there_is_no_room_for_all() -> None:
    doubted = endpoints(3 * MAX_DOUBTFUL_PINGS)
    known = DetectorState(
        {"w0": MISSES_BEFORE_LOST},
        {key: n % MISSES_BEFORE_LOST for n, key in enumerate(doubted)} | {("w0", "e0"): MISSES_BEFORE_LOST - 1},
    )
    asked = plan_pings(known, {}, doubted, (), last={}, seconds=ROUND)
    misses = [known.endpoints[key] for real in asked.again for key in doubted if doubted[key].real == real]
    assert len(misses) == MAX_DOUBTFUL_PINGS
    assert set(misses) == {MISSES_BEFORE_LOST - 1}


def test_what_is_settled_takes_turns_of_its_own() -> None:
    doubted = endpoints(2 * MAX_DOUBTFUL_PINGS)
    for missed in (0, MISSES_BEFORE_LOST, MISSES_BEFORE_LOST + 9):
        known = DetectorState({"w0": MISSES_BEFORE_LOST}, dict.fromkeys(doubted, missed))
        assert len(plan_pings(known, {}, doubted, (), last={}, seconds=ROUND).again) == SHARE
