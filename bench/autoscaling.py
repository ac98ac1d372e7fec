"""Autoscaling: what samples of usage cost, what decisions cost, and what a simulated day costs beside two peers."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoscaling_day import (
    DayResult,
    KubernetesHpa,
    OwnPolicy,
    ThresholdWithCooldown,
    constant_load,
    day_loads,
    own_target,
    own_thresholds,
    simulate,
)

from harness import Row, main
from mesh.model.auto_scaling import AutoScaling, ScalingBand
from mesh.platform.autoscaling.cgroup_files import ContainerCgroup
from mesh.platform.autoscaling.cgroup_reader import CgroupReader
from mesh.platform.autoscaling.measures import SAMPLES
from mesh.platform.autoscaling.model import (
    InstanceSample,
    ScalingClock,
    ScalingMeasure,
    ScalingState,
    ScalingSubject,
    ServiceSample,
)
from mesh.platform.autoscaling.policy import decide

CONTAINERS = 200
SERVICES = 1000
STARTS = (5, 30, 90)
DAY = 86400
SEED = 1
V1 = ("cpu", "cpuacct", "memory")
GOAL_USAGE = 0.020
INTERVAL = 10.0


def run(quick: bool) -> Sequence[Row]:
    """All rows."""
    return [usage_row(5 if quick else 30), decision_row(3 if quick else 10), *day_rows(quick), constant_row(quick)]


def usage_row(rounds: int) -> Row:
    """CPU time for one sample of 200 containers."""
    with container_cgroups() as (kind, cgroups, reader):
        times = []
        for _ in range(rounds):
            begin = time.process_time()
            found = [reader.usage(cgroup) for cgroup in cgroups]
            times.append(time.process_time() - begin)
            if None in found:
                raise SystemExit("the usage of a cgroup could not be read")
    middle = statistics.median(times)
    spread = f"{min(times) / GOAL_USAGE:.2f}..{max(times) / GOAL_USAGE:.2f}"
    name = f"usage of {CONTAINERS} containers, one sample ({kind}): CPU, beside 20 ms"
    return Row(name, f"{middle * 1000:.1f} ms", "-", middle / GOAL_USAGE, spread, "<= 1", middle <= GOAL_USAGE)


@contextmanager
def container_cgroups() -> Iterator[tuple[str, list[ContainerCgroup], CgroupReader]]:
    """Cgroups of the kernel if this user may make them, else files that look like them."""
    made: list[Path] = []
    roots = [Path("/sys/fs/cgroup", each) for each in V1]
    version, kind = 1, "cgroup v1"
    if not all(root.is_dir() for root in roots):
        roots, version, kind = [Path("/sys/fs/cgroup")], 2, "cgroup v2"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for root in roots:
                for number in range(CONTAINERS):
                    path = root / f"vipmesh-bench-{os.getpid()}-{number}"
                    path.mkdir()
                    made.append(path)
        except OSError:
            roots, version, kind = [Path(scratch)], 2, "files, since cgroups may not be made here"
            write_files(roots[0])
        names = [f"vipmesh-bench-{os.getpid()}-{number}" for number in range(CONTAINERS)]
        try:
            cgroups = [ContainerCgroup(version, *([f"{root}/{name}" for root in roots] * 3)[:3]) for name in names]
            yield kind, cgroups, CgroupReader()
        finally:
            for path in made:
                path.rmdir()


def write_files(root: Path) -> None:
    """Files with the form of cgroup v2."""
    for number in range(CONTAINERS):
        path = root / f"vipmesh-bench-{os.getpid()}-{number}"
        path.mkdir()
        path.joinpath("cpu.stat").write_text("usage_usec 7\nnr_periods 0\nnr_throttled 0\n")
        path.joinpath("memory.current").write_text("1\n")
        path.joinpath("memory.stat").write_text("anon 1\n" * 60 + "inactive_file 1\n")


def decision_row(rounds: int) -> Row:
    """From the third sample to the decisions of 1,000 services, as a share of the interval of samples."""
    policy = AutoScaling(ScalingBand(70, 30), step=2)
    cpu = {ScalingMeasure.CPU: 90.0}
    samples = [ServiceSample(1000.0 + INTERVAL * at, (InstanceSample(cpu),) * 5) for at in range(SAMPLES)]
    clock, state = ScalingClock(samples[-1].at, samples[-1].at), ScalingState(instances=5)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        made = [
            decide(policy, ScalingSubject(f"web{number}", 5), samples, state, clock)[0] for number in range(SERVICES)
        ]
        times.append((time.perf_counter() - begin) / INTERVAL)
        if any(decision.wanted != 7 for decision in made):
            raise SystemExit(f"a wrong decision: {made[0].line}")
    middle = statistics.median(times)
    name = f"from the third sample to the decisions of {SERVICES} services x 5, beside the interval of {INTERVAL:.0f} s"
    spread = f"{min(times):.3f}..{max(times):.3f}"
    return Row(name, f"{middle * INTERVAL * 1000:.0f} ms", f"{INTERVAL:.0f} s", middle, spread, "<= 0.2", middle <= 0.2)


def day_rows(quick: bool) -> list[Row]:
    """One row for each day and peer, and the changes in sum."""
    rows, changes = [], {"HPA": [0, 0], "threshold": [0, 0]}
    for name, load in day_loads(SEED).items():
        for start in STARTS[1:2] if quick else STARTS:
            for peer, ours, theirs in (
                ("HPA", own_target(), KubernetesHpa()),
                ("threshold", own_thresholds(), ThresholdWithCooldown()),
            ):
                mine, other = simulate(load, start, ours, DAY), simulate(load, start, theirs, DAY)
                changes[peer][0] += mine.changes
                changes[peer][1] += other.changes
                rows.append(day_row(f"a day, {name}, start {start} s, beside {named(peer)}", mine, other))
    for peer, (mine_sum, other_sum) in changes.items():
        name = f"changes of these days in sum, beside {named(peer)}"
        rows.append(Row(name, str(mine_sum), str(other_sum), mine_sum / max(1, other_sum), "-", "", met=True))
    mine_all, other_all = (sum(each[at] for each in changes.values()) for at in (0, 1))
    ratio = mine_all / max(1, other_all)
    rows.append(Row("changes of all days in sum", str(mine_all), str(other_all), ratio, "-", "< 1", ratio < 1))
    return rows


def named(peer: str) -> str:
    """The name of a peer with what it is set to."""
    return "HPA (target 50 %)" if peer == "HPA" else "a threshold (70 %, 30 %, step 2) with 5 min cooldown"


def day_row(name: str, ours: DayResult, peer: DayResult) -> Row:
    """Ours must not be worse in both instance hours and time over the limit. The ratio is that of the hours."""
    is_worse = ours.instance_hours > peer.instance_hours * 1.001 and ours.minutes_over > peer.minutes_over + 0.1
    ratio = ours.instance_hours / peer.instance_hours
    return Row(name, str(ours), str(peer), ratio, "-", "not worse in both", not is_worse)


def constant_row(quick: bool) -> Row:
    """Flaps at a constant load, of both of ours."""
    flaps = 0
    makers: tuple[Callable[[], OwnPolicy], ...] = (own_target, own_thresholds)
    for start in STARTS[1:2] if quick else STARTS:
        for make in makers:
            flaps += simulate(constant_load, start, make(), DAY).flaps
    return Row("flaps at constant load", str(flaps), "-", float(flaps), "-", "0", flaps == 0)


if __name__ == "__main__":
    raise SystemExit(main(run, __doc__))
