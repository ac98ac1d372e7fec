"""What each measure of a service wants, from its last samples. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mesh.model.auto_scaling import AutoScaling
from mesh.platform.autoscaling.model import InstanceSample, ScalingMeasure, ScalingReason, ScalingSubject, ServiceSample

SAMPLES = 3
"""Samples in a row that have to agree about a threshold."""
_TARGET_SAMPLES = 2
"""As many for a target."""
_URGENT = 1.5
"""One sample is enough if it is so many times the target: HPA always looks at one."""
TOLERANCE = 0.1
"""A target is met from 10 % below to 10 % above it: Kubernetes' --horizontal-pod-autoscaler-tolerance."""
_FEW = 4
"""A target adds as many as there are, or so many if that is more: the default behaviour of Kubernetes' HPA."""
_FULL = 100.0
"""What an instance that starts counts as, where no maximum is known."""
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class MeasureRule:
    """The thresholds of one measure."""

    measure: ScalingMeasure
    maximum: float | None
    minimum: float | None
    target: float | None = None

    @property
    def samples(self) -> int:
        """How many samples in a row have to agree."""
        return SAMPLES if self.target is None else _TARGET_SAMPLES

    @property
    def ceiling(self) -> float:
        """What an instance of unknown load counts as when instances are to be removed."""
        known = self.maximum if self.target is None else self.target
        return _FULL if known is None else known


@dataclass(frozen=True, slots=True)
class MeasureWish:
    """What one measure wants."""

    wanted: int
    reason: ScalingReason
    why: str
    value: float | None
    """The average of the last samples; None if too few instances were measured."""


def measure_rules(policy: AutoScaling) -> Iterator[MeasureRule]:
    """Yield the rules that the labels of a service set."""
    if policy.target_cpu is not None:
        yield MeasureRule(ScalingMeasure.CPU, None, None, policy.target_cpu)
    for measure, band in ((ScalingMeasure.CPU, policy.cpu), (ScalingMeasure.MEMORY, policy.memory)):
        if band.maximum is not None or band.minimum is not None:
            yield MeasureRule(measure, band.maximum, band.minimum)
    for measure, maximum in (
        (ScalingMeasure.CONNECTIONS, policy.max_connections),
        (ScalingMeasure.CONNECTION_RATE, policy.max_connection_rate),
    ):
        if maximum is not None:
            yield MeasureRule(measure, maximum, maximum / 2)


class MeasuredService:
    """The last samples of a service, by one measure."""

    def __init__(
        self, rule: MeasureRule, subject: ScalingSubject, samples: Sequence[ServiceSample], most: int = SAMPLES
    ) -> None:
        """`samples`: the last ones since the number of instances changed last. `most`: how many of them count."""
        self._rule = rule
        self._subject = subject
        wanted = min(most, rule.samples)
        self._samples = samples[-wanted:]
        self.is_measured = len(self._samples) == wanted and all(
            2 * self._count(sample) >= subject.instances for sample in self._samples
        )
        """Whether there are enough samples, with at least half of the instances in each."""

    @property
    def lows(self) -> list[float]:
        """The averages if instances that are not measured or start have no load: for adding."""
        return [self._average(sample, 0.0) for sample in self._samples]

    @property
    def highs(self) -> list[float]:
        """The averages if instances that are not measured or start are full: for removing."""
        return [self._average(sample, self._rule.ceiling) for sample in self._samples]

    @property
    def value(self) -> float | None:
        """The average of what was measured; None if too little was."""
        measured = [
            each.values[self._rule.measure]
            for sample in self._samples
            for each in sample.instances
            if self._counts(each)
        ]
        return sum(measured) / len(measured) if measured and self.is_measured else None

    @property
    def shown(self) -> str:
        """`CPU 101 % of the limit`."""
        return describe_value(self._rule.measure, self.value or 0.0, self._subject)

    @property
    def extent(self) -> str:
        """`in 3 samples, 2 of 2 tasks`, and how much was throttled."""
        last = self._samples[-1]
        unit = "sample" if len(self._samples) == 1 else "samples"
        text = f"in {len(self._samples)} {unit}, {self._count(last)} of {self._subject.instances} tasks"
        throttled = [each.throttled for each in last.instances if self._counts(each)]
        if self._rule.measure is ScalingMeasure.CPU and throttled and sum(throttled) > 0:
            text += f", throttled in {100 * sum(throttled) / len(throttled):.0f} % of periods"
        return text

    def _average(self, sample: ServiceSample, unknown: float) -> float:
        known = [each.values[self._rule.measure] for each in sample.instances if self._counts(each)]
        count = max(1, self._subject.instances, len(sample.instances))
        return (sum(known) + unknown * (count - len(known))) / count

    def _count(self, sample: ServiceSample) -> int:
        return sum(map(self._counts, sample.instances))

    def _counts(self, instance: InstanceSample) -> bool:
        return not instance.is_starting and self._rule.measure in instance.values


