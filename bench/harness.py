"""The shared parts of the benches: arguments, two output formats, and statistics.

A bench runs ours and the peer in the same run, in turn, several times; a row gives the medians and their ratio with its
spread. It installs nothing and leaves nothing behind.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """One line of the table. `ours` and `peer` are texts with their unit; `ratio` is the one that `goal` is about."""

    bench: str
    ours: str
    peer: str
    ratio: float
    spread: str
    """The least and the greatest ratio of a round: `0.91..1.10`."""
    goal: str
    met: bool


class MissingError(Exception):
    """A program that the bench needs is not installed."""


def main(run: Callable[[bool], Sequence[Row]], description: str) -> int:
    """Parse the arguments, run, print. Exit status 2: something is missing, and the text says what to install."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under a minute, with more spread")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    try:
        rows = run(options.quick)
    except MissingError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2))
        return 0
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    print("| bench | ours | peer | ratio | spread | goal | met |\n|---|---|---|---|---|---|---|")
    for row in rows:
        met = ("yes" if row.met else "no") if row.goal else "-"
        print(f"| {row.bench} | {row.ours} | {row.peer} | {row.ratio:.2f} | {row.spread} | {row.goal or '-'} | {met} |")
    return 0


def need(command: str, package: str) -> str:
    """The path of a program. Raises `MissingError`."""
    found = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise MissingError(f"this bench compares with {command}: apt-get install {package}")
    return found


def machine() -> dict[str, str]:
    """The properties of the machine that the figures depend on."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpu": cpu.partition(":")[2].strip() or platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, over all its threads.

    In nanoseconds of the scheduler (/proc/PID/task/TID/schedstat) where the kernel counts them, else in ticks of 10 ms
    (proc(5), /proc/PID/stat, fields 14 and 15), which a server that runs in short bursts slips through.
    """
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    except FileNotFoundError:
        threads = []
    if threads:
        return sum(int(text.split()[0]) for text in threads) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def ratio(ours: Sequence[float], peer: Sequence[float]) -> tuple[float, str]:
    """The median of the rounds' ratios, and the least and the greatest one."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    return statistics.median(ratios), f"{min(ratios):.2f}..{max(ratios):.2f}"


@contextmanager
def running(
    *command: str, cpu: int | None = None, cwd: Path | None = None, quiet: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a process of its own, pinned to one core if asked; ended, by pid, when the block ends.

    `quiet`: what it says on standard error is not shown.
    """
    errors = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, cwd=cwd)
    if cpu is not None:
        os.sched_setaffinity(process.pid, {cpu})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="vipmesh-bench-") as directory:
        yield Path(directory)


def cores() -> tuple[int, int]:
    """A core for the server and another one for the load; the same one twice where there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]
