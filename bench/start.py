"""The time that an operator waits for `vipmesh status`, beside the interpreter alone.

    python bench/start.py

A daemon on loopback with the example stack; each program is run in turn as a process of its own, from its start to its
end.
"""

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness import Row, main, ratio, running, scratch

SETTINGS = """
[vip]
pool = "127.112.0.0/16"
[dns]
listen = ["127.0.0.1:0"]
[dataplane]
driver = "userspace"
low_port_offset = 8000
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
[source.compose]
files = ["{example}"]
"""
EXAMPLE = Path(__file__).parent.parent / "examples" / "restserver" / "compose.yaml"
ALONE = (sys.executable, "-c", "pass")
PATIENCE = 20.0


def took(*command: str) -> float:
    """Seconds."""
    began = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def run(quick: bool) -> Sequence[Row]:
    """`quick`: ten times each, else fifty."""
    with scratch() as directory:
        settings = directory / "vipmesh.toml"
        settings.write_text(SETTINGS.format(directory=directory, example=EXAMPLE))
        status = (sys.executable, "-m", "mesh", "status", "-c", str(settings))
        times: dict[tuple[str, ...], list[float]] = {status: [], ALONE: []}
        with running(sys.executable, "-m", "mesh", "run", "-c", str(settings), quiet=True):
            deadline = time.monotonic() + PATIENCE
            while subprocess.run(status, capture_output=True, check=False).returncode:
                if time.monotonic() > deadline:
                    raise TimeoutError("the daemon does not answer")
            for _ in range(10 if quick else 50):
                for command in random.sample(sorted(times), 2):
                    times[command].append(took(*command))
    ours, alone = (statistics.median(times[command]) for command in (status, ALONE))
    middle, spread = ratio(times[status], times[ALONE])
    slowest = max(times[status])
    texts = f"p50 {ours * 1000:.0f} ms, longest {slowest * 1000:.0f} ms", f"p50 {alone * 1000:.0f} ms"
    return [Row("vipmesh status, beside `python -c pass`", *texts, middle, spread, "<= 150 ms", ours <= 0.15)]


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