def wish_of(
    rule: MeasureRule, policy: AutoScaling, subject: ScalingSubject, samples: Sequence[ServiceSample]
) -> MeasureWish:
    """Return what one measure wants; the number of now if it wants nothing. Bounds are not considered."""
    if rule.target is not None:
        last = MeasuredService(rule, subject, samples, 1)
        if last.is_measured and min(last.lows) > _URGENT * rule.target:
            return _target_wish(rule.target, last, subject)
    measured, now = MeasuredService(rule, subject, samples), subject.instances
    if not measured.is_measured:
        return MeasureWish(now, ScalingReason.FEW_SAMPLES, _too_few(measured, rule, subject, samples), None)
    if rule.target is not None:
        return _target_wish(rule.target, measured, subject)
    value = measured.value
    if rule.maximum is not None and min(measured.lows) > rule.maximum:
        why = f"{measured.shown} over {_amount(rule.measure, rule.maximum)} {measured.extent}"
        return MeasureWish(now + policy.step, ScalingReason.LOAD, why, value)
    if rule.minimum is not None and max(measured.highs) < rule.minimum:
        why = f"{measured.shown} under {_amount(rule.measure, rule.minimum)} {measured.extent}"
        return MeasureWish(now - policy.step, ScalingReason.LOAD, why, value)
    return MeasureWish(now, ScalingReason.IN_RANGE, f"{measured.shown}, {_range(rule)}", value)


def excess(rule: MeasureRule, subject: ScalingSubject, samples: Sequence[ServiceSample], wanted: int) -> str:
    """Return why a measure forbids fewer instances; empty if it does not.

    With `wanted` of them the average may not be over the maximum again.
    """
    if rule.maximum is None or len(samples) < SAMPLES:
        return ""
    after = max(MeasuredService(rule, subject, samples).highs) * subject.instances / max(1, wanted)
    if after <= rule.maximum:
        return ""
    shown = describe_value(rule.measure, after, subject)
    return f"{wanted} would bring {shown}, over {_amount(rule.measure, rule.maximum)} again"


def describe_value(measure: ScalingMeasure, value: float, subject: ScalingSubject) -> str:
    """Return a value with its unit: `CPU 101 % of the limit`."""
    match measure:
        case ScalingMeasure.CPU:
            return f"CPU {value:.0f} % {subject.cpu_base}"
        case ScalingMeasure.MEMORY:
            return f"memory {value:.0f} % {subject.memory_base}"
        case ScalingMeasure.CONNECTIONS:
            return f"{value:.0f} open connections of each task"
        case ScalingMeasure.CONNECTION_RATE:
            return f"{value:.0f} new connections of each task in a second"


def _target_wish(target: float, measured: MeasuredService, subject: ScalingSubject) -> MeasureWish:
    now, value = subject.instances, measured.value
    why = f"{measured.shown} for a target of {target:.0f} % {measured.extent}"
    least, most = min(measured.lows) / target, max(measured.highs) / target
    if least > 1 + TOLERANCE:
        wanted = min(_round_up(now * least), max(2 * now, now + _FEW))
        return MeasureWish(wanted, ScalingReason.LOAD, why, value)
    if most < 1 - TOLERANCE:
        return MeasureWish(min(now, max(1, _round_up(now * most))), ScalingReason.LOAD, why, value)
    return MeasureWish(now, ScalingReason.IN_RANGE, why, value)


def _round_up(number: float) -> int:
    return math.ceil(number - _EPSILON)


def _too_few(
    measured: MeasuredService, rule: MeasureRule, subject: ScalingSubject, samples: Sequence[ServiceSample]
) -> str:
    if len(samples) < rule.samples:
        return f"{len(samples)} of {rule.samples} samples since the last change"
    name = describe_value(rule.measure, 0, subject).partition(" 0 ")[0].removeprefix("0 ")
    return f"less than half of the tasks have a sample of {name}: {measured.extent}"


def _range(rule: MeasureRule) -> str:
    low, high = rule.minimum, rule.maximum
    if low is not None and high is not None:
        return f"between {_amount(rule.measure, low)} and {_amount(rule.measure, high)}"
    if high is not None:
        return f"not over {_amount(rule.measure, high)}"
    return f"not under {_amount(rule.measure, low or 0)}"


def _amount(measure: ScalingMeasure, value: float) -> str:
    return f"{value:.0f} %" if measure in (ScalingMeasure.CPU, ScalingMeasure.MEMORY) else f"{value:g}"
