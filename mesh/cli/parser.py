"""The parser of the command line: verbs and their options. It imports nothing that a verb needs for its work."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from mesh import __version__

_Verbs: TypeAlias = "argparse._SubParsersAction[_VerbParser]"  # noqa: SLF001 (argparse has no public name for it)
_NO_TERMINAL = 80
"""The columns of a text that goes to no terminal."""

_MAX_WAIT = 86400
"""The most seconds of `--wait`."""
_MAX_WEIGHT = 65_535
"""The largest weight, as in `mesh.model.validation`, which this module does not import."""
_LEAST_DAYS, _MOST_DAYS = 31, 3650
"""How long a certificate may be valid: longer than the time before its end from which it is renewed."""
_MAX_LINES = 10_000
"""The most lines of an answer."""
_INSTANCE_DIGITS = 4
"""The most digits of a number of instances."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Seconds of the units of an age."""
_AGE_DIGITS = 7
"""The most digits of an age."""


class _VerbParser(argparse.ArgumentParser):
    """A parser whose formatters know the width of the terminal without `shutil`, which imports compression.

    argparse makes a formatter for every argument that is added.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(formatter_class=_formatter, **how)


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=_columns() - 2)


def _columns() -> int:
    """Return what `shutil.get_terminal_size` returns: COLUMNS, else those of the terminal, else 80."""
    try:
        columns = int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        columns = 0
    if columns > 0:
        return columns
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or _NO_TERMINAL  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return _NO_TERMINAL


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all verbs; each names the module of `mesh.cli` that implements it.

    If a verb is the first of `arguments`, the parser is for these alone, and has no other verbs than those that are
    added with it: making them all takes longer than most verbs run.
    """
    whole = _VerbParser(prog="vipmesh", description="The routing mesh for containers without Kubernetes.")
    whole.add_argument("--version", action="version", version=f"vipmesh {__version__}")
    whole.add_argument("-v", "--verbose", action="store_true", help="log every operation")
    verbs: _Verbs = whole.add_subparsers(required=True, metavar="VERB", dest="verb")
    asked = _VERBS.get(arguments[0]) if arguments else None
    for add in dict.fromkeys(_VERBS.values()) if asked is None else (asked,):
        add(verbs)
    return whole


def _add_run(verbs: _Verbs) -> None:
    run = verbs.add_parser("run", help="run this worker's daemon in the foreground")
    _config(run, "settings file (default: /etc/vipmesh.toml, if it exists)")
    run.set_defaults(of="run")


def _add_ship(verbs: _Verbs) -> None:
    ship = verbs.add_parser("ship", help="collect the logs of this worker's containers that labels ask for")
    _config(ship, "settings file (default: /etc/vipmesh.toml, if it exists)")
    ship.set_defaults(of="ship")


def _add_demo(verbs: _Verbs) -> None:
    demo = verbs.add_parser("demo", help="run the example stack on loopback: no root, no kernel support, no server")
    demo.add_argument("file", nargs="?", type=Path, help="your own compose file, with x-endpoints on 127.0.0.0/8")
    demo.set_defaults(of="run")


def _add_check(verbs: _Verbs) -> None:
    check = verbs.add_parser("check", help="report every problem of compose files; exit status 1 if there is an error")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a compose file")
    _config(check, "settings file, for the VIP pool and the cluster domain")
    _json(check)
    check.set_defaults(of="check")


def _add_doctor(verbs: _Verbs) -> None:
    doctor = verbs.add_parser("doctor", help="check whether the daemon can run on this host, and show how to fix it")
    _config(doctor, "settings file that the daemon will run with")
    _json(doctor)
    doctor.set_defaults(of="doctor")


def _add_top(verbs: _Verbs) -> None:
    top = verbs.add_parser("top", help="show the traffic of each service, updated continuously")
    top.add_argument("--count", type=_count, metavar="N", help="stop after N updates (default: run until interrupted)")
    _asks(top)
    top.set_defaults(of="top")


