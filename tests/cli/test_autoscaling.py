"""What `vipmesh autoscaling` prints of the status of a daemon, which may be of another version or act for nobody."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from typing_extensions import override

from mesh.cli.main import main

ROW = {
    "service": "shop/web",
    "instances": 2,
    "wanted": 4,
    "min_instances": 1,
    "max_instances": 8,
    "reason": "load",
    "text": "CPU 101 % of the limit over 70 %\u001b[2J",
    "values": {"cpu": 101.0},
}


@contextmanager
def daemon(status: dict[str, Any]) -> Iterator[str]:
    """A daemon that answers with this status, at the address that is yielded."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(status).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Keep standard error for what is tested."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("arguments", "status", "code", "shown"),
    [
        ((), {"acting": "w1", "autoscaling": [ROW]}, 0, "shop/web  2          4       1..8    cpu 101"),
        (("web",), {"acting": "w1", "autoscaling": [ROW]}, 0, "load: CPU 101 %"),
        (("db",), {"acting": "w1", "autoscaling": [ROW]}, 1, "no scaled service is called db"),
        ((), {"acting": "w1", "autoscaling": []}, 0, "no service is scaled"),
        ((), {"acting": "w2", "autoscaling": []}, 1, "vipmesh autoscaling --context w2 [VM994]"),
        ((), {"acting": None}, 1, "nobody does, see vipmesh status [VM994]"),
        ((), {}, 1, "[VM994]"),
    ],
)
def test_decisions_are_shown_by_the_worker_that_acts(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: dict[str, Any], code: int, shown: str
) -> None:
    with daemon({"worker": "w1", **status}) as address:
        assert main(["autoscaling", "--admin", address, *arguments]) == code
    printed = "".join(capsys.readouterr())
    assert shown in printed
    assert "\x1b" not in printed


def test_programs_get_what_the_daemon_says(capsys: pytest.CaptureFixture[str]) -> None:
    with daemon({"worker": "w1", "acting": "w1", "autoscaling": [ROW]}) as address:
        assert main(["autoscaling", "--admin", address, "--json", "shop/web"]) == 0
    assert json.loads(capsys.readouterr().out) == {"worker": "w1", "services": [ROW]}
