"""`vipmesh test` over fifty services, beside the same requests by curl, one after the other.

    python bench/connectivity.py

A daemon on loopback; every service leads to one HTTP server. Both are run in turn.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from harness import Row, main, need, ratio, running, scratch

T = TypeVar("T")

SERVICES = 50
SETTINGS = """
[vip]
pool = "127.112.0.0/16"
[dns]
listen = ["127.0.0.1:0"]
resolver = "off"
[dataplane]
driver = "userspace"
low_port_offset = 8000
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
[source.compose]
files = ["{directory}/compose.yaml"]
"""
SERVER = """
import http.server, socketserver
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer): request_queue_size = 1000
server = Server(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
open("port", "w").write(str(server.server_port))
server.serve_forever()
"""
PATIENCE = 30.0


def run(quick: bool) -> Sequence[Row]:
    """`quick`: three rounds, else ten."""
    curl = need("curl", "curl")
    with scratch() as directory, running(sys.executable, "-c", SERVER, quiet=True, cwd=directory):
        port = _wait((directory / "port").read_text)
        services = "".join(
            f'  s{n}: {{labels: {{mesh.routing.port_80: s{n}.test}}, x-endpoints: ["127.0.0.1:{port}"]}}\n'
            for n in range(SERVICES)
        )
        (directory / "compose.yaml").write_text(f"services:\n{services}")
        settings = directory / "vipmesh.toml"
        settings.write_text(SETTINGS.format(directory=directory))
        test = (sys.executable, "-m", "mesh", "test", "-c", str(settings), "--json")
        with running(sys.executable, "-m", "mesh", "run", "-c", str(settings), quiet=True):
            urls = _wait(partial(_urls, test))
            ours, theirs = [], []
            for _ in range(3 if quick else 10):
                began = time.perf_counter()
                subprocess.run(test, capture_output=True, check=False)
                between = time.perf_counter()
                for url in urls:
                    subprocess.run((curl, "--silent", "--output", "/dev/null", "--max-time", "5", url), check=True)
                ours.append(between - began)
                theirs.append(time.perf_counter() - between)
    middle, spread = ratio(ours, theirs)
    texts = f"{min(ours):.2f} s", f"{min(theirs):.2f} s"
    return [Row(f"vipmesh test, {SERVICES} services, beside curl", *texts, middle, spread, "<= 3", middle <= 3)]


def _urls(test: Sequence[str]) -> list[str]:
    """The URL of each VIP. Raises `LookupError` while a service does not answer."""
    done = subprocess.run(test, capture_output=True, check=False, text=True)
    rows = [row for row in json.loads(done.stdout).get("rows", ()) if row["by"] == "address" and row["state"] == "ok"]
    if len(rows) < SERVICES:
        raise LookupError("some service does not answer yet")
    return [row["destination"].replace("tcp://", "http://") for row in rows]


def _wait(ask: Callable[[], T]) -> T:
    """Ask again until it succeeds. Raises the last error after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except (OSError, LookupError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
