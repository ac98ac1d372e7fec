"""Adds to an explanation what other workers say of the same question. Pure.

Only the worker that runs a container knows how its process ended, which of its labels are refused, what its probe got
and who drained it; only each worker itself knows whether a program has its published port, or a firewall drops its
requests. An answer comes from another process, perhaps of another version: what is taken of it is bounded, and a worker
is believed only about what it runs itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from mesh.api.explain.document import Cause, EndpointStep, Explanation, OtherWorker, Reason, ServiceTrace
from mesh.model.codes import Code
from mesh.model.past_event import bounded_text

MAX_FINDINGS = 20
"""The most findings of one worker that are shown."""
MAX_TEXT = 2000
"""The most characters of a text of another worker."""

_OF_ITS_OWN = frozenset(
    {Cause.PROBE_FAILED, Cause.NOT_PROBED_YET, Cause.ENGINE_UNHEALTHY, Cause.ENGINE_STARTING, Cause.WEIGHT_ZERO}
)
"""Reasons of an endpoint that its own worker knows better."""
_OF_ITS_PORTS = frozenset({Cause.PORT_CONTESTED, Cause.NOT_PROGRAMMED, Cause.VIP_WITHHELD})
"""Reasons of a port that concern one worker alone."""
_WARNING = re.compile("(^|: )warning: ")
_NOTHING_FOUND = frozenset({Cause.UNKNOWN, Cause.GONE})


class _PeerReason(msgspec.Struct, frozen=True):
    cause: str
    text: str
    remedy: str | None = None
    about: str | None = None


class _PeerEndpointStep(msgspec.Struct, frozen=True):
    id: str
    worker: str
    serving: bool
    last_probe: str | None = None
    why_not: tuple[_PeerReason, ...] = ()
    drained_by: str | None = None


class _PeerPort(msgspec.Struct, frozen=True):
    published: bool
    why_not: tuple[_PeerReason, ...] = ()


class _PeerServiceTrace(msgspec.Struct, frozen=True):
    owner: str
    endpoints: tuple[_PeerEndpointStep, ...] = ()
    ports: tuple[_PeerPort, ...] = ()
    problems: tuple[str, ...] = ()
    not_arriving: tuple[_PeerReason, ...] = ()
    gone: tuple[_PeerReason, ...] = ()


class PeerExplanation(msgspec.Struct, frozen=True):
    """The fields of another worker's explanation that are read."""

    kind: str
    ways: tuple[_PeerServiceTrace, ...] = ()
    why_not: tuple[_PeerReason, ...] = ()
    frozen: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """The answer of another worker, or why there is none."""

    worker: str
    explanation: PeerExplanation | None = None
    """None if it did not answer."""
    error: str | None = None
    """Why it did not answer, and what to do; None if it did."""
    code: Code | None = None
    """The code of the error."""


def read_explanation(worker: str, body: bytes) -> PeerAnswer:
    """Return the answer of another worker. Raises `ValueError` if it is no explanation."""
    try:
        return PeerAnswer(worker, msgspec.json.decode(body, type=PeerExplanation))
    except RecursionError as error:
        raise ValueError("its answer is nested too deeply") from error


def add_answers(own: Explanation, answers: Iterable[PeerAnswer]) -> Explanation:
    """Return the explanation with what the other workers know better, and with what they found besides."""
    others = sorted(answers, key=lambda answer: answer.worker)
    known = {answer.worker: answer.explanation for answer in others if answer.explanation is not None}
    found = replace(own, ways=tuple(_with_details(way, known) for way in own.ways))
    found = replace(found, why_not=tuple(_better_ends(own.why_not, known)))
    elsewhere = []
    for answer in others:
        if answer.explanation is None:
            code = None if answer.code is None else str(answer.code)
            elsewhere.append(OtherWorker(answer.worker, error=bounded_text(answer.error or "", MAX_TEXT), code=code))
        elif reasons := tuple(_findings(own, answer.explanation))[:MAX_FINDINGS]:
            elsewhere.append(OtherWorker(answer.worker, reasons))
    if any(not each.is_silent and _is_about(known[each.worker]) for each in elsewhere):
        # A worker knows it: that this one does not is no answer.
        found = replace(found, why_not=tuple(each for each in found.why_not if each.cause is not Cause.UNKNOWN))
    return replace(found, elsewhere=tuple(elsewhere))