def _add_explain(verbs: _Verbs) -> None:
    explain = verbs.add_parser("explain", help="trace where a request goes, and why other endpoints get no traffic")
    explain.add_argument("asked", metavar="NAME|VIP|PORT|CONTAINER", help="or a URL, an endpoint, or PROJECT/SERVICE")
    _asks(explain, others=True)
    explain.set_defaults(of="status")


def _add_test(verbs: _Verbs) -> None:
    test = verbs.add_parser("test", help="send packets to VIPs and published ports, and show where they are lost")
    test.add_argument("name", nargs="?", metavar="NAME", help="as for `explain` (default: every service)")
    test.add_argument("--wait", type=_seconds, metavar="SECONDS", help="test until every request comes back")
    _asks(test)
    test.set_defaults(of="test")


def _add_teardown(verbs: _Verbs) -> None:
    teardown = verbs.add_parser("teardown", help="remove what a stopped daemon left in the kernel, and nothing else")
    _config(teardown, "the daemon's settings file")
    _json(teardown)
    teardown.set_defaults(of="run")


def _add_cluster(verbs: _Verbs) -> None:
    _cluster(verbs.add_parser("cluster", help="prepare what the workers of a cluster share"))


def _cluster(verb: _VerbParser) -> None:
    """Add the verbs of `vipmesh cluster`."""
    verbs = verb.add_subparsers(required=True, metavar="VERB", dest="verb")
    certs = verbs.add_parser("certs", help="make or renew the certificates of workers and operators")
    certs.add_argument("workers", nargs="+", type=_worker, metavar="WORKER[=HOST,...]", help="and its other addresses")
    certs.add_argument("--directory", type=Path, default=Path("certs"), metavar="DIR", help="default: certs")
    certs.add_argument("--operator", default="operator", type=_operator, metavar="NAME", help="default: operator")
    certs.add_argument("--days", type=_days, default=397, help="how long they are valid (default: 397)")
    certs.add_argument("--renew", action="store_true", help="make all anew, also those that have time left")
    _json(certs)
    certs.set_defaults(of="certs")

    revoke = verbs.add_parser("revoke", help="revoke certificates, so that no worker accepts them any more")
    revoke.add_argument("names", nargs="+", type=_operator, metavar="NAME", help="a worker or an operator")
    revoke.add_argument("--directory", type=Path, default=Path("certs"), metavar="DIR", help="default: certs")
    _json(revoke)
    revoke.set_defaults(of="certs")
    _add_roles(verbs)


def _add_status(verbs: _Verbs) -> None:
    status = verbs.add_parser("status", help="show the services, endpoints and problems of a running daemon")
    status.add_argument("name", nargs="?", metavar="NAME", help="a service, VIP, endpoint or worker (default: all)")
    status.add_argument("--problems", action="store_true", help="only what is wrong")
    status.add_argument("--endpoints", action="store_true", help="the endpoints of all services, with all ports")
    status.add_argument("--check", action="store_true", help="exit status 3 if something is wrong")
    status.add_argument("--wait", type=_seconds, metavar="SECONDS", help="until --check would exit with 0")
    _asks(status, others=True)
    status.set_defaults(of="status")


