"""Log lines of containers to a store: `vipmesh ship` beside rsyslog with imfile and omelasticsearch.

    PYTHONPATH=. python bench/logs.py

Containers are directories as the engine makes them, and a process stands for the engine's API. The store is a process
that takes Elasticsearch's bulk API; it knows each line by its number and the time at which it was written.

- A backlog: lines per CPU second of the shipper, its start included, and its peak memory.
- Rotation of 2 MB x 5, two kills of the shipper, and a store that is frozen: lines lost and lines twice. rsyslog runs
  once as it is by default, and once with PersistStateInterval=100.
- 1,000 lines per second: from the write to searchable, p99. The store refreshes every second, as Elasticsearch does.
- 200 containers that write nothing: the share of a core.
- A worker beside 10,000 lines per second: p99 of answers of DNS and of passes of its control loop, with the shipper and
  the store, and with busy loops that take as much CPU time in their places. The lines are written in both.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import hostile_victim
from dns_peers import answering, free_port

from harness import MissingError, Row, cpu_seconds, main, need, ratio, running, scratch

LONGEST = 300.0
"""Seconds after which something that did not come to its end is a failure of the bench."""
RSYSLOG = """
global(workDirectory="{state}" maxMessageSize="64k")
module(load="imfile" mode="inotify")
module(load="mmjsonparse")
module(load="omelasticsearch")
template(name="line" type="list" option.jsonf="on") {{
    property(outname="@timestamp" name="$!time" format="jsonf")
    property(outname="message" name="$!log" format="jsonf")
    property(outname="stream" name="$!stream" format="jsonf")
    property(outname="file" name="$!metadata!filename" format="jsonf")
    constant(outname="service" value="shop/web" format="jsonf")
    constant(outname="worker" value="w1" format="jsonf")
}}
input(type="imfile" file="{containers}/*/*-json.log" tag="app" addMetadata="on" {persist})
action(type="mmjsonparse" cookie="")
action(type="omelasticsearch" server="127.0.0.1" serverport="{port}" template="line" searchIndex="app" searchType=""
       bulkmode="on" maxbytes="1m" action.resumeRetryCount="-1" action.resumeInterval="1"
       queue.type="LinkedList" queue.dequeueBatchSize="1000" queue.saveOnShutdown="on" queue.filename="app"
       queue.timeoutShutdown="2000")
"""
"""It makes the documents that ours makes: the driver's line taken apart, with the service and the worker."""


BUSY = """
import sys, time
share = float(sys.argv[1])
while True:
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < share * 0.02:
        pass
    time.sleep(max(0.0, began + 0.02 - time.monotonic()))
"""
"""Takes a share of a core, in turns of 20 ms."""
RATE = 10_000
"""Lines per second beside the worker."""


class JsonFile:
    """The log of one container, written and rotated as the engine does."""

    def __init__(self, containers: Path, name: str, rotate_at: int = 0, keep: int = 5) -> None:
        self._path = containers / name / f"{name}-json.log"
        self._path.parent.mkdir(parents=True)
        self._file = self._path.open("ab", buffering=0)
        self._rotate_at, self._keep = rotate_at, keep
        self._size = 0

    def write(self, number: int, padding: str) -> None:
        """Append one line, numbered and with its time."""
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        line = b'{"log":"%d %d %s\\n","stream":"stdout","time":"%s.%09dZ"}\n'
        data = line % (number, now, padding.encode(), stamp.encode(), now % 10**9)
        if self._rotate_at and self._size + len(data) > self._rotate_at:
            self._rotate()
        self._size += self._file.write(data)

    def _rotate(self) -> None:
        self._file.close()
        for age in range(self._keep - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{age}")
            newer = self._path if age == 1 else self._path.with_name(f"{self._path.name}.{age - 1}")
            if newer.exists():
                newer.replace(older)
        self._file = self._path.open("ab", buffering=0)
        self._size = 0

    def close(self) -> None:
        """End the container."""
        self._file.close()


@dataclass
class Shipper:
    """A shipper that can be killed and started again."""

    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    peak: int = 0
    """KiB, of the process that took the most."""

    def start(self) -> None:
        """Start it."""
        quiet = subprocess.DEVNULL
        # As it is installed: with its bytecode.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.process = subprocess.Popen(self.command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment)

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.command[0]} has ended")
        return self.process.pid

    def note_peak(self) -> None:
        """Remember how much memory it took at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        self.peak = max(self.peak, *(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM")))

    def end(self, number: int = signal.SIGKILL) -> None:
        """End it, and wait."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(number)
            self.process.wait()


