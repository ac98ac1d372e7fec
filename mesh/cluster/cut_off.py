"""States what is cut off: this worker from etcd, from the other workers, or another worker. Pure.

Everything that shows it has these statements and no others: the status, explanations, `vipmesh workers`, `vipmesh
doctor`, the log and the events. Each says what is cut off, since when, what goes on from the last state, and what to
do.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from mesh.cluster.failure_detector import MISSES_BEFORE_LOST, DetectorState
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.problem import Problem, Severity

THIS_WORKER = "this worker"
"""The subject of what is said of the worker that speaks."""
CODES = frozenset(
    {
        Code.STORE_UNREACHABLE,
        Code.WORKER_ISOLATED,
        Code.LEASE_ENDED_WORKER_ANSWERS,
        Code.WORKER_UNREACHABLE,
        Code.WORKER_DAEMON_GONE,
    }
)
"""The codes of these statements."""
_GOES_ON = "VIPs, names and endpoints stay as they were read last, probes go on, and nothing new is claimed meanwhile"


@dataclass(frozen=True, slots=True)
class CutOff:
    """What is cut off, as seen from one worker."""

    store: CodedText | None = None
    """Why the store's last state stays in force; None if it answers."""
    problems: tuple[Problem, ...] = ()
    """What there is to say of the workers, this one first."""


def cut_off(store: CodedText | None, state: DetectorState, heard: Mapping[str, float] = MappingProxyType({})) -> CutOff:
    """Return the statements. `store`: its trouble, as `Store.trouble` words it; None if it answers. `heard`: when each
    other worker answered last, in seconds since 1970.
    """
    silent = {worker for worker, missed in state.misses.items() if missed >= MISSES_BEFORE_LOST}
    out_of_reach = {worker for worker, _ in state.lost if not state.answers(worker)}
    unreached = (silent | out_of_reach) if state.isolated and (state.lost or silent) else set()
    without_etcd = store is not None and store.code is Code.STORE_UNREACHABLE
    if store is not None and without_etcd:
        whom = "etcd and maybe from the other workers" if unreached else "etcd"
        store = CodedText(f"{store.text}; {THIS_WORKER} is cut off from {whom}: {_GOES_ON}", store.code)
    found = [_this_worker(unreached, heard, without_etcd=without_etcd)] if unreached else []
    found += _other_workers(state, out_of_reach, heard)
    return CutOff(store, tuple(found))


def statements_about(problems: Iterable[Problem], workers: Collection[str]) -> Iterable[Problem]:
    """Yield what concerns these workers: what is said of them, and of this worker."""
    subjects = {THIS_WORKER, *map(_called, workers)}
    return (problem for problem in problems if problem.code in CODES and problem.subject in subjects)


def statement_of(problems: Iterable[Problem], worker: str) -> Problem | None:
    """Return what is said of one other worker; None if it is not cut off."""
    return next((each for each in problems if each.code in CODES and each.subject == _called(worker)), None)


def finding_of(code: object, text: object) -> tuple[Code, str, str | None] | None:
    """Return the code, the finding and the remedy of a notice in a status; None if it states nothing of these.

    `code` and `text` may come from a daemon of another version.
    """
    known = next((each for each in CODES if str(each) == code), None)
    if known is None or not isinstance(text, str):
        return None
    text = re.sub(r"^(warning|error): ", "", text)
    if known is Code.STORE_UNREACHABLE:
        return (known, text, None) if f"; {THIS_WORKER} is cut off" in text else None
    finding, semicolon, remedy = text.rpartition("; ")
    return known, finding if semicolon else text, remedy if semicolon else None


def _this_worker(unreached: Collection[str], heard: Mapping[str, float], *, without_etcd: bool) -> Problem:
    also = "from etcd, which does not answer, and " if without_etcd else ""
    reason = (
        f"it may be cut off {also}from the other workers: it reaches less than half of them and of the store's "
        f"members{_since(unreached, heard)}"
    )
    remedy = "check its network; services without another endpoint keep those that it does not reach"
    return Problem(Code.WORKER_ISOLATED, Severity.WARNING, THIS_WORKER, reason, remedy)


def _other_workers(
    state: DetectorState, out_of_reach: Collection[str], heard: Mapping[str, float]
) -> Iterable[Problem]:
    for worker in sorted(state.unleased):
        if state.answers(worker):
            reason = (
                "its lease in the store has ended, but it answers: it is or was cut off from etcd; its endpoints stay "
                "and are probed from here"
            )
            yield _problem(Code.LEASE_ENDED_WORKER_ANSWERS, worker, reason, "check that it reaches the store")
    for worker in sorted(state.unleased.difference(out_of_reach)):
        if not state.answers(worker):
            since = _since((worker,), heard)
            reason = f"its daemon is gone{since}, but its endpoints answer; those with a probe serve for a minute more"
            yield _problem(Code.WORKER_DAEMON_GONE, worker, reason, "start its daemon again")
    alone = len(state.misses) > 1 and all(missed >= MISSES_BEFORE_LOST for missed in state.misses.values())
    for worker in sorted(out_of_reach):
        reason = f"it does not answer this worker, nor do endpoints of it{_since((worker,), heard)}; "
        if state.isolated:
            reason += "this worker may be cut off itself, so they get new connections only where nothing else serves"
            remedy = "check the network of this worker first"
        else:
            reason += "they get no new connections from here"
            remedy = "check that it runs and is connected"
            if alone:
                remedy = f"no other worker answers either: check the network of this worker, and {remedy[6:]}"
        yield _problem(Code.WORKER_UNREACHABLE, worker, reason, f"{remedy}; they are back with their first answer")


def _problem(code: Code, worker: str, reason: str, remedy: str) -> Problem:
    return Problem(code, Severity.WARNING, _called(worker), reason, remedy)


def _called(worker: str) -> str:
    return f"worker {worker}"


def _since(workers: Collection[str], heard: Mapping[str, float]) -> str:
    """Return since when the last of these workers does not answer, to be appended; empty if it is not known."""
    last = max((heard[worker] for worker in workers if worker in heard), default=None)
    return "" if last is None else f", since {datetime.fromtimestamp(last, UTC).isoformat(' ', 'seconds')}"
