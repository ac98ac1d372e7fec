"""`vipmesh`: run the daemon, try it out, check files, ask a running daemon.

Exit status: 0 done; 1 the answer is no (`check` found an error, the daemon could not start or be asked);
2 wrong usage. Heavy imports wait until the verb needs them, so that `status` and `check` start fast.
"""

import argparse
import http.client
import json
import logging
import os
import socket
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mesh import __version__
from mesh.config import Settings, SettingsError, load

DEFAULT_FILE = Path("/etc/vipmesh.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s",
        level=logging.DEBUG if options.verbose else logging.INFO,
        stream=sys.stderr,
    )
    status = 0
    try:
        status = options.verb(options)
    except* SettingsError as group:
        print(*_leaves(group), sep="\n", file=sys.stderr)
        status = 1
    except* BrokenPipeError:
        # The reader left (`vipmesh status | head`): that is its right. Keep the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vipmesh", description="The routing mesh for containers without Kubernetes.")
    parser.add_argument("--version", action="version", version=f"vipmesh {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every operation")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    run = verbs.add_parser("run", help="run this worker's daemon in the foreground")
    run.add_argument("-c", "--config", type=Path, help=f"settings (default: {DEFAULT_FILE}, if it exists)")
    run.set_defaults(verb=_run)

    demo = verbs.add_parser("demo", help="run the example stack on loopback: no root, no kernel support, no server")
    demo.add_argument("file", nargs="?", type=Path, help="a compose file of yours with x-endpoints on 127.0.0.0/8")
    demo.set_defaults(verb=_demo)

    check = verbs.add_parser("check", help="report every problem of compose files; exit status 1 if there is an error")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument("-c", "--config", type=Path, help="settings, for the VIP pool and the cluster domain")
    check.set_defaults(verb=_check)

    status = verbs.add_parser("status", help="show what a running daemon does")
    status.add_argument("-c", "--config", type=Path, help="the daemon's settings, for the address of its admin API")
    status.add_argument("--admin", metavar="ADDRESS", help="ask here: unix:///PATH or HOST:PORT")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(verb=_status)

    for name, does, what in (
        ("drain", "send no new connections to endpoints; returns when their last ones have ended", "ENDPOINT"),
        ("maintenance", "drain endpoints and do not probe them, until `undrain`", "ENDPOINT"),
        ("undrain", "let endpoints take connections again", "ENDPOINT"),
        ("stop", "drain containers, then stop them", "CONTAINER"),
    ):
        verb = verbs.add_parser(name, help=does)
        verb.add_argument("names", nargs="+", metavar=what, help="a container by name or id, or an endpoint's id")
        verb.add_argument("-c", "--config", type=Path, help="the daemon's settings, for the address of its admin API")
        verb.add_argument("--admin", metavar="ADDRESS", help="ask here: unix:///PATH or HOST:PORT")
        verb.set_defaults(verb=partial(_change, name))

    teardown = verbs.add_parser("teardown", help="remove what a stopped daemon left in the kernel, and nothing else")
    teardown.add_argument("-c", "--config", type=Path, help="the daemon's settings")
    teardown.set_defaults(verb=_teardown)
    return parser


def _settings(path: Path | None) -> Settings:
    file = path or DEFAULT_FILE
    try:
        text = file.read_text() if path is not None or file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError((f"{file}: cannot be read: {error}; name a TOML file with -c",)) from error
    return load(text, os.environ, hostname=socket.gethostname(), file=str(file))


# ------------------------------------------------------------------------------------------------------- run, demo


def _run(options: argparse.Namespace) -> int:
    from mesh.serve import Service

    async def work() -> None:
        await Service(lambda: _settings(options.config), dict(os.environ)).run()

    return _foreground(work())


def _demo(options: argparse.Namespace) -> int:
    from mesh import demo

    # The demo tells its story on standard output; of the daemon's log only what is wrong belongs into it.
    logging.getLogger().setLevel(logging.DEBUG if options.verbose else logging.ERROR)
    return _foreground(demo.run(options.file, os.environ))


