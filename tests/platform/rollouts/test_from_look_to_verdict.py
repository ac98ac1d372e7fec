"""From looks on two workers over their records to a verdict: applications that fail in each way."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from mesh.health.state_machine import Verdict
from mesh.platform.rollouts.evidence_history import EvidenceHistory
from mesh.platform.rollouts.evidence_records import (
    CheckCounts,
    ConnectionCounts,
    decode_all_evidence,
    encode_evidence,
    evidence_key,
)
from mesh.platform.rollouts.judge import JudgeLimits, JudgeOutcome, JudgeVerdict, judge
from mesh.platform.rollouts.release_evidence import (
    EvidenceCollector,
    InstanceExit,
    JudgedInstance,
    LedConnections,
    ReleaseKey,
    ReleaseObservation,
)

OWNER, URL = "shop/web", "release.check.url"
V1, V2 = ReleaseKey(OWNER, "v1"), ReleaseKey(OWNER, "v2")
GOOD, BAD, UNKNOWN, HOLD = JudgeOutcome


@dataclass
class Application:
    """How the new release behaves: each function gets the seconds since the step began."""

    per_second: int = 5
    """New connections to each release through each worker."""
    refused: Callable[[int], int] = lambda _: 0
    """The same, those refused so far."""
    reset: Callable[[int], int] = lambda _: 0
    exits: Callable[[int], int] = lambda _: 0
    """Ends in this second."""
    probe: Callable[[int], Verdict] = lambda second: Verdict(True, "status 200", 0.005, float(second))
    check_fails: bool = False
    old_refused: Callable[[int], int] = lambda _: 0
    counts_failures: bool = True
    verdicts: list[JudgeVerdict] = field(default_factory=list)

    def look(self, second: int) -> ReleaseObservation:
        def led(of: ReleaseKey, refused: int, reset: int) -> LedConnections:
            attempts = self.per_second * second
            failures = (refused, 0, reset) if self.counts_failures else (None, None, None)
            return LedConnections(of, f"w1/{of.release}", of, ConnectionCounts(attempts, 2, *failures))

        return ReleaseObservation(
            {"new": JudgedInstance(V2), "old": JudgedInstance(V1)},
            [InstanceExit("new")] * self.exits(second),
            {"new": [self.probe(second)], "old": [Verdict(True, "status 200", 0.005, float(second))]},
            [led(V2, self.refused(second), self.reset(second)), led(V1, self.old_refused(second), 0)],
            {V2: {URL: CheckCounts(second // 5, second // 5 * self.check_fails, "status 500" * self.check_fails)}},
        )

    def until(self, *outcomes: JudgeOutcome, seconds: int = 120) -> int:
        """Return after how many seconds the verdict is one of these."""
        workers = {name: EvidenceCollector(name) for name in ("w1", "w2")}
        history = EvidenceHistory()
        for second in range(seconds):
            records = {
                evidence_key(name): encode_evidence(worker.observe(self.look(second), [OWNER], second - 0.5))
                for name, worker in workers.items()
            }
            history.take(decode_all_evidence(records), {OWNER: ("v1", "v2")}, float(second))
            checks = history.checks(OWNER, "v2", (URL,))
            before = self.verdicts[-1] if self.verdicts else None
            new, old = history.evidence(OWNER, "v2"), history.evidence(OWNER, "v1")
            self.verdicts.append(judge(new, old, JudgeLimits(), checks, now=float(second), before=before))
            if self.verdicts[-1].outcome in outcomes:
                return second
        return seconds


def test_one_that_works_is_good_after_ten_seconds_and_never_anything_else() -> None:
    application = Application()
    assert application.until(GOOD, BAD, HOLD) == 10
    assert {verdict.outcome for verdict in application.verdicts[:-1]} == {UNKNOWN}
    assert {verdict.undecided_since for verdict in application.verdicts[:-1]} == {0.0}


@pytest.mark.parametrize(
    ("application", "within", "says"),
    [
        (Application(refused=lambda second: second // 2), 5, "were refused"),  # one in ten
        (Application(reset=lambda second: second), 5, "were reset"),
        (Application(exits=lambda second: second % 4 == 3), 4, "of processes"),
        (
            Application(probe=lambda second: Verdict(second % 4 == 0, "refused", 0.01, float(second))),
            6,
            "probes failed",
        ),
        (Application(check_fails=True), 6, f"{URL} failed"),
    ],
)
def test_one_that_fails_is_bad_within_seconds(application: Application, within: int, says: str) -> None:
    assert application.until(BAD, GOOD) <= within
    assert application.verdicts[-1].outcome is BAD
    assert any(says in reason for reason in application.verdicts[-1].reasons)


def test_one_that_slows_down_tenfold_holds_and_is_undecided_for_its_deadline() -> None:
    slow = Application(probe=lambda second: Verdict(True, "status 200", 0.05, float(second)))
    assert slow.until(GOOD, BAD, seconds=60) == 60
    assert slow.verdicts[-1].outcome is HOLD
    assert slow.verdicts[-1].undecided_since == 0.0


def test_what_hits_both_releases_judges_nobody() -> None:
    both = Application(refused=lambda second: second, old_refused=lambda second: second)
    assert both.until(GOOD, BAD, seconds=60) == 60
    assert both.verdicts[-1].outcome is HOLD


def test_a_plane_that_counts_no_failures_leaves_it_to_probes_and_says_so() -> None:
    blind = Application(refused=lambda second: 5 * second, counts_failures=False)
    assert blind.until(GOOD, BAD) == 10
    assert blind.verdicts[-1].reasons[-1] == "not counted by a data plane: connections refused, reset, unanswered"


def test_few_connections_are_waited_for() -> None:
    assert Application(per_second=0).until(GOOD, BAD, seconds=60) == 60