def _add_stacks(verbs: _Verbs) -> None:
    deploy = verbs.add_parser("deploy", help="make the engine run what compose files say, without a lost request")
    deploy.add_argument("files", nargs="+", type=Path, metavar="FILE", help="compose files of one project")
    deploy.add_argument("--project", metavar="NAME", help="default: the files' name:, else their directory")
    deploy.add_argument("--dry-run", action="store_true", help="show what differs, and change nothing")
    deploy.add_argument("--init", action="store_true", help="make a swarm of this engine alone if there is none")
    deploy.add_argument("--prune", action="store_true", help="remove services that are not in the files any more")
    _waits(deploy)
    deploy.set_defaults(of="deploy")

    undeploy = verbs.add_parser("undeploy", help="remove what was deployed of a project; named volumes stay")
    undeploy.add_argument("project", metavar="PROJECT")
    _waits(undeploy)
    undeploy.set_defaults(of="deploy")

    ps = verbs.add_parser("ps", help="list deployed services: instances desired, running, pending, and where")
    ps.add_argument("service", nargs="?", metavar="SERVICE", help="or PROJECT/SERVICE, or a project (default: all)")
    _asks(ps)
    ps.set_defaults(of="ps", elsewhere=True)

    scale = verbs.add_parser("scale", help="change how many instances of a deployed service run")
    scale.add_argument("scaling", type=_scaling, metavar="SERVICE=N", help="or PROJECT/SERVICE=N")
    _waits(scale)
    scale.set_defaults(of="scale", elsewhere=True)

    rebalance = verbs.add_parser("rebalance", help="spread instances evenly over the workers, without a lost request")
    rebalance.add_argument(
        "service", nargs="?", metavar="SERVICE", help="or PROJECT/SERVICE, or a project (default: all)"
    )
    rebalance.add_argument("--dry-run", action="store_true", help="show what would move, and change nothing")
    _waits(rebalance)
    rebalance.set_defaults(of="rebalance")

    autoscaling = verbs.add_parser("autoscaling", help="show how many instances each scaled service gets, and why")
    autoscaling.add_argument("service", nargs="?", metavar="SERVICE", help="or PROJECT/SERVICE (default: all)")
    _asks(autoscaling)
    autoscaling.set_defaults(of="autoscaling")

    history = verbs.add_parser("history", help="show who deployed what of a project, and when")
    history.add_argument("project", metavar="PROJECT")
    _asks(history)
    history.set_defaults(of="history", elsewhere=True)


def _waits(verb: argparse.ArgumentParser) -> None:
    """Add the options of a verb that waits for instances."""
    verb.add_argument(
        "--wait", type=_seconds, metavar="SECONDS", help="give up after so long without progress (default: 60)"
    )
    _asks(verb)