def _is_about(explanation: PeerExplanation) -> bool:
    """Return whether the worker found what was asked."""
    return any(reason.cause != Cause.UNKNOWN for reason in explanation.why_not)


def _with_details(way: ServiceTrace, known: Mapping[str, PeerExplanation]) -> ServiceTrace:
    """Return the way with what the workers of its endpoints know of these."""
    told = {
        (worker, endpoint.id): endpoint
        for worker, explanation in known.items()
        for trace in explanation.ways
        for endpoint in trace.endpoints
        if endpoint.worker == worker
    }
    endpoints = tuple(_with_detail(step, told.get((step.worker, step.id))) for step in way.endpoints)
    return replace(way, endpoints=endpoints, gone=tuple(_better_ends(way.gone, known)))


def _with_detail(step: EndpointStep, told: _PeerEndpointStep | None) -> EndpointStep:
    if told is None:
        return step
    better = {reason.cause: reason for each in told.why_not if (reason := _reason(each)) is not None}
    return replace(
        step,
        last_probe=step.last_probe if told.last_probe is None else bounded_text(told.last_probe, MAX_TEXT),
        why_not=tuple(
            better.get(reason.cause, reason) if reason.cause in _OF_ITS_OWN else reason for reason in step.why_not
        ),
        drained_by=step.drained_by if told.drained_by is None else bounded_text(told.drained_by, MAX_TEXT),
    )


def _better_ends(reasons: Sequence[Reason], known: Mapping[str, PeerExplanation]) -> Iterator[Reason]:
    """Yield what became of endpoints, in the words of the workers that ran them."""
    ends = {
        reason.about: reason
        for worker, explanation in known.items()
        for each in (*explanation.why_not, *(gone for trace in explanation.ways for gone in trace.gone))
        if (reason := _reason(each)) is not None
        and reason.cause is Cause.GONE
        and reason.about is not None
        and reason.about.startswith(f"{worker}/")
    }
    for reason in reasons:
        yield ends.get(reason.about, reason) if reason.about is not None else reason


def _findings(own: Explanation, answer: PeerExplanation) -> Iterator[Reason]:
    """Yield what another worker found that this one does not say, of itself or of what it runs."""
    owners = {way.owner: way for way in own.ways}
    if not own.ways:
        reasons = (_reason(each) for each in answer.why_not)
        yield from (
            each
            for each in reasons
            if each is not None and each.cause not in _NOTHING_FOUND and each not in own.why_not
        )
    for trace in answer.ways:
        if trace.owner in owners:
            yield from _of_service(owners[trace.owner], trace)
    for text in (*answer.frozen, *answer.failures):
        yield Reason(Cause.FROZEN if text in answer.frozen else Cause.NOT_PROGRAMMED, bounded_text(text, MAX_TEXT))


def _of_service(way: ServiceTrace, trace: _PeerServiceTrace) -> Iterator[Reason]:
    """Yield what concerns a service on another worker alone: its ports, requests there, and labels that it refuses."""
    said = {str(reason) for port in way.ports for reason in port.why_not} | {str(each) for each in way.not_arriving}
    for each in (*trace.not_arriving, *(each for port in trace.ports for each in port.why_not)):
        reason = _reason(each)
        if reason is None or str(reason) in said:
            continue
        if reason.cause is Cause.NOT_ARRIVING or reason.cause in _OF_ITS_PORTS:
            said.add(str(reason))
            yield reason
    for text in trace.problems:
        if text not in way.problems and not _WARNING.search(text):
            yield Reason(Cause.REFUSED, bounded_text(text, MAX_TEXT))


def _reason(told: _PeerReason) -> Reason | None:
    """Return a reason within the bounds; None if this version does not know its cause."""
    try:
        cause = Cause(told.cause)
    except ValueError:
        return None
    remedy = None if told.remedy is None else bounded_text(told.remedy, MAX_TEXT)
    about = None if told.about is None else bounded_text(told.about, MAX_TEXT)
    return Reason(cause, bounded_text(told.text, MAX_TEXT), remedy, about)
