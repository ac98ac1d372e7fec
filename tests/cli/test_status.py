"""`vipmesh status` and `vipmesh explain` with daemons of this and the previous version."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest
from typing_extensions import override

from mesh.api.explain.document import Explanation
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