def _scaling(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not (name and equals and number.isascii() and number.isdigit() and len(number) <= _INSTANCE_DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r} is not SERVICE=N with a whole number N below 10000")
    return name, int(number)


def _add_completion(verbs: _Verbs) -> None:
    completion = verbs.add_parser("completion", help="print a shell script that completes verbs, options and names")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.add_argument("--names", nargs=argparse.REMAINDER, metavar="KIND... : WORD...", help=argparse.SUPPRESS)
    completion.set_defaults(of="completion")


def _add_support(verbs: _Verbs) -> None:
    support = verbs.add_parser("support", help="write an archive with what is needed to find a fault, without secrets")
    support.add_argument("--output", type=Path, metavar="FILE", help="default: vipmesh-support-HOST-TIME.tar.gz here")
    support.add_argument("--yes", action="store_true", help="write it without asking")
    _asks(support)
    support.set_defaults(of="support")


def _add_events(verbs: _Verbs) -> None:
    events = verbs.add_parser("events", help="show what happened to a service, endpoint, container or worker")
    events.add_argument("name", nargs="?", metavar="NAME", help="as for `explain` (default: everything)")
    events.add_argument("-f", "--follow", action="store_true", help="go on with new events until interrupted")
    events.add_argument("--since", type=_age, metavar="TIME", help="30m, 2h or 7d ago, or a time as 2026-11-30T14:00")
    _asks(events, others=True)
    events.set_defaults(of="events")


def _add_logs(verbs: _Verbs) -> None:
    logs = verbs.add_parser("logs", help="show the log lines of all instances of a service, on all workers")
    logs.add_argument("service", metavar="SERVICE", help="PROJECT/SERVICE, SERVICE or a routing name")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with new lines until interrupted")
    logs.add_argument("-n", dest="lines", type=_lines, metavar="LINES", help="the newest lines (default: 100)")
    logs.add_argument("--since", type=_age, metavar="TIME", help="30m, 2h or 7d ago, or a time as 2026-11-30T14:00")
    logs.add_argument("--grep", metavar="TEXT", help="only lines that contain this text as it is")
    _asks(logs, others=True)
    logs.set_defaults(of="logs")


def _add_actions(verbs: _Verbs) -> None:
    for name, does, what in (
        ("drain", "send no new connections to endpoints, and wait until their last ones have ended", "ENDPOINT"),
        ("maintenance", "drain endpoints and do not probe them, until `undrain`", "ENDPOINT"),
        ("undrain", "let endpoints take connections again", "ENDPOINT"),
        ("stop", "drain containers, then stop them", "CONTAINER"),
        ("weight", "give an endpoint a weight in place of its label's, until `weight ENDPOINT reset`", "ENDPOINT"),
    ):
        verb = verbs.add_parser(name, help=does)
        named = verb.add_argument("names", nargs=1 if name == "weight" else "+", metavar=what)
        named.help = (
            "the name or id of a container, the id of an endpoint, or a service; NAME@WORKER for one of several"
        )
        if name == "weight":
            verb.add_argument(
                "weight", type=_weight, metavar="N|reset", help=f"0 to {_MAX_WEIGHT}, or that of the label"
            )
        if name != "undrain":
            verb.add_argument("--force", action="store_true", help="even if no endpoint of the service serves then")
        if name in ("drain", "undrain"):
            named.required = False
            _empties(verb, name)
        _asks(verb)
        verb.set_defaults(of="drain", elsewhere=True)


def _empties(verb: argparse.ArgumentParser, name: str) -> None:
    """Add the options by which a verb is about all that runs on an engine of the swarm."""
    does = "end what runs on an engine of the swarm, after as much serves elsewhere"
    if name == "undrain":
        does = "let an engine of the swarm have instances again"
    verb.add_argument("--worker", dest="emptied", metavar="WORKER", help=does)
    if name == "drain":
        verb.add_argument("--dry-run", action="store_true", help="with --worker: show what it means, change nothing")
    verb.add_argument(
        "--wait", type=_seconds, metavar="SECONDS", help="with --worker: give up after so long without progress"
    )


def _add_workers(verbs: _Verbs) -> None:
    workers = verbs.add_parser("workers", help="list the workers, or remove one that is not trusted any more")
    _asks(workers)
    workers.set_defaults(of="workers", action="list")
    # Options that are left out here keep what was written before `remove`.
    below = workers.add_subparsers(metavar="remove", dest="action")
    remove = below.add_parser(
        "remove", help="revoke its certificate and delete its records", argument_default=argparse.SUPPRESS
    )
    remove.add_argument("worker", metavar="WORKER", help="the [node] name of a worker that does not run any more")
    remove.add_argument("--directory", type=Path, metavar="DIR", help="of `cluster certs` (default: certs)")
    remove.add_argument("--force", action="store_true", help="even if its daemon is registered")
    _asks(remove)


def _add_claims(verbs: _Verbs) -> None:
    claims = verbs.add_parser("claims", help="list who has which name, port and VIP, free what nobody uses, move names")
    claims.add_argument("action", choices=("list", "free", "move"), help="free CLAIM..., or move NAME PROJECT/SERVICE")
    claims.add_argument("names", nargs="*", metavar="CLAIM", help="a routing name, a port such as tcp/8080, or a VIP")
    _asks(claims)
    claims.set_defaults(of="claims")


def _add_rollout(verbs: _Verbs) -> None:
    rollout = verbs.add_parser("rollout", help="show the releases of a service, and lead a rollout of a new one")
    actions = ("status", "share", "promote", "pause", "resume", "abort", "undo")
    rollout.add_argument("action", choices=actions, help="share SERVICE v2=10 | reset; the others take SERVICE alone")
    rollout.add_argument("service", metavar="SERVICE", help="PROJECT/SERVICE, the second part of it, or a routing name")
    rollout.add_argument("shares", nargs="*", metavar="RELEASE=PERCENT", help="the other releases have the rest")
    rollout.add_argument(
        "--over", type=_seconds, default=2.0, metavar="SECONDS", help="how long `status` counts (default: 2; 0: not)"
    )
    _asks(rollout)
    rollout.set_defaults(of="rollout")


def _add_roles(verbs: _Verbs) -> None:
    roles = verbs.add_parser("roles", help="print the etcdctl lines that give each worker a role of its own")
    roles.add_argument("workers", nargs="*", metavar="WORKER", help="the [node] name of a worker (default: this one)")
    _config(roles, "the daemon's settings file, for the URL of the store")
    _json(roles)
    roles.set_defaults(of="roles")


def _asks(verb: argparse.ArgumentParser, *, others: bool = False) -> None:
    """Add the options of a verb that sends requests to the daemon; `others`: also one that looks at another worker."""
    if others:
        verb.add_argument("--worker", metavar="WORKER", help="look at this worker, through the one that is asked")
    _config(verb, "the daemon's settings file, for the address of its admin API")
    verb.add_argument("--admin", metavar="ADDRESS", help="the admin API: unix:///PATH, https://HOST:PORT or HOST:PORT")
    verb.add_argument("--context", metavar="NAME", help="the address and the credentials of this name, from a file")
    verb.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token of the worker")
    verb.add_argument("--ca", type=Path, metavar="FILE", help="who signed the worker's certificate, a PEM file")
    verb.add_argument("--cert", type=Path, metavar="FILE", help="your certificate, a PEM file")
    verb.add_argument("--key", type=Path, metavar="FILE", help="its private key (default: in the same file)")
    _json(verb)


def _config(verb: argparse.ArgumentParser, what: str) -> None:
    verb.add_argument("-c", "--config", type=Path, metavar="FILE", help=what)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_LINES)) and int(text) <= _MAX_LINES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {_MAX_LINES}")
    return int(text)


