"""`vipmesh events`: prints what happened, as the daemons of all workers have kept it, or that of one.

The worker that is asked asks the others; what it could not ask is said on standard error.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from mesh.cli.client import AdminClient, DaemonUnreachableError, path_of
from mesh.cli.event_lines import ClusterEventLines, event_line, events_with_worker, notes_about
from mesh.cli.output import complain, printable, report_failure

ALL_TIMEOUT = 20.0
"""Seconds that the events of all workers may take."""
POLL = 2.0
"""Seconds between two questions while events of other workers are followed."""
OVERLAP = 60.0
"""Seconds that each of them goes back behind the last one: an event is kept a moment after it has happened."""
MAX_WINDOW = 3600.0
"""The most seconds that it goes back for a worker that did not answer."""


def events(options: argparse.Namespace) -> int:
    """Run `vipmesh events`. Exit status 1 if no daemon answers, or if it cannot read its events."""
    daemon = AdminClient(options)
    try:
        if options.follow:
            for each, line in _followed(daemon, options):
                print(json.dumps(each) if options.json else line, flush=True)
            return 0
        document = _past(daemon, options)
        if options.json:
            print(json.dumps({**document, "events": events_with_worker(document)}, indent=2))
        else:
            _print_all(document, options)
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    except KeyboardInterrupt:
        pass
    return 0


def _print_all(document: Mapping[str, Any], options: argparse.Namespace) -> None:
    for line in ClusterEventLines(document).lines(events_with_worker(document)):
        print(line)
    if not document["events"]:
        about = f" about {options.name}" if options.name is not None else ""
        alone = len(document.get("workers", ())) <= 1
        who = f"worker {document['worker']} has kept no" if alone else "the workers have kept no"
        print(printable(f"{who} events{about}"))
    for note in notes_about(document):
        complain(note.text, note.code)


def _followed(daemon: AdminClient, options: argparse.Namespace) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield kept events, then new ones as they are kept, each once, with its line."""
    first = _past(daemon, options)
    if options.worker is None and len(first.get("workers", ())) <= 1:
        yield from _followed_here(daemon, options)
        return
    last: dict[str, int] = {}
    answered = dict.fromkeys((worker["worker"] for worker in first.get("workers", ())), time.monotonic())
    told: set[str] = set()
    document = first
    while True:
        notes = list(notes_about(document))
        for note in notes:
            if note.about not in told:
                complain(note.text, note.code)
        told = {note.about for note in notes}
        lines = ClusterEventLines(document)
        for each in events_with_worker(document):
            if each["number"] > last.get(each["worker"], 0):
                last[each["worker"]] = each["number"]
                yield each, lines.line(each, [each["worker"]])
        now = time.monotonic()
        answered |= {worker["worker"]: now for worker in document.get("workers", ()) if worker.get("error") is None}
        time.sleep(POLL)
        window = min(MAX_WINDOW, OVERLAP + now - min(answered.values(), default=now))
        document = _past(daemon, argparse.Namespace(**{**vars(options), "since": -window}))


def _followed_here(daemon: AdminClient, options: argparse.Namespace) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the events of a worker that has no others, at once: its stream wakes each question."""
    last = 0
    for name, event in daemon.follow("/v1/events"):
        # Whatever is kept before the stream has begun is among the past events; `happened` only wakes the next request,
        # since the daemon decides which events are about the name.
        number = event["number"] if name == "happened" else 0
        if name == "ready" or number > last:
            document = _past_here(daemon, options, after=last)
            for each in events_with_worker(document):
                last = each["number"]
                yield each, event_line(each)
            last = max(last, number)


def _past(daemon: AdminClient, options: argparse.Namespace) -> Mapping[str, Any]:
    """Return the events of all workers, or of the one that is named. An earlier daemon returns those of its own."""
    if options.worker is not None:
        return _past_here(daemon, options)
    return _asked(daemon, options, {"workers": "all"}, ALL_TIMEOUT)


def _past_here(daemon: AdminClient, options: argparse.Namespace, *, after: int = 0) -> Mapping[str, Any]:
    return _asked(daemon, options, {"after": after or None})


def _asked(
    daemon: AdminClient, options: argparse.Namespace, more: Mapping[str, Any], timeout: float = 10.0
) -> Mapping[str, Any]:
    asked: dict[str, Any] = {"of": options.name, "since": options.since, **more}
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    path = f"{path_of(options, 'events/past')}{'?' if query else ''}{query}"
    document: Mapping[str, Any] = json.loads(daemon.ask(path, timeout=timeout).body)
    return document