def _teardown(options: argparse.Namespace) -> int:
    from mesh.teardown import teardown

    settings = _settings(options.config)
    failures: list[str] = []

    async def work() -> None:
        removed, failed = await teardown(settings)
        print(*removed, f"{len(removed)} removed; claims stay in {settings.store_url}", sep="\n")
        failures.extend(failed)

    status = _foreground(work())
    for failure in failures:
        print(f"vipmesh: {failure}", file=sys.stderr)
    return 1 if failures else status


def _foreground(work: Coroutine[Any, Any, None]) -> int:
    import uvloop

    from mesh.api.admin import AdminError
    from mesh.daemon import StartError
    from mesh.dataplane import DataPlaneError
    from mesh.store import StoreError
    from meshdns.server import NameServerError

    status = 0
    try:
        uvloop.run(work)
    except* (StartError, DataPlaneError, StoreError, NameServerError, AdminError) as group:
        for error in _leaves(group):
            print(f"vipmesh: {error}", file=sys.stderr)
        status = 1
    return status


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


# --------------------------------------------------------------------------------------------------- check, status


def _check(options: argparse.Namespace) -> int:
    from mesh.check import check
    from mesh.problem import Severity

    settings = _settings(options.config)
    problems = check(options.files, os.environ, domain=settings.dns_domain, pool=settings.vip_pool)
    for problem in problems:
        print(problem)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    print(f"{len(options.files)} files: {errors} errors, {len(problems) - errors} warnings")
    return 1 if errors else 0


def _status(options: argparse.Namespace) -> int:
    listen = options.admin or _settings(options.config).admin_listen
    try:
        body = _ask(listen, "/v1/status")
    except (OSError, http.client.HTTPException) as error:
        return _no_answer(listen, error)
    if options.json:
        print(json.dumps(json.loads(body), indent=2))
        return 0
    import msgspec

    from mesh.status import WorkerStatus, render

    print(render(msgspec.json.decode(body, type=WorkerStatus)))
    return 0


def _change(verb: str, options: argparse.Namespace) -> int:
    """One after the other, so that two endpoints of a service are never gone at once."""
    listen = options.admin or _settings(options.config).admin_listen
    for name in options.names:
        try:
            answer = json.loads(_ask(listen, f"/v1/{verb}", timeout=_PATIENCE, given={"name": name}))
        except (OSError, http.client.HTTPException) as error:
            return _no_answer(listen, error)
        if "error" in answer:
            print(f"vipmesh: {answer['error']}", file=sys.stderr)
            return 1
        print(f"{answer['endpoint']}: {_DONE[verb]}")
    return 0


_DONE = {
    "drain": "drained",
    "maintenance": "drained and not probed",
    "undrain": "takes connections",
    "stop": "drained and stopped",
}
_PATIENCE = 86400.0
"""Seconds: a drain takes as long as the daemon's drain timeout, and a stop as long as the container's."""


def _no_answer(listen: str, error: Exception) -> int:
    print(
        f"vipmesh: no daemon answers on {listen}: {error}; start it with `vipmesh run`, "
        f"or name its [admin] listen with --admin",
        file=sys.stderr,
    )
    return 1


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; the standard library has it only for TCP."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(listen: str, path: str, timeout: float = 5.0, given: Mapping[str, str] | None = None) -> bytes:
    """The body of the answer to a GET, or to a POST of what is given.

    Raises OSError or HTTPException; a status other than 200, and 409 for a refusal, is an HTTPException.
    """
    connection = (
        _UnixConnection(listen.removeprefix("unix://"), timeout)
        if listen.startswith("unix://")
        else http.client.HTTPConnection(listen, timeout=timeout)
    )
    try:
        connection.request("GET" if given is None else "POST", path, None if given is None else json.dumps(given))
        answer = connection.getresponse()
        if answer.status not in (http.client.OK, http.client.CONFLICT):
            raise http.client.HTTPException(f"status {answer.status}")
        return answer.read()
    finally:
        connection.close()