def _weight(text: str) -> int | None:
    """Return a weight; None for `reset`, which is that of the label."""
    if text == "reset":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_WEIGHT)) and int(text) <= _MAX_WEIGHT):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number from 0 to {_MAX_WEIGHT} nor reset")
    return int(text)


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and int(text) <= _MAX_WAIT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of seconds from 0 to {_MAX_WAIT}")
    return float(text)


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and _LEAST_DAYS <= int(text) <= _MOST_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of days from {_LEAST_DAYS} to {_MOST_DAYS}")
    return int(text)


def _worker(text: str) -> tuple[str, tuple[str, ...] | None]:
    from mesh.cli.certs import parse_worker

    return parse_worker(text)


def _operator(text: str) -> str:
    return _worker(text.partition("=")[0])[0]


def _age(text: str) -> float:
    """Return a time as the admin API takes it: seconds since 1970, or negative: seconds before now."""
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and len(number) <= _AGE_DIGITS and unit in _UNITS:
        return -float(int(number) * _UNITS[unit] or 1)
    from datetime import datetime

    try:
        return max(0.0, datetime.fromisoformat(text).timestamp())  # local time unless the text has an offset
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a time such as 2026-11-30T14:00 nor an age such as 30m, 2h or 7d"
        ) from None


def _json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print JSON, for programs")


_VERBS: Mapping[str, Callable[[_Verbs], None]] = MappingProxyType(
    {
        "run": _add_run,
        "ship": _add_ship,
        "demo": _add_demo,
        "support": _add_support,
        "check": _add_check,
        "doctor": _add_doctor,
        "status": _add_status,
        "top": _add_top,
        "explain": _add_explain,
        "workers": _add_workers,
        "events": _add_events,
        "logs": _add_logs,
        "test": _add_test,
        **dict.fromkeys(("deploy", "undeploy", "ps", "scale", "rebalance", "autoscaling", "history"), _add_stacks),
        **dict.fromkeys(("drain", "maintenance", "undrain", "stop", "weight"), _add_actions),
        "rollout": _add_rollout,
        "claims": _add_claims,
        "cluster": _add_cluster,
        "teardown": _add_teardown,
        "completion": _add_completion,
    }
)
"""The function that adds each verb, in the order of the help."""
