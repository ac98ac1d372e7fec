"""Judges how the collection of logs is, from what `vipmesh ship` says of itself. Pure."""

from collections import deque
from collections.abc import Iterator, Sequence

from mesh.config.labels.values import escape_unprintable
from mesh.model.codes import Code
from mesh.model.collected_logs import CollectedLogs
from mesh.model.problem import Problem, Severity
from mesh.platform.logs.ship_state import ServiceLoss, ShipState

LONG_LAG = 60.0
"""Seconds of lag from which on it is a problem."""
RECENT = 600.0
"""Seconds for which lost and refused lines are a problem."""
MAX_NAMED = 20
"""The most services that are named one by one."""
_SUBJECT = "vipmesh ship"


class ShipHealth:
    """Keeps what was said within the last minutes."""

    def __init__(self) -> None:
        self._said: deque[tuple[float, ShipState]] = deque()
        """When what was said, the oldest first."""

    def judge(self, now: float, state: ShipState) -> tuple[CollectedLogs, tuple[Problem, ...]]:
        """Take a state at a time, in seconds of a monotonic clock, and return the figures and the problems."""
        if self._said and (state.lines < self._said[-1][1].lines or state.lost < self._said[-1][1].lost):
            self._said.clear()  # it was started again, and counts from 0
            self._said.append((now, ShipState()))
        self._said.append((now, state))
        # One that is older stays: what has changed since then is what is recent.
        while len(self._said) > 1 and self._said[1][0] <= now - RECENT:
            self._said.popleft()
        figures = CollectedLogs(
            True,
            state.logs,
            state.lag_seconds,
            state.unread_bytes,
            state.lines,
            state.bytes,
            state.lost,
            state.refused,
        )
        return figures, tuple(self._problems(state, self._said[0][1]))

    def silent(self, reason: str, wanted: Sequence[str]) -> tuple[CollectedLogs | None, tuple[Problem, ...]]:
        """Return the same if it does not answer. `wanted` has the services that ask for it; None and no problem if none
        does.
        """
        self._said.clear()
        if not wanted:
            return None, ()
        problems = [
            Problem(
                Code.SHIP_NOT_RUNNING,
                Severity.WARNING,
                f"service {escape_unprintable(service)}, label log_store_<name>",
                f"its log lines are not collected: vipmesh ship does not answer on [ship] socket: {reason}",
                "start it (`systemctl start vipmesh-ship`), and give both processes the same [ship] socket",
                owner=service,
            )
            for service in wanted[:MAX_NAMED]
        ]
        if len(wanted) > MAX_NAMED:
            text = f"the log lines of {len(wanted) - MAX_NAMED} more services are not collected"
            problems.append(
                Problem(Code.SHIP_NOT_RUNNING, Severity.WARNING, _SUBJECT, text, "solve those that are shown")
            )
        return CollectedLogs(False), tuple(problems)

    @staticmethod
    def _problems(state: ShipState, before: ShipState) -> Iterator[Problem]:
        for wait in state.waits:
            yield Problem(
                Code.SHIP_BEHIND,
                Severity.WARNING,
                f"{_SUBJECT}, {wait.part}",
                f"it waits: {wait.text} [{wait.code}]",
                "see its log; the engine keeps the lines until their rotation",
            )
        if state.lag_seconds > LONG_LAG:
            yield Problem(
                Code.SHIP_BEHIND,
                Severity.WARNING,
                _SUBJECT,
                f"it is more than {LONG_LAG:g} s behind, with lines that the store of logs does not have yet",
                "see its log; let the store take more, or containers write less (log.rate_limit)",
            )
        known = {each.service: each for each in before.losses}
        for each in state.losses[:MAX_NAMED]:
            former = known.get(each.service, ServiceLoss(each.service))
            found = [
                *(["rotation removed lines before they were read"] if each.lost > former.lost else []),
                *(["the store of logs refused lines"] if each.refused > former.refused else []),
            ]
            if found:
                yield Problem(
                    Code.SHIP_LOSES,
                    Severity.WARNING,
                    f"service {each.service}, logs",
                    f"{' and '.join(found)}, within the last ten minutes",
                    "its log names the containers; let the engine keep more (max-size, max-file); see refused.jsonl",
                    owner=each.service,
                )
