"""`vipmesh events`: prints what happened, as this worker's daemon has kept it."""

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.output import printable, report_failure


def events(options: argparse.Namespace) -> int:
    """Run `vipmesh events`. Exit status 1 if no daemon answers, or if it cannot read its events."""
    daemon = AdminClient(options)
    try:
        if options.follow:
            for each in _followed(daemon, options):
                print(json.dumps(each) if options.json else _line(each), flush=True)
            return 0
        document = _past(daemon, options)
        if options.json:
            print(json.dumps(document, indent=2))
        else:
            _print_all(document, options)
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    except KeyboardInterrupt:
        pass
    return 0


def _print_all(document: Mapping[str, Any], options: argparse.Namespace) -> None:
    for each in document["events"]:
        print(_line(each))
    if not document["events"]:
        about = f" about {options.name}" if options.name is not None else ""
        print(printable(f"worker {document['worker']} has kept no events{about}"))


def _followed(daemon: AdminClient, options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """Yield kept events, then new ones as they are kept, each once."""
    last = 0
    for name, event in daemon.follow("/v1/events"):
        # Whatever is kept before the stream has begun is among the past events; `happened` only wakes the next request,
        # since the daemon decides which events are about the name.
        number = event["number"] if name == "happened" else 0
        if name == "ready" or number > last:
            for each in _past(daemon, options, after=last)["events"]:
                last = each["number"]
                yield each
            last = max(last, number)


def _past(daemon: AdminClient, options: argparse.Namespace, *, after: int = 0) -> Mapping[str, Any]:
    asked: dict[str, Any] = {"of": options.name, "since": options.since, "after": after or None}
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    document: Mapping[str, Any] = json.loads(daemon.ask(f"/v1/events/past{'?' if query else ''}{query}").body)
    return document


def _line(numbered: Mapping[str, Any]) -> str:
    """Return the line of one event, with the local time."""
    event = numbered["event"]
    at = datetime.fromtimestamp(event["at"]).astimezone().isoformat(sep=" ", timespec="seconds")
    return printable(f"{at}  {event['kind']:<18}  {event['text']} [{event['code']}]")
