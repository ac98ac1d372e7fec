"""The lines of `vipmesh events`. Pure.

What happens to an endpoint is noticed by each worker. Events of several workers that say the same within a few seconds
are one line, with the first of them and how many more there are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from mesh.cli.output import printable

SAME_WITHIN = 5.0
"""Seconds within which workers notice the same; their clocks may differ by as much."""
_MAX_COLUMN = 32


class EventsNote(NamedTuple):
    """A note on a document of events: a worker that is left out, or whose clock differs."""

    text: str
    code: str | None
    about: str
    """The same while it lasts, whatever figures the text has."""


class ClusterEventLines:
    """Makes the lines of one document, with a column for the worker if there are several."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        names = [str(worker["worker"]) for worker in document.get("workers", ())]
        self._width = 0
        if len(names) > 1:
            more = len(f" +{len(names) - 1}")
            self._width = min(_MAX_COLUMN, max(map(len, names)) + more)

    def lines(self, events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """Yield a line for each event, and one for those that say the same."""
        for first, workers in _merged(events):
            yield self.line(first, workers)

    def line(self, numbered: Mapping[str, Any], workers: Sequence[str]) -> str:
        """Return the line of one event that these workers have noticed."""
        more = f" +{len(workers) - 1}" if len(workers) > 1 else ""
        return event_line(numbered, f"{workers[0]}{more}".ljust(self._width) if self._width else None)


def event_line(numbered: Mapping[str, Any], who: str | None = None) -> str:
    """Return the line of one event, with the local time; `who` noticed it, None to leave that out."""
    event = numbered["event"]
    at = datetime.fromtimestamp(event["at"]).astimezone().isoformat(sep=" ", timespec="seconds")
    column = "" if who is None else f"{who}  "
    return printable(f"{at}  {column}{event['kind']:<18}  {event['text']} [{event['code']}]")


def events_with_worker(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the events, each with the worker that kept it: for those of one worker, that one."""
    return [{"worker": document["worker"], **each} for each in document["events"]]


def notes_about(document: Mapping[str, Any]) -> Iterator[EventsNote]:
    """Yield what the reader must know of the document: whose clock differs, what cannot be read, who is missing."""
    missing: dict[tuple[str, str | None], list[str]] = {}
    for worker in document.get("workers", ()):
        name, ahead = worker["worker"], worker.get("clock")
        if worker.get("error") is not None:
            missing.setdefault((worker["error"], worker.get("code")), []).append(name)
        if ahead is not None:
            way = "ahead of" if ahead > 0 else "behind"
            text = f"the clock of worker {name} is {abs(ahead):g} s {way} that of {document['worker']}"
            yield EventsNote(text, None, f"clock {name}")
        if worker.get("unreadable"):
            text = f"{worker['unreadable']} events of {name} cannot be read by {document['worker']}; update it"
            yield EventsNote(text, None, f"unreadable {name}")
    for (reason, code), names in missing.items():
        text = f"without the events of {', '.join(sorted(names))}: {reason}"
        yield EventsNote(text, code, text)
    if document.get("dropped"):
        text = f"without the {document['dropped']} oldest events; ask for less with --since, NAME or --worker"
        yield EventsNote(text, None, "dropped")


def _merged(events: Sequence[Mapping[str, Any]]) -> Iterable[tuple[Mapping[str, Any], list[str]]]:
    """Return each event with the workers that say the same at that time, in the order of the first of each."""
    found: list[tuple[Mapping[str, Any], list[str]]] = []
    newest: dict[tuple[str, str], tuple[Mapping[str, Any], list[str]]] = {}
    for each in events:
        event, worker = each["event"], each["worker"]
        said = event["kind"], event["text"]
        before = newest.get(said)
        if before is not None and worker not in before[1] and event["at"] - before[0]["event"]["at"] <= SAME_WITHIN:
            before[1].append(worker)
            continue
        newest[said] = each, [worker]
        found.append(newest[said])
    return found