class Lab:
    """A store, a place for containers, and the shippers."""

    def __init__(self, directory: Path, port: int, store: subprocess.Popen[bytes]) -> None:
        self.directory, self._port, self.store = directory, port, store
        self.containers = directory / "containers"
        self.containers.mkdir()

    def counts(self) -> dict[str, float]:
        """What the store has."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/counts", timeout=60) as answer:
            found: dict[str, float] = json.load(answer)
        return found

    def ours(self) -> Shipper:
        """`vipmesh ship` with the settings of this lab."""
        settings = self.directory / "vipmesh.toml"
        settings.write_text(
            f'[node]\nname = "w1"\n[source.docker]\nsocket = "unix://{self.directory}/engine.sock"\n'
            f'[ship]\nelasticsearch = ["http://127.0.0.1:{self._port}"]\nstate = "{self.directory}/ours"\n'
        )
        return Shipper((sys.executable, "-m", "mesh", "ship", "-c", str(settings)))

    def rsyslog(self, persist: str = "") -> Shipper:
        """rsyslogd with the settings of this lab."""
        state = self.directory / "rsyslog"
        state.mkdir()
        settings = self.directory / "rsyslog.conf"
        settings.write_text(RSYSLOG.format(state=state, containers=self.containers, port=self._port, persist=persist))
        return Shipper((need("rsyslogd", "rsyslog"), "-n", "-f", str(settings), "-i", f"{self.directory}/pid"))

    def wait_for(self, lines: int, quiet: float = LONGEST) -> dict[str, float]:
        """Wait until the store has so many lines, or until nothing has come for `quiet` seconds."""
        end = time.monotonic() + LONGEST
        last, since = -1.0, time.monotonic()
        while True:
            found = self.counts()
            if found["distinct"] >= lines or time.monotonic() - since > quiet:
                return found
            if found["distinct"] != last:
                last, since = found["distinct"], time.monotonic()
            if time.monotonic() > end:
                raise MissingError(f"the store has {found['distinct']:.0f} of {lines} lines after {LONGEST:.0f} s")
            time.sleep(0.1)


@contextmanager
def lab() -> Iterator[Lab]:
    """An empty store, and an engine without containers."""
    with scratch() as directory, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        place = Path(__file__).parent
        with running(sys.executable, str(place / "logs_store.py"), str(port), quiet=True) as store:
            found = Lab(directory, port, store)
            engine = (str(place / "logs_engine.py"), f"{directory}/engine.sock", str(found.containers))
            with running(sys.executable, *engine, quiet=True):
                _until(lambda: (directory / "engine.sock").exists() and _listens(port))
                yield found
            os.kill(store.pid, signal.SIGCONT)


Chosen = Callable[[Lab], Shipper]
SHIPPERS: dict[str, Chosen] = {"ours": Lab.ours, "rsyslog": Lab.rsyslog}


def backlog(chosen: Chosen, lines: int) -> tuple[float, float]:
    """Lines per CPU second, and MiB at the peak."""
    with lab() as place:
        log = JsonFile(place.containers, "a" * 64)
        for number in range(lines):
            log.write(number, "GET /orders/4711 HTTP/1.1 200 " + "x" * 60)
        log.close()
        shipper = chosen(place)
        shipper.start()
        try:
            place.wait_for(lines)
            shipper.note_peak()
            return lines / cpu_seconds(shipper.pid), shipper.peak / 1024
        finally:
            shipper.end()


def disturbed(chosen: Chosen, lines: int, frozen: float) -> tuple[int, int]:
    """Lines lost and lines twice, over rotation, two kills and a store that is frozen for so many seconds."""
    with lab() as place:
        log = JsonFile(place.containers, "a" * 64, rotate_at=2_000_000)
        shipper = chosen(place)
        shipper.start()
        span = frozen + 6.0

        def kill() -> None:
            shipper.end()
            shipper.start()

        steps: list[tuple[float, Callable[[], None]]] = [
            (2.0, lambda: os.kill(place.store.pid, signal.SIGSTOP)),
            (2.0 + frozen / 2, kill),
            (2.0 + frozen, lambda: os.kill(place.store.pid, signal.SIGCONT)),
            (span - 1.0, kill),
        ]
        begin = time.monotonic()
        try:
            for number in range(lines):
                log.write(number, "x" * 380)
                while steps and time.monotonic() - begin >= steps[0][0]:
                    steps.pop(0)[1]()
                time.sleep(max(0.0, begin + span * number / lines - time.monotonic()))
            for _, step in steps:
                step()
            found = place.wait_for(lines, quiet=15.0)
            time.sleep(2.0)  # what is sent twice comes late
            found = place.counts()
            return lines - int(found["distinct"]), int(found["twice"])
        finally:
            shipper.end()
            log.close()


def steady(chosen: Chosen, seconds: float) -> tuple[float, float]:
    """Seconds from the write to stored and to searchable, p99, at 1,000 lines per second."""
    with lab() as place:
        log = JsonFile(place.containers, "a" * 64)
        shipper = chosen(place)
        shipper.start()
        try:
            log.write(0, "first")
            place.wait_for(1)
            lines = int(1000 * seconds)
            begin = time.monotonic()
            for number in range(1, lines):
                log.write(number, "x" * 100)
                time.sleep(max(0.0, begin + number / 1000 - time.monotonic()))
            found = place.wait_for(lines)
            return found["stored_p99"], found["searchable_p99"]
        finally:
            shipper.end()
            log.close()


def idle(chosen: Chosen, containers: int, seconds: float) -> float:
    """The share of a core, in per cent."""
    with lab() as place:
        logs = [JsonFile(place.containers, f"{number:064x}") for number in range(containers)]
        for number, log in enumerate(logs):
            log.write(number, "first")
        shipper = chosen(place)
        shipper.start()
        try:
            place.wait_for(containers)
            time.sleep(2.0)
            before = cpu_seconds(shipper.pid)
            time.sleep(seconds)
            return 100 * (cpu_seconds(shipper.pid) - before) / seconds
        finally:
            shipper.end()
            for log in logs:
                log.close()


def write_steadily(containers: str) -> None:
    """Write `RATE` lines per second to one log until the process is ended."""
    log = JsonFile(Path(containers), "b" * 64, rotate_at=20 << 20)
    began, number = time.monotonic(), 0
    while True:
        for _ in range(RATE // 100):
            log.write(number, "x" * 100)
            number += 1
        time.sleep(max(0.0, began + number / RATE - time.monotonic()))


def beside(seconds: float, busy: Sequence[float]) -> tuple[float, float, tuple[float, ...]]:
    """Seconds of an answer of DNS and of a pass, p99, and the shares of a core that the shipper and the store took.

    `busy` has the shares of the loops in their places; empty: the shipper and the store themselves.
    """
    place, port = Path(__file__).parent, free_port()
    with lab() as there, ExitStack() as processes:

        def start(*command: str) -> int:
            return processes.enter_context(running(sys.executable, *command, cwd=place, quiet=True)).pid

        times = there.directory / "passes"
        worker = start(str(place / "dns_daemon.py"), str(port), "100", "40", str(times))
        answering(worker, port, "n1.bench.test", None)
        os.kill(worker, signal.SIGUSR1)
        start("-c", f"import logs; logs.write_steadily({str(there.containers)!r})")
        shipper = there.ours()
        try:
            if busy:
                for share in busy:
                    start("-c", BUSY, str(share))
                time.sleep(1.0)
                pids = []
            else:
                shipper.start()
                there.wait_for(RATE)
                pids = [shipper.pid, there.store.pid]
            hostile_victim.NAMES = ("n0.bench.test", "n1.bench.test", "n2.bench.test")
            before, passed = [cpu_seconds(pid) for pid in pids], len(times.read_text().splitlines())
            answer, _ = hostile_victim.measure(port, seconds)
            shares = tuple((cpu_seconds(pid) - old) / seconds for pid, old in zip(pids, before, strict=True))
            passes = sorted(map(float, times.read_text().split("\n")[passed:-1]))
            return answer, passes[int(len(passes) * 0.99)], shares
        finally:
            shipper.end()


def run(quick: bool) -> list[Row]:
    """All rows."""
    need("rsyslogd", "rsyslog rsyslog-elasticsearch")
    rounds = 1 if quick else 3
    rows = [*_backlog_rows(quick, rounds), _disturbed_row(quick), *_steady_rows(quick, rounds), _idle_row(quick)]
    return [*rows, *beside_rows(5.0 if quick else 30.0, rounds)]


def beside_rows(seconds: float, rounds: int) -> list[Row]:
    """The rows of the worker beside the shipper."""
    ours, peer = [], []
    for _ in range(rounds):
        *found, shares = beside(seconds, ())
        ours.append(found)
        peer.append(beside(seconds, shares)[:2])
    rows = []
    for index, what in enumerate(("an answer of DNS", "a pass of the control loop")):
        shipped, loaded = ([each[index] for each in some] for some in (ours, peer))
        share, spread = ratio(shipped, loaded)
        one, other = (f"{1e3 * statistics.median(each):.2f} ms" for each in (shipped, loaded))
        title = f"beside {RATE:,} lines/s: {what}, p99 (peer: busy loops of equal CPU)"
        rows.append(Row(title, one, other, share, spread, "<= 1.2", share <= 1.2))
    return rows


def _backlog_rows(quick: bool, rounds: int) -> list[Row]:
    lines = 100_000 if quick else 400_000
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SHIPPERS}
    for _ in range(rounds):
        for name, chosen in SHIPPERS.items():
            found[name].append(backlog(chosen, lines))
    rates = {name: [rate for rate, _ in each] for name, each in found.items()}
    peaks = {name: [peak for _, peak in each] for name, each in found.items()}
    rate, rate_spread = ratio(rates["ours"], rates["rsyslog"])
    peak, peak_spread = ratio(peaks["ours"], peaks["rsyslog"])
    fast, peer_fast = (f"{statistics.median(each):,.0f}/s" for each in rates.values())
    small, peer_small = (f"{statistics.median(each):.0f} MiB" for each in peaks.values())
    title = f"a backlog of {lines:,} lines"
    return [
        Row(f"{title}: lines per CPU second", fast, peer_fast, rate, rate_spread, ">= 3", rate >= 3),
        Row(f"{title}: peak memory", small, peer_small, peak, peak_spread, "<= 0.5", peak <= 0.5),
    ]


def _disturbed_row(quick: bool) -> Row:
    lines, frozen = (8000, 2.0) if quick else (20_000, 6.0)
    lost, twice = disturbed(Lab.ours, lines, frozen)
    plain = disturbed(Lab.rsyslog, lines, frozen)
    eager = disturbed(lambda place: place.rsyslog('PersistStateInterval="100"'), lines, frozen)
    peer = " or ".join(f"{a} lost, {b} twice" for a, b in (plain, eager))
    title = f"{lines:,} lines, rotation 2 MB x 5, two kills, store frozen {frozen:.0f} s"
    return Row(title, f"{lost} lost, {twice} twice", peer, lost + twice, "-", "0 lost, 0 twice", not (lost or twice))


def _steady_rows(quick: bool, rounds: int) -> list[Row]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SHIPPERS}
    for _ in range(rounds):
        for name, chosen in SHIPPERS.items():
            found[name].append(steady(chosen, 5.0 if quick else 15.0))
    rows = []
    for index, (word, goal) in enumerate((("stored", ""), ("searchable", "<= 1.1"))):
        times = {name: [each[index] for each in some] for name, some in found.items()}
        share, spread = ratio(times["ours"], times["rsyslog"])
        ours, peer = (f"{1000 * statistics.median(each):.0f} ms" for each in times.values())
        rows.append(Row(f"1,000 lines/s: from the write to {word}, p99", ours, peer, share, spread, goal, share <= 1.1))
    return rows


def _idle_row(quick: bool) -> Row:
    seconds = 5.0 if quick else 30.0
    ours, peer = (idle(chosen, 200, seconds) for chosen in SHIPPERS.values())
    title = "200 containers idle: share of a core"
    return Row(title, f"{ours:.2f} %", f"{peer:.2f} %", ours / max(peer, 0.01), "-", "<= 0.5 %", ours <= 0.5)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        if time.monotonic() > end:
            raise MissingError("the store or the engine of the bench did not start")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
