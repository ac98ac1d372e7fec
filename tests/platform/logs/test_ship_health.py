"""What is wrong with the collection of logs, by what `vipmesh ship` says of itself."""

from dataclasses import replace

from mesh.model.codes import Code
from mesh.model.collected_logs import CollectedLogs
from mesh.platform.logs.ship_health import LONG_LAG, MAX_NAMED, RECENT, ShipHealth
from mesh.platform.logs.ship_state import ServiceLoss, ShipState, ShipWait

STATE = ShipState(3, 1.0, 10, 100, 5000, 2, 20, 1, losses=(ServiceLoss("shop/web", 2, 1),))


def with_losses(lost: int, refused: int) -> ShipState:
    return replace(STATE, lost=lost, refused=refused, losses=(ServiceLoss("shop/web", lost, refused),))


def codes(health: ShipHealth, now: float, state: ShipState) -> list[Code]:
    return [each.code for each in health.judge(now, state)[1]]


def test_what_was_lost_long_ago_is_no_problem_and_what_is_lost_now_is_one_for_a_while() -> None:
    health = ShipHealth()
    assert codes(health, 0.0, STATE) == []
    assert codes(health, 10.0, with_losses(3, 1)) == [Code.SHIP_LOSES]
    for now in range(20, int(RECENT) + 10, 10):
        assert codes(health, now, with_losses(3, 1)) == [Code.SHIP_LOSES]
    assert codes(health, 20.0 + RECENT, with_losses(3, 1)) == []
    (problem,) = health.judge(30.0 + RECENT, with_losses(4, 2))[1]
    assert "rotation removed lines" in problem.reason
    assert "refused lines" in problem.reason


def test_one_that_was_started_again_counts_from_0() -> None:
    health = ShipHealth()
    assert codes(health, 0.0, STATE) == []
    assert codes(health, 10.0, ShipState(3, lines=1, lost=1, losses=(ServiceLoss("shop/web", 1),))) == [Code.SHIP_LOSES]
    assert codes(health, 20.0, ShipState(3, lines=2, lost=1, losses=(ServiceLoss("shop/web", 1),))) == [Code.SHIP_LOSES]


def test_what_it_waits_for_and_a_long_lag() -> None:
    waits = (ShipWait("store of logs", "it does not answer", "VM953"),)
    figures, problems = ShipHealth().judge(0.0, replace(STATE, lag_seconds=LONG_LAG + 1, waits=waits))
    assert [each.code for each in problems] == [Code.SHIP_BEHIND, Code.SHIP_BEHIND]
    assert "it does not answer [VM953]" in problems[0].reason
    assert figures == CollectedLogs(True, 3, 61.0, 10, 100, 5000, 2, 1)


def test_silence_is_a_problem_only_if_labels_ask() -> None:
    assert ShipHealth().silent("No such file or directory", ()) == (None, ())
    services = tuple(f"shop/web{number:02d}" for number in range(MAX_NAMED + 3))
    figures, problems = ShipHealth().silent("No such file or directory", services)
    assert figures == CollectedLogs(False)
    assert {each.code for each in problems} == {Code.SHIP_NOT_RUNNING}
    assert [each.owner for each in problems] == [*services[:MAX_NAMED], None], "explain shows each with its service"
    assert "does not answer on [ship] socket: No such file or directory" in problems[0].reason
    assert "3 more services" in problems[-1].reason
