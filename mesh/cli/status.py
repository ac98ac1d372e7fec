"""`vipmesh status` and `vipmesh explain`: print documents of a running daemon."""

import argparse
import re
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mesh.cli.client import AdminClient, DaemonUnreachableError, Reply, path_of
from mesh.cli.output import complain, printable, report_failure

if TYPE_CHECKING:
    from datetime import datetime

    from mesh.cli.status_document import StatusDocument

NOT_IN_ORDER = 3
"""The exit status of `--check` if a daemon answers, and something is wrong."""
_DATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)
"""The header Date: an IMF-fixdate of RFC 9110, section 5.6.7."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PAUSE = 0.5
"""Seconds between two looks of `--wait`."""


def status(options: argparse.Namespace) -> int:
    """Run `vipmesh status`. Exit status 1 if no daemon answers; with `--check` 3 if something is wrong."""
    daemon = AdminClient(options)
    deadline = None if options.wait is None else time.monotonic() + options.wait
    try:
        reply, found = _wait(daemon, options, deadline)
        if options.json:
            _print_document(reply, found, options)
        elif found is not None:
            _print_table(reply, found, options)
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    if found is None:
        return 0
    if options.name is not None and not found.services and not found.notices:
        from mesh.model.codes import Code

        complain(
            f"no service, endpoint or worker is called {options.name!r}; `vipmesh status` lists all of them, and "
            f"`vipmesh explain {options.name}` says what became of it, or which worker refuses it",
            str(Code.NO_SUCH_STATUS),
        )
        return NOT_IN_ORDER if options.check else 0
    if found.is_in_order:
        return 0
    if options.wait is not None:
        from mesh.model.codes import Code

        complain(
            f"not in order after {options.wait:g} s; see what is wrong above, or wait longer",
            str(Code.STATUS_NOT_IN_ORDER),
        )
    return NOT_IN_ORDER if options.check else 0


def _wait(
    daemon: AdminClient, options: argparse.Namespace, deadline: float | None
) -> "tuple[Reply, StatusDocument | None]":
    """Return the status, as soon as it is in order, and at the deadline at the latest; None: at once.

    The document is None if only the response is needed.
    """
    while True:
        left = 0.0 if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            reply, found = _ask(daemon, options)
            is_wrong = found is not None and (
                not found.is_in_order or (options.name is not None and not found.services)
            )
            if not left or not is_wrong:
                return reply, found
        except DaemonUnreachableError as error:
            from mesh.model.codes import Code

            if not left or error.code is not Code.DAEMON_UNREACHABLE:
                raise
        time.sleep(min(_PAUSE, left))


def _ask(daemon: AdminClient, options: argparse.Namespace) -> "tuple[Reply, StatusDocument | None]":
    """Return the response, and the part of it that is about the name; None if only the response is needed."""
    if options.json and not (options.name or options.problems or options.check or options.wait):
        return daemon.ask(path_of(options, "status")), None
    path = path_of(options, "status")
    reply = daemon.ask(path if options.json else f"{path}?verdicts=false")
    from mesh.cli.status_document import decode_status

    try:
        found = decode_status(reply.body)
    except ValueError as error:
        from mesh.model.codes import Code

        raise DaemonUnreachableError(
            Code.DAEMON_UNREACHABLE,
            f"{daemon.listen} sent no status of vipmesh: {error}; name the [admin] listen of a daemon with --admin",
        ) from error
    return reply, found if options.name is None else found.about(options.name)


def _print_document(reply: Reply, found: "StatusDocument | None", options: argparse.Namespace) -> None:
    import json

    document: dict[str, Any] = json.loads(reply.body)
    if found is not None and (options.name is not None or options.problems):
        owners = {each.owner for each in found.services if each.rank < 2 or not options.problems}
        document["services"] = [each for each in document["services"] if each["owner"] in owners]
        kept = {(each.kind, each.text) for each in found.conditions}
        if "notices" in document:
            document["notices"] = [each for each in document["notices"] if (each["kind"], each["text"]) in kept]
    print(json.dumps(document, indent=2))


def _print_table(reply: Reply, found: "StatusDocument", options: argparse.Namespace) -> None:
    from mesh.cli.status_view import StatusLayout, render_status
    from mesh.cli.terminal import output_terminal

    terminal = output_terminal()
    in_full = options.endpoints or options.name is not None
    layout = StatusLayout(terminal.width, sent_at(reply), in_full, options.problems, terminal.measure)
    terminal.print(render_status(found, layout))
    sys.stdout.flush()  # before messages, which go to standard error


def sent_at(reply: Reply) -> "datetime":
    """Return the time by the clock of the daemon, which is that of the times in its response."""
    from datetime import UTC, datetime

    # `email.utils` would parse more than daemons write, and takes longer to import than the whole table to print.
    match = _DATE.fullmatch(reply.headers.get("date", ""))
    try:
        if match is not None:
            day, month, *numbers = match.groups()
            year, hour, minute, second = map(int, numbers)
            return datetime(year, 1 + _MONTHS.index(month), int(day), hour, minute, second, tzinfo=UTC)
    except ValueError:
        pass
    return datetime.now(UTC)


def explain(options: argparse.Namespace) -> int:
    """Run `vipmesh explain`. Exit status 1 if the request reaches no endpoint, or if no daemon answers."""
    import json

    path = f"{path_of(options, 'explain')}?of={quote(options.asked, safe='')}"
    if options.worker is None:
        path += "&workers=all"
    try:
        reply = AdminClient(options).ask(path, accept="application/json" if options.json else "text/plain")
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    works = reply.headers.get("vipmesh-works")
    if works is None:
        return _of_earlier_daemon(options, reply.body)
    print(json.dumps(json.loads(reply.body), indent=2) if options.json else printable(reply.body.rstrip("\n")))
    return 0 if works == "true" else 1


def _of_earlier_daemon(options: argparse.Namespace, body: str) -> int:
    """Print the explanation of a daemon of an earlier version, as during an upgrade: it sends JSON only.

    The text has no codes, since the JSON form has none.
    """
    import json

    import msgspec

    from mesh.api.explain.document import Explanation, render_explanation
    from mesh.model.problem import Notices

    explanation = msgspec.json.decode(body, type=Explanation)
    if options.json:
        print(json.dumps(json.loads(body), indent=2))
    else:
        print(printable(render_explanation(explanation, Notices())))
        for title, lines in (("frozen", explanation.frozen), ("the data plane refused", explanation.failures)):
            if lines:
                print(f"\n{title}:", *(f"  {printable(line)}" for line in lines), sep="\n")
    return 0 if explanation.works else 1
