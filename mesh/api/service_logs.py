"""The lines of a service on all workers: what each has answered, merged, and where following goes on. Pure.

An answer comes from another process, perhaps of another version: what is taken of it is bounded, and a worker is
believed only about its own instances.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from mesh.model.codes import Code
from mesh.model.past_event import bounded_text
from mesh.platform.logs.reading.cursors import LogCursor, parse_cursor
from mesh.platform.logs.reading.document import (
    AskedLogWorker,
    ServiceLogDocument,
    ServiceLogLine,
    ServiceLogNote,
    WorkerLogDocument,
    merge_lines,
)
from mesh.platform.logs.reading.query import MAX_LINES, LogQuery, is_meant

MAX_NAME = 300
MAX_NOTES = 20
"""The most notes of one worker."""
MAX_SERVICES = 20
"""The most services that a name means which are told."""
MAX_LINE = 64 * 1024
"""The most characters of a line."""
_MAX_NOTE = 1000
_STREAMS = ("stdout", "stderr")
_SOURCES = ("ship", "engine", "none")


class WorkerLogAnswer(NamedTuple):
    """What one worker has answered."""

    asked: AskedLogWorker
    document: WorkerLogDocument | None = None
    """None if it did not answer."""


class UnknownLogServiceError(ValueError):
    """No worker that answered has such a service, or several. The message says what to write."""

    def __init__(self, message: str, *, is_ambiguous: bool) -> None:
        super().__init__(message)
        self.is_ambiguous = is_ambiguous


def read_log_answer(worker: str, asked: str, body: bytes) -> WorkerLogAnswer:
    """Return what another worker has answered. Raises `ValueError` if it is no document of lines."""
    try:
        return answered(worker, asked, msgspec.json.decode(body, type=WorkerLogDocument))
    except RecursionError as error:
        raise ValueError("its answer is nested too deeply") from error


def answered(worker: str, asked: str, document: WorkerLogDocument) -> WorkerLogAnswer:
    """Return the answer of a worker, within the bounds and about the service alone."""
    services = tuple(each for each in document.services[:MAX_SERVICES] if len(each) <= MAX_NAME)
    services = tuple(bounded_text(each) for each in services if is_meant(asked, each))
    lines = tuple(_bounded(line, worker) for line in document.lines[-MAX_LINES:] if line.service in services)
    notes = tuple(ServiceLogNote(bounded_text(n.text, _MAX_NOTE), n.code[:10]) for n in document.notes[:MAX_NOTES])
    source = document.source if document.source in _SOURCES else "none"
    cursor = document.cursor if _is_cursor(document.cursor) else ""
    bounded = WorkerLogDocument(worker, source, services, lines, cursor, document.more, notes)
    return WorkerLogAnswer(AskedLogWorker(worker, source, notes=notes), bounded)


def missing_lines(worker: str, reason: str, code: Code) -> WorkerLogAnswer:
    """Return that a worker did not answer, and why."""
    return WorkerLogAnswer(AskedLogWorker(worker, error=bounded_text(reason, _MAX_NOTE), code=str(code)))


def meant_service(asked: str, answers: Iterable[WorkerLogAnswer]) -> str | None:
    """Return the one service that a name means; None if no worker has it, and one did not answer.

    Raises `UnknownLogServiceError`.
    """
    answers = tuple(answers)
    found = sorted({each for _, document in answers if document is not None for each in document.services})
    if len(found) > 1:
        text = f"{asked!r} means several services; write one of {', '.join(found[:MAX_SERVICES])}"
        raise UnknownLogServiceError(text, is_ambiguous=True)
    if not found and all(document is not None and document.source != "none" for _, document in answers):
        text = (
            f"no worker has a container of a service {asked!r}, running or ended; `vipmesh status` lists the services"
        )
        raise UnknownLogServiceError(text, is_ambiguous=False)
    return found[0] if found else None


def merged_document(worker: str, now: float, most: int, answers: Iterable[WorkerLogAnswer]) -> ServiceLogDocument:
    """Return the document of the worker that asked; `most` lines at most."""
    ordered = sorted(answers, key=lambda each: each.asked.worker)
    lines, dropped = merge_lines((line for _, doc in ordered if doc is not None for line in doc.lines), most)
    return ServiceLogDocument(worker, now, lines, tuple(each.asked for each in ordered), dropped)


@dataclass(slots=True)
class LogFollowing:
    """Where each worker goes on, for somebody who follows a service."""

    query: LogQuery
    cursors: dict[str, LogCursor] = field(default_factory=dict)
    """Up to where each worker was read. A worker that does not answer keeps its place."""
    told: dict[str, AskedLogWorker] = field(default_factory=dict)
    """What was said last of each worker."""

    def question(self, worker: str) -> LogQuery:
        """Return what a worker is asked now."""
        return self.query._replace(after=self.cursors.get(worker))

    def take(self, answers: Sequence[WorkerLogAnswer]) -> "FollowedLines":
        """Go on from these answers, and return what is new."""
        most = len(answers) * MAX_LINES if self.cursors else self.query.lines
        for each in answers:
            if each.document is not None and each.document.source != "none":
                self.cursors[each.asked.worker] = parse_cursor(each.document.cursor)
        news = tuple(each.asked for each in answers if self.told.get(each.asked.worker) != each.asked)
        self.told |= {asked.worker: asked for asked in news}
        lines, _ = merge_lines((line for _, doc in answers if doc is not None for line in doc.lines), most)
        more = any(doc is not None and doc.more for _, doc in answers)
        return FollowedLines(lines, news, more)


class FollowedLines(NamedTuple):
    """What is new for somebody who follows a service."""

    lines: tuple[ServiceLogLine, ...]
    workers: tuple[AskedLogWorker, ...]
    """The workers of which something else is to be said than before."""
    more: bool
    """Whether further lines follow at once."""


def _bounded(line: ServiceLogLine, worker: str) -> ServiceLogLine:
    return replace(
        line,
        text=line.text[:MAX_LINE],
        container=bounded_text(line.container, MAX_NAME),
        worker=worker,
        stream=line.stream if line.stream in _STREAMS else "unknown",
        time=None if line.time is None else bounded_text(line.time, 40),
    )


def _is_cursor(text: str) -> bool:
    try:
        parse_cursor(text)
    except ValueError:
        return False
    return True
