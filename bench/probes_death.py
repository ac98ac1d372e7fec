"""The time until a dead endpoint is out of traffic: the whole daemon beside HAProxy, on the same endpoints.

Both probe five endpoints by TCP every second and act on the third failure. One endpoint after the other stops listening
at a random moment. Ours counts until the data plane is changed (the line in the log that follows the change), HAProxy
until it reports the server as DOWN.
"""

import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from probes_peers import watching

from harness import Row, ratio

INTERVAL = 1.0
PLACES = {f"e{number}": (f"127.2.0.{number + 1}", 18090) for number in range(5)}
_SETTINGS = """
[node]
name = "w1"
[vip]
pool = "127.112.0.0/16"
[dataplane]
driver = "userspace"
drain_timeout = 0
[dns]
listen = ["127.0.0.1:18053"]
resolver = "off"
upstream = ["127.0.0.1:9"]
[source.compose]
files = ["{directory}/compose.yaml"]
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
"""
_COMPOSE = """
name: bench
services:
  web:
    x-endpoints: [{endpoints}]
    labels:
      mesh.routing.port_8000: web.test
      mesh.probe.url: tcp://container:8000
      mesh.probe.interval_seconds: "{interval:g}"
      mesh.probe.timeout_seconds: "1"
      mesh.probe.healthy_threshold: "1"
"""


class News:
    """When a process said something, by what it said."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.lines: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append((time.monotonic(), line.decode(errors="replace")))

    def after(self, begun: float, pattern: str, limit: float = 30.0) -> float:
        """Seconds from `begun` until it said so."""
        while time.monotonic() < begun + limit:
            for at, line in list(self.lines):
                if at >= begun and re.search(pattern, line):
                    return at - begun
            time.sleep(0.005)
        raise RuntimeError(f"nothing like {pattern!r} in {limit:g} s: {self.lines[-5:]}")


def listen(place: tuple[str, int]) -> socket.socket:
    """An endpoint that accepts and says nothing."""
    return socket.create_server(place, backlog=128)


def death_row(directory: Path, rounds: int) -> Row:
    """Kill, wait for both, bring back; again and again."""
    (directory / "vipmesh.toml").write_text(_SETTINGS.format(directory=directory))
    endpoints = ", ".join(f'"{host}:{port}"' for host, port in PLACES.values())
    (directory / "compose.yaml").write_text(_COMPOSE.format(endpoints=endpoints, interval=INTERVAL))
    alive = {name: listen(place) for name, place in PLACES.items()}
    command = (sys.executable, "-m", "mesh", "-v", "run", "-c", str(directory / "vipmesh.toml"))
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    mine: list[float] = []
    theirs: list[float] = []
    try:
        with watching(directory, PLACES, INTERVAL) as haproxy:
            us, them = News(daemon), News(haproxy)
            for host, port in PLACES.values():
                us.after(0.0, f"add real server .*{host}:{port}", time.monotonic() + 30)
            time.sleep(3)
            for _ in range(rounds):
                time.sleep(random.uniform(0, INTERVAL))
                name = random.choice(list(PLACES))
                host, port = PLACES[name]
                begun = time.monotonic()
                alive[name].close()
                mine.append(us.after(begun, f"delete real server .*{host}:{port}"))
                theirs.append(them.after(begun, rf"Server checked/{name} is DOWN"))
                begun = time.monotonic()
                alive[name] = listen(PLACES[name])
                us.after(begun, f"add real server .*{host}:{port}", 120)
                them.after(begun, rf"Server checked/{name} is UP")
    finally:
        daemon.terminate()
        daemon.wait(20)
        for server in alive.values():
            server.close()
    middle, spread = statistics.mean(mine) / statistics.mean(theirs), ratio(mine, theirs)[1]
    bench = "probes: from an endpoint's death to out of traffic (1 s, third failure), beside HAProxy"
    texts = [f"{statistics.mean(found):.2f} s" for found in (mine, theirs)]
    return Row(bench, texts[0], texts[1], middle, spread, "<= 1.0", middle <= 1.0)
