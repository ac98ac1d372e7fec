"""`vipmesh rollout`: which release of a service gets how many of its new connections, and the rollout of a new one.

`rollout status` asks the daemon twice, and shows what the releases got in between.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.documents import (
    FailureDocument,
    RolloutChangeDocument,
    RolloutDocument,
    RolloutReleaseDocument,
    ShareChangeDocument,
)
from mesh.cli.output import complain, print_json, printable, report_failure

_PATIENCE = 60.0
"""Seconds that a response may take."""
_USAGE = (
    "usage: vipmesh rollout status|promote|pause|resume|abort|undo SERVICE | "
    "vipmesh rollout share SERVICE RELEASE=PERCENT... | reset"
)
_COLUMNS = ("RELEASE", "SERVING", "GIVEN", "SHARE", "NEW CONNECTIONS")


def rollout(options: argparse.Namespace) -> int:
    """Run `vipmesh rollout`. Exit status 1 if it was refused or no daemon answers, 2 for wrong usage."""
    given: Sequence[str] = options.shares
    shares = None if list(given) == ["reset"] else parse_shares(given)
    if bool(given) != (options.action == "share") or (shares is not None and len(shares) != len(given)):
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        daemon = AdminClient(options)
        if options.action == "share":
            return _share(daemon, options, shares)
        if options.action != "status":
            return _wish(daemon, options)
        return _status(daemon, options)
    except DaemonUnreachableError as silent:
        return report_failure(options, [silent.coded])


def parse_shares(words: Sequence[str]) -> Mapping[str, float]:
    """Return the shares that are written as `v2=10`, in per cent; words that are none are left out."""
    found: dict[str, float] = {}
    for word in words:
        release, equals, percent = word.partition("=")
        try:
            value = float(percent.removesuffix("%"))
        except ValueError:
            continue
        if release and equals and 0 <= value < float("inf"):
            found[release] = int(value) if value.is_integer() else value
    return found


def _share(daemon: AdminClient, options: argparse.Namespace, shares: Mapping[str, float] | None) -> int:
    answer, code = daemon.act(
        "/v1/rollouts/share", {"service": options.service, "shares": shares}, _PATIENCE, lambda _: None
    )
    error = answer.get("error")
    service, now = answer.get("service", options.service), answer.get("shares", {})
    if options.json:
        print_json(ShareChangeDocument(service, now, error, code))
    elif error is not None:
        complain(error, code)
    elif now:
        print(printable(f"{service}: {', '.join(f'{name} {part:g} %' for name, part in sorted(now.items()))}"))
    else:
        print(printable(f"{service}: no shares; the weights of its endpoints count"))
    return 0 if error is None else 1


def _wish(daemon: AdminClient, options: argparse.Namespace) -> int:
    """Have the rollout of a service do what the verb says."""
    answer, code = daemon.act(f"/v1/rollouts/{options.action}", {"service": options.service}, _PATIENCE, lambda _: None)
    error = answer.get("error")
    found = RolloutChangeDocument(
        options.action,
        answer.get("service", options.service),
        answer.get("phase"),
        answer.get("state"),
        answer.get("reason"),
        error,
        code,
    )
    if options.json:
        print_json(found)
    elif error is not None:
        complain(error, code)
    else:
        print(printable(f"{found.service}: {found.state}"))
    return 0 if error is None else 1


def _status(daemon: AdminClient, options: argparse.Namespace) -> int:
    before = _services(daemon, options.service)
    if len(before) != 1:
        names = ", ".join(sorted(service["owner"] for service in before)[:5])
        what = f"several services are called {options.service!r}; write one of {names}"
        return _failed(options, what if before else f"there is no service {options.service!r}; see `vipmesh status`")
    then = time.monotonic()
    if options.over:
        time.sleep(options.over)
    after = [each for each in _services(daemon, before[0]["owner"]) if each["owner"] == before[0]["owner"]]
    if not after:
        return _failed(options, f"the service {before[0]['owner']} is gone; see `vipmesh events {options.service}`")
    found = rollout_document(before[0], after[0], round(time.monotonic() - then, 1) if options.over else None)
    if options.json:
        print_json(found)
    else:
        for line in rollout_lines(found):
            print(printable(line))
    return 0


def _failed(options: argparse.Namespace, error: str) -> int:
    if options.json:
        print_json(FailureDocument(error))
    else:
        complain(error, None)
    return 1


def _services(daemon: AdminClient, asked: str) -> list[dict[str, Any]]:
    """Return the services that are called so; one with this owner alone, if there is one."""
    services: list[dict[str, Any]] = json.loads(daemon.ask("/v1/status", timeout=_PATIENCE).body)["services"]
    exact = [service for service in services if service["owner"] == asked]
    name = asked.lower().rstrip(".")
    called = [
        service
        for service in services
        if name in service["names"] or service["owner"].rpartition("/")[2] == asked or service["name"] == name
    ]
    return exact or called


def rollout_document(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float | None) -> RolloutDocument:
    """Return the releases of a service, from two statuses of it; `seconds` are between them, None if not measured."""
    opened = {} if seconds is None else _opened(before, after)
    whole = sum(count for count in opened.values() if count is not None)
    releases = []
    for row in after.get("releases", ()):
        count = opened.get(row["release"])
        measured = None if count is None or not whole else round(100 * count / whole, 2)
        releases.append(
            RolloutReleaseDocument(
                row["release"], row["endpoints"], row["serving"], row["given"], row["share"], count, measured
            )
        )
    return RolloutDocument(
        after["owner"],
        after["name"],
        after["vip"],
        tuple(releases),
        after.get("shares_by"),
        after.get("shares_note"),
        seconds,
        after.get("rollout"),
    )


def _opened(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str | None, int | None]:
    """Return the connections that each release got between two statuses; None where they are not counted."""
    known = {(each["worker"], each["id"]): each.get("opened") for each in before["endpoints"]}
    found: dict[str | None, int | None] = {}
    for each in after["endpoints"]:
        now, then = each.get("opened"), known.get((each["worker"], each["id"]))
        if now is not None:
            # A count that is lower than before was reset.
            new = now - then if then is not None and then <= now else now
            found[each["release"]] = (found.get(each["release"]) or 0) + new
        else:
            found.setdefault(each["release"], None)
    return found


def rollout_lines(found: RolloutDocument) -> Iterator[str]:
    """Yield the lines for people."""
    by = f"  shares given by {found.shares_by}" if found.shares_by else ""
    in_force = any(row.given is not None for row in found.releases)
    yield f"{found.service}  {found.name}  {found.vip or 'no VIP'}{by or ('' if in_force else '  no shares in force')}"
    if found.rollout is not None:
        yield f"rollout: {found.rollout['state']}"
        if found.rollout["reason"]:
            yield f"  {found.rollout['reason']}"
    if not found.releases:
        yield "no endpoint names a release; set the label routing.release of its containers"
        return
    rows = [_COLUMNS, *(_cells(row) for row in found.releases)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if found.seconds is not None:
        yield f"new connections through this worker, in the last {found.seconds:g} s"
    if found.note:
        yield found.note


def _cells(row: RolloutReleaseDocument) -> tuple[str, ...]:
    new = "-" if row.opened is None else str(row.opened)
    if row.measured is not None:
        new = f"{row.measured:g} % ({row.opened})"
    given = "-" if row.given is None else f"{row.given:g} %"
    return row.release or "(none)", f"{row.serving}/{row.endpoints}", given, f"{row.share:g} %", new
