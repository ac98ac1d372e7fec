"""The command line: verbs and their options. Nothing is imported here that a verb needs to do its work."""

import argparse
from pathlib import Path

from mesh import __version__


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their options; each names the module of `mesh.cli` that carries it out."""
    whole = argparse.ArgumentParser(prog="vipmesh", description="The routing mesh for containers without Kubernetes.")
    whole.add_argument("--version", action="version", version=f"vipmesh {__version__}")
    whole.add_argument("-v", "--verbose", action="store_true", help="log every operation")
    verbs = whole.add_subparsers(required=True, metavar="VERB", dest="verb")

    run = verbs.add_parser("run", help="run this worker's daemon in the foreground")
    _config(run, "settings (default: /etc/vipmesh.toml, if it exists)")
    run.set_defaults(of="run")

    demo = verbs.add_parser("demo", help="run the example stack on loopback: no root, no kernel support, no server")
    demo.add_argument("file", nargs="?", type=Path, help="a compose file of yours with x-endpoints on 127.0.0.0/8")
    demo.set_defaults(of="run")

    check = verbs.add_parser("check", help="report every problem of compose files; exit status 1 if there is an error")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    _config(check, "settings, for the VIP pool and the cluster domain")
    _json(check)
    check.set_defaults(of="check")

    doctor = verbs.add_parser(
        "doctor", help="look at this host for what stands in the daemon's way, and how to mend it"
    )
    _config(doctor, "the settings that the daemon shall run with")
    _json(doctor)
    doctor.set_defaults(of="doctor")

    status = verbs.add_parser("status", help="show what a running daemon does")
    _asks(status)
    status.set_defaults(of="status")

    top = verbs.add_parser("top", help="show what goes through the services, as it changes")
    top.add_argument("--count", type=_count, metavar="N", help="so many times, then end; default: until interrupted")
    _asks(top)
    top.set_defaults(of="top")

    explain = verbs.add_parser("explain", help="show the way of a request, and why what is not in the way is not")
    explain.add_argument("asked", metavar="NAME|VIP|PORT|CONTAINER", help="also a URL, an endpoint or PROJECT/SERVICE")
    _asks(explain)
    explain.set_defaults(of="status")

    for name, does, what in (
        ("drain", "send no new connections to endpoints; returns when their last ones have ended", "ENDPOINT"),
        ("maintenance", "drain endpoints and do not probe them, until `undrain`", "ENDPOINT"),
        ("undrain", "let endpoints take connections again", "ENDPOINT"),
        ("stop", "drain containers, then stop them", "CONTAINER"),
    ):
        verb = verbs.add_parser(name, help=does)
        verb.add_argument("names", nargs="+", metavar=what, help="a container by name or id, or an endpoint's id")
        _asks(verb)
        verb.set_defaults(of="drain")

    teardown = verbs.add_parser("teardown", help="remove what a stopped daemon left in the kernel, and nothing else")
    _config(teardown, "the daemon's settings")
    _json(teardown)
    teardown.set_defaults(of="run")

    completion = verbs.add_parser("completion", help="print a script that completes verbs, options and files at a TAB")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(of="completion")
    return whole


def _asks(verb: argparse.ArgumentParser) -> None:
    _config(verb, "the daemon's settings, for the address of its admin API")
    verb.add_argument("--admin", metavar="ADDRESS", help="ask here: unix:///PATH or HOST:PORT")
    _json(verb)


def _config(verb: argparse.ArgumentParser, what: str) -> None:
    verb.add_argument("-c", "--config", type=Path, metavar="FILE", help=what)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="for programs")
