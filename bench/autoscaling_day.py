"""A day of a service in simulation: loads, instances that take time to start, and who decides how many there are.

The peers are Kubernetes' HPA, written from its documentation ("Horizontal Pod Autoscaling", "Algorithm details" and
"Configurable scaling behavior" at kubernetes.io), and a threshold on the average of a minute with a cooldown of five
minutes in both directions, as most clouds offer it.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from typing_extensions import override

from mesh.model.auto_scaling import AutoScaling, ScalingBand
from mesh.platform.autoscaling.model import (
    InstanceSample,
    ScalingClock,
    ScalingMeasure,
    ScalingState,
    ScalingSubject,
    ServiceSample,
)
from mesh.platform.autoscaling.policy import decide

TICK = 5
"""Seconds of one step."""
FLAP = 600
"""Seconds: an addition and a removal within so long of one another are a flap."""
TARGET, OVER, UNDER, STEP, MOST = 50, 70, 30, 2, 20
CPU = ScalingMeasure.CPU

Load = Callable[[int], float]
"""CPU that the clients want at a second of the day, in per cent of the limit of one instance."""


@dataclass(frozen=True, slots=True)
class SimulatedInstance:
    """One instance, as it is at a moment."""

    cpu: float
    """Per cent of its limit."""
    is_ready: bool


class Autoscaler(Protocol):
    """Who decides."""

    interval: int
    """Seconds between two looks."""

    def look(self, now: int, instances: Sequence[SimulatedInstance]) -> int:
        """Return how many instances there shall be."""
        ...


@dataclass(frozen=True, slots=True)
class DayResult:
    """What a day cost."""

    instance_hours: float
    minutes_over: float
    """In which clients wanted more than all ready instances have."""
    changes: int
    flaps: int
    most: int
    """The most instances at a time: beyond what the load needs it is overshoot."""

    @override
    def __str__(self) -> str:
        return (
            f"{self.instance_hours:.0f} h, {self.minutes_over:.1f} min over, {self.changes} changes, "
            f"{self.flaps} flaps, most {self.most}"
        )


class OwnPolicy(Autoscaler):
    """Ours."""

    interval = 10

    def __init__(self, policy: AutoScaling) -> None:
        self._policy = policy
        self._state = ScalingState()
        self._samples: deque[ServiceSample] = deque(maxlen=6)

    @override
    def look(self, now: int, instances: Sequence[SimulatedInstance]) -> int:
        found = tuple(InstanceSample({CPU: each.cpu}, is_starting=not each.is_ready) for each in instances)
        self._samples.append(ServiceSample(now, found))
        subject = ScalingSubject("web", len(instances))
        decision, self._state = decide(self._policy, subject, self._samples, self._state, ScalingClock(now, now))
        return decision.wanted


class KubernetesHpa(Autoscaler):
    """The algorithm of Kubernetes' HorizontalPodAutoscaler, with its defaults."""

    interval = 15  # --horizontal-pod-autoscaler-sync-period
    _stabilization = 300  # --horizontal-pod-autoscaler-downscale-stabilization
    _tolerance = 0.1

    def __init__(self) -> None:
        self._recommended: deque[tuple[int, int]] = deque()

    @override
    def look(self, now: int, instances: Sequence[SimulatedInstance]) -> int:
        count = len(instances)
        recommended = min(max(self._recommend(instances), 1), MOST)
        self._recommended.append((now, recommended))
        while self._recommended[0][0] <= now - self._stabilization:
            self._recommended.popleft()
        if recommended < count:
            return min(count, max(each for _, each in self._recommended))
        return min(recommended, max(2 * count, count + 4))

    def _recommend(self, instances: Sequence[SimulatedInstance]) -> int:
        ready = [each.cpu for each in instances if each.is_ready]
        if not ready:
            return len(instances)
        ratio = sum(ready) / len(ready) / TARGET
        if len(ready) < len(instances) and ratio > 1:
            # Pods that are not ready count as idle, and may dampen the scale but not turn it.
            dampened = sum(ready) / len(instances) / TARGET
            if dampened <= 1 + self._tolerance:
                return len(instances)
            return math.ceil(dampened * len(instances) - 1e-9)
        if abs(ratio - 1) <= self._tolerance:
            return len(instances)
        return math.ceil(ratio * len(ready) - 1e-9)


