"""`vipmesh status` and `vipmesh explain` with daemons of this and the previous version."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from mesh.api.explain.document import Explanation
from mesh.api.status import EndpointStatus, ServiceStatus, StatusNotice, WorkerStatus
from mesh.cli.main import main

FROZEN = "source 0: the engine does not answer"
EXPLANATION = Explanation(
    asked="web.test", kind="nothing", worker="w1", data_plane="ipvs", frozen=(FROZEN,), failures=()
)


class EarlierDaemon(BaseHTTPRequestHandler):
    """Answers as version f76dd97 did: explanations as JSON, whatever the client accepts."""

    def do_GET(self) -> None:
        body = msgspec.json.encode(EXPLANATION)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:  # as the base class names it
        """Keep standard error for what is tested."""


@pytest.fixture
def earlier() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), EarlierDaemon)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_explain_shows_the_response_of_a_daemon_of_the_previous_version(
    earlier: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "--admin", earlier, "web.test"]) == 1
    assert FROZEN in capsys.readouterr().out
    assert main(["explain", "--admin", earlier, "--json", "web.test"]) == 1
    assert msgspec.json.decode(capsys.readouterr().out, type=Explanation) == EXPLANATION


class ScriptedDaemon(HTTPServer):
    """Answers each request with the next of its statuses, and then with the last one; None: with nothing."""

    statuses: list[bytes | None]

    def next_status(self) -> bytes | None:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


class ScriptedHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, ScriptedDaemon)
        body = self.server.next_status()
        self.send_response(200 if body is not None else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep standard error for what is tested."""


@pytest.fixture
def scripted() -> Iterator[ScriptedDaemon]:
    server = ScriptedDaemon(("127.0.0.1", 0), ScriptedHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def shown(*services: ServiceStatus, **changes: Any) -> bytes:
    given = {"version": "1", "worker": "w1", "data_plane": "ipvs", "data_plane_reason": "asked for", "dns": ()}
    return msgspec.json.encode(WorkerStatus(**{**given, "digest": "0a", "services": services, **changes}))


def web(*, serving: bool, name: str = "web.test") -> ServiceStatus:
    health = "healthy" if serving else "unhealthy"
    one = EndpointStatus("a", "w1", "10.2.0.1", 80, 1, None, health, serving, None)
    return ServiceStatus(name, f"demo/{name}", "10.112.0.7", (name,), ("tcp://10.112.0.7:80",), (one,))


BROKEN = StatusNotice("problem", "error", "VM201", "its name is held", "demo/db.test")
WELL, DOWN = web(serving=True), web(serving=False, name="db.test")


@pytest.mark.parametrize(
    ("options", "statuses", "code"),
    [
        ((), [shown(DOWN, notices=(BROKEN,))], 0),
        (("--json",), [shown(DOWN)], 0),
        (("--check",), [shown(WELL)], 0),
        (("--check",), [shown(WELL, notices=(BROKEN,))], 3),
        (("--check",), [shown(WELL, DOWN)], 3),
        (("--check", "--json"), [shown(WELL, DOWN)], 3),
        (("--check",), [shown(digest=None)], 3),
        (("web", "--check"), [shown(WELL, DOWN, notices=(BROKEN,))], 0),
        (("db", "--check"), [shown(WELL, DOWN)], 3),
        (("none", "--check"), [shown(WELL)], 3),
        (("none",), [shown(WELL)], 0),
        (("--wait", "30", "--check"), [shown(digest=None), shown(DOWN), shown(WELL)], 0),
        (("web", "--wait", "30", "--check"), [shown(), shown(WELL, DOWN)], 0),
        (("--wait", "0", "--check"), [shown(DOWN)], 3),
        (("--wait", "0"), [shown(DOWN)], 0),
        ((), [None], 1),
        (("--check",), [b"[]"], 1),
    ],
)
def test_exit_statuses(
    scripted: ScriptedDaemon, options: tuple[str, ...], statuses: list[bytes | None], code: int
) -> None:
    scripted.statuses = list(statuses)
    assert main(["status", "--admin", f"127.0.0.1:{scripted.server_port}", *options]) == code
    assert len(scripted.statuses) == 1, "all of them were looked at"


def test_what_is_not_in_order_and_what_is_not_there_is_said(
    scripted: ScriptedDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.statuses, admin = [shown(DOWN)], f"127.0.0.1:{scripted.server_port}"
    main(["status", "--admin", admin, "--wait", "0"])
    assert capsys.readouterr().err == (
        "vipmesh: not in order after 0 s; see what is wrong above, or wait longer [VM691]\n"
    )
    main(["status", "--admin", admin, "a\x1bb"])
    told = capsys.readouterr().err
    assert "is called 'a\\x1bb'; `vipmesh status` lists all of them, and `vipmesh explain a\\x1bb` says what" in told
    assert told.endswith("[VM690]\n")


def test_the_document_has_what_was_asked_for(scripted: ScriptedDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.statuses, admin = [shown(WELL, DOWN, notices=(BROKEN,))], f"127.0.0.1:{scripted.server_port}"

    def names(*options: str) -> tuple[list[str], int]:
        main(["status", "--admin", admin, "--json", *options])
        document = msgspec.json.decode(capsys.readouterr().out, type=WorkerStatus)
        return [service.name for service in document.services], len(document.notices)

    assert names() == (["web.test", "db.test"], 1)
    assert names("--problems") == (["db.test"], 1)
    assert names("web") == (["web.test"], 0)
    assert names("none") == ([], 0)


SCRIPT = """
import sys
from mesh.cli.main import main
main(["status", "--admin", sys.argv[1]])
sys.stdout.write("rich" if "rich" in sys.modules else "plain")
"""


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_and_width_are_those_of_the_terminal(
    scripted: ScriptedDaemon, variables: dict[str, str], coloured: bool
) -> None:
    scripted.statuses = [shown(WELL, DOWN)]
    without = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    ours, its = pty.openpty()
    command = (sys.executable, "-c", SCRIPT, f"127.0.0.1:{scripted.server_port}")
    environment = {**without, "TERM": "xterm-256color", "COLUMNS": "40", **variables}
    received = bytearray()
    with subprocess.Popen(command, stdout=its, env=environment) as process:
        os.close(its)
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while part := os.read(ours, 1 << 16):
                received += part
        assert process.wait(60) == 0
    os.close(ours)
    text = received.decode()
    assert ("\x1b[" in text, text.endswith("rich")) == (coloured, True)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(len, lines)) <= (80 if variables.get("TERM") == "dumb" else 40)


def test_elsewhere_there_are_neither_colours_nor_rich(scripted: ScriptedDaemon) -> None:
    scripted.statuses = [shown(WELL, DOWN)]
    command = (sys.executable, "-c", SCRIPT, f"127.0.0.1:{scripted.server_port}")
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "40"}
    text = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, timeout=60).stdout.decode()
    assert "\x1b" not in text
    assert text.endswith("plain")