class ThresholdWithCooldown(Autoscaler):
    """Adds or removes a step when the average of a minute is beyond a threshold, and then waits five minutes."""

    interval = 10
    _cooldown = 300

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=6)
        self._changed = -self._cooldown

    @override
    def look(self, now: int, instances: Sequence[SimulatedInstance]) -> int:
        count = len(instances)
        self._last.append(sum(each.cpu for each in instances) / count)
        if now - self._changed < self._cooldown or len(self._last) < 6:
            return count
        average = sum(self._last) / 6
        wanted = count + STEP if average > OVER else count - STEP if average < UNDER else count
        wanted = min(max(wanted, 1), MOST)
        if wanted != count:
            self._changed = now
        return wanted


def own_target() -> OwnPolicy:
    """Ours with a target."""
    return OwnPolicy(AutoScaling(target_cpu=TARGET, max_instances=MOST))


def own_thresholds() -> OwnPolicy:
    """Ours with thresholds."""
    return OwnPolicy(AutoScaling(ScalingBand(OVER, UNDER), step=STEP, max_instances=MOST))


def simulate(load: Load, start: int, autoscaler: Autoscaler, seconds: int) -> DayResult:
    """Return what a day costs. An instance is ready `start` seconds after it was added, and busy until then."""
    born = [-start] * 4
    result = DayResult(0.0, 0.0, 0, 0, len(born))
    measured = [0.0] * 2  # the load of the last two ticks, which is what a sample has
    last: tuple[int, int] = (-FLAP, 0)
    for now in range(0, seconds, TICK):
        ready = sum(now - each >= start for each in born)
        wanted_cpu = load(now)
        measured = [measured[1], wanted_cpu]
        is_over = wanted_cpu > 100 * ready
        result = replace(
            result,
            instance_hours=result.instance_hours + len(born) * TICK / 3600,
            minutes_over=result.minutes_over + is_over * TICK / 60,
            most=max(result.most, len(born)),
        )
        if now % autoscaler.interval:
            continue
        each_cpu = min(100.0, sum(measured) / 2 / ready) if ready else 0.0
        seen = [SimulatedInstance(each_cpu if now - each >= start else 100.0, now - each >= start) for each in born]
        change = autoscaler.look(now, seen) - len(born)
        if change:
            turned = now - last[0] <= FLAP and (change > 0) != (last[1] > 0)
            result = replace(result, changes=result.changes + 1, flaps=result.flaps + turned)
            last = now, change
        born = [*born, *[now] * change] if change > 0 else born[: len(born) + change]
    return result


def constant_load(_: int) -> float:
    """The load of a day on which nothing happens."""
    return 330.0


def day_loads(seed: int) -> dict[str, Load]:
    """The loads of the simulated days."""
    chance = random.Random(seed)
    noise = [1.0]
    for _ in range(86400 // TICK):
        noise.append(0.8 * noise[-1] + 0.2 + chance.gauss(0, 0.12))
    bursts = sorted(chance.randrange(86400) for _ in range(12))

    def diurnal(now: int) -> float:
        return 400 - 300 * math.cos(2 * math.pi * now / 86400) + 40 * (noise[now // TICK] - 1)

    def bursting(now: int) -> float:
        return 200 + (600 if any(0 <= now - burst < 600 for burst in bursts) else 0)

    def ramping(now: int) -> float:
        at = now % 7200
        return 100 + 700 * min(1.0, at / 1200, max(0.0, (5400 - at) / 1200))

    def noisy(now: int) -> float:
        return max(20.0, 300 * noise[now // TICK])

    return {"diurnal": diurnal, "bursts": bursting, "ramps": ramping, "noise": noisy}
