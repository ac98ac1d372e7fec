"""The labels `auto_scaling.*`: when a service gets more or fewer instances. Pure.

A service with one wrong label of these is not scaled at all: a bound that counts as absent could end instances that
are needed.
"""

import re
from collections.abc import Mapping
from functools import partial

from mesh.config.labels.reader import AUTO_SCALING_LABELS, LabelReader
from mesh.config.labels.values import LabelRefusedError, escape_unprintable, parse_flag, quote_value
from mesh.model.auto_scaling import AutoScaling, ScalingBand, ScalingSchedule, ScheduledBounds
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.util.cron import CronError, check_expression, parse_zone

MAX_ENTRIES = 32
"""Entries of a schedule."""
_MAX_PERCENT = 10_000
_MAX_INSTANCES = 1000
_MAX_CONNECTIONS = 1_000_000
_MAX_COOLDOWN = 86_400
_PREFIX = "auto_scaling."
_EXAMPLE = "0 8 * * 1-5 min=4"
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_FIELDS = 5


def parse_auto_scaling(labels: Mapping[str, str], subject: str) -> tuple[AutoScaling | None, tuple[Problem, ...]]:
    """Return how a service with these labels is scaled, None if it is not, and what is wrong with the labels.

    `subject` begins every message (`service web`).
    """
    kept = {key: value for key, value in labels.items() if _PREFIX in key or key.endswith(".global")}
    sheet = LabelReader(kept, subject)
    found = read_auto_scaling(sheet)
    return found, tuple(sheet.problems)


def read_auto_scaling(sheet: LabelReader) -> AutoScaling | None:
    """Return how the service is scaled; None if it is not, or a label is wrong. Problems are added to the sheet."""
    if not any(sheet.has(label) for label in AUTO_SCALING_LABELS):
        return None
    errors = _count_errors(sheet)
    wanted = _read(sheet)
    _check_global(sheet)
    _check_bands(sheet, wanted)
    _check_bounds(sheet, wanted)
    if _count_errors(sheet) > errors:
        return None
    _warn_without_effect(sheet, wanted)
    return wanted if wanted.has_measure or wanted.schedule.entries else None


def check_auto_scaling(sheet: LabelReader) -> None:
    """Add every problem of the labels to the sheet, and which of them nothing measures yet."""
    if read_auto_scaling(sheet) is None:
        return
    for label in (f"{_PREFIX}max_connections", f"{_PREFIX}max_connection_rate"):
        if sheet.has(label):
            remedy = f"write {_PREFIX}max_cpu as well"
            sheet.warn(Code.LABEL_NOT_SUPPORTED, label, "connections are not measured for autoscaling yet", remedy)


def _read(sheet: LabelReader) -> AutoScaling:
    defaults = AutoScaling()
    percent = partial(_parse_whole, low=1, high=_MAX_PERCENT, unit="per cent")
    instances = partial(_parse_whole, low=1, high=_MAX_INSTANCES, unit="instances")
    connections = partial(_parse_whole, low=1, high=_MAX_CONNECTIONS, unit="connections")
    cooldown = partial(_parse_whole, low=0, high=_MAX_COOLDOWN, unit="seconds")
    min_instances = sheet.take(f"{_PREFIX}min_instances", instances, defaults.min_instances)
    return AutoScaling(
        ScalingBand(
            sheet.take(f"{_PREFIX}max_cpu", percent, None),
            sheet.take(f"{_PREFIX}min_cpu", percent, None),
        ),
        ScalingBand(
            sheet.take(f"{_PREFIX}max_memory", percent, None),
            sheet.take(f"{_PREFIX}min_memory", percent, None),
        ),
        sheet.take(f"{_PREFIX}target_cpu", percent, None),
        sheet.take(f"{_PREFIX}max_connections", connections, None),
        sheet.take(f"{_PREFIX}max_connection_rate", connections, None),
        sheet.take(f"{_PREFIX}step", instances, defaults.step),
        min_instances,
        sheet.take(f"{_PREFIX}max_instances", instances, max(defaults.max_instances, min_instances)),
        sheet.take(f"{_PREFIX}cooldown_seconds", cooldown, defaults.cooldown),
        ScalingSchedule(
            sheet.take(f"{_PREFIX}schedule", _parse_schedule, ()),
            sheet.take(f"{_PREFIX}timezone", _parse_timezone, "UTC"),
        ),
    )


def _check_global(sheet: LabelReader) -> None:
    if sheet.has("global") and sheet.take("global", parse_flag, False):
        label = next(label for label in AUTO_SCALING_LABELS if sheet.has(label))
        reason = "a service with the label global has one instance on each worker"
        sheet.refuse(Code.SCALING_LABELS_CONTRADICT, label, reason, "remove global, or the labels auto_scaling.*")


def _check_bands(sheet: LabelReader, wanted: AutoScaling) -> None:
    if sheet.has(f"{_PREFIX}target_cpu"):
        for label in (f"{_PREFIX}max_cpu", f"{_PREFIX}min_cpu"):
            if sheet.has(label):
                reason = f"{_PREFIX}target_cpu says in both directions how many instances there are"
                sheet.refuse(Code.SCALING_LABELS_CONTRADICT, label, reason, f"remove it, or {_PREFIX}target_cpu")
    for name, band in (("cpu", wanted.cpu), ("memory", wanted.memory)):
        if band.maximum is not None and band.minimum is not None and band.minimum >= band.maximum:
            reason = f"{band.minimum} is not below {_PREFIX}max_{name}, which is {band.maximum}"
            remedy = f"write at most {band.maximum - 1}" if band.maximum > 1 else f"raise {_PREFIX}max_{name}"
            sheet.refuse(Code.SCALING_LABELS_CONTRADICT, f"{_PREFIX}min_{name}", reason, remedy)


def _check_bounds(sheet: LabelReader, wanted: AutoScaling) -> None:
    low, high = wanted.min_instances, wanted.max_instances
    if low > high:
        reason = f"{high} is below {_PREFIX}min_instances, which is {low}"
        remedy = f"write {low} to {_MAX_INSTANCES}"
        sheet.refuse(Code.SCALING_LABELS_CONTRADICT, f"{_PREFIX}max_instances", reason, remedy)
        return
    for entry in wanted.schedule.entries:
        least = low if entry.min_instances is None else entry.min_instances
        most = high if entry.max_instances is None else entry.max_instances
        if least > most:
            shown = quote_value(entry.expression)
            reason = f"from {shown} on there are at least {least} and at most {most} instances"
            if entry.max_instances is None:
                remedy = f"write {_PREFIX}max_instances: {least}, or a smaller min="
            else:
                remedy = f"write max={least} or more there"
            sheet.refuse(Code.SCALING_LABELS_CONTRADICT, f"{_PREFIX}schedule", reason, remedy)


def _warn_without_effect(sheet: LabelReader, wanted: AutoScaling) -> None:
    def warn(name: str, reason: str, remedy: str) -> None:
        if sheet.has(_PREFIX + name):
            sheet.warn(Code.LABEL_WITHOUT_EFFECT, _PREFIX + name, reason, remedy)

    if not wanted.schedule.entries:
        warn("timezone", "it has no effect without a schedule", f"add {_PREFIX}schedule: {_EXAMPLE} or remove it")
    if not wanted.has_measure:
        reason, remedy = "no label says at which load instances are added", f"add {_PREFIX}max_cpu: 70 or remove it"
        for name in ("min_cpu", "min_memory", "step"):
            warn(name, reason, remedy)
        if not wanted.schedule.entries:
            for name in ("min_instances", "max_instances", "cooldown_seconds"):
                warn(name, reason, remedy)
    elif wanted.target_cpu is not None and _has_only_target(wanted):
        warn("step", "target_cpu itself says how many instances are added", "remove it")


def _has_only_target(wanted: AutoScaling) -> bool:
    others = (wanted.memory.maximum, wanted.memory.minimum, wanted.max_connections, wanted.max_connection_rate)
    return all(other is None for other in others)


def _count_errors(sheet: LabelReader) -> int:
    return sum(
        problem.severity is Severity.ERROR and f".{_PREFIX}" in (problem.label or "") for problem in sheet.problems
    )


def _parse_whole(text: str, low: int, high: int, unit: str) -> int:
    number = text.removesuffix("%").rstrip() if unit == "per cent" else text
    if not _NUMBER.fullmatch(number) or not low <= int(number) <= high:
        reason = (
            f"{quote_value(text)} is not a number of {unit}"
            if unit != "per cent"
            else f"{quote_value(text)} is no per cent"
        )
        raise LabelRefusedError(Code.SCALING_LABEL, reason, f"write a whole number from {low} to {high}")
    return int(number)


def _parse_timezone(text: str) -> str:
    try:
        parse_zone(text)
    except CronError as error:
        remedy = "write a name such as Europe/Berlin; a host without time zones lacks the package tzdata"
        raise LabelRefusedError(Code.SCALING_SCHEDULE, f"{quote_value(text)}: {error}", remedy) from None
    return text


def _parse_schedule(text: str) -> tuple[ScheduledBounds, ...]:
    """Parse `0 8 * * 1-5 min=4; 0 18 * * 1-5 min=1 max=4`."""
    parts = [part.strip() for part in text.split(";", MAX_ENTRIES + 1)]
    entries = tuple(_parse_entry(part) for part in parts[: MAX_ENTRIES + 1] if part)
    if not entries:
        raise LabelRefusedError(Code.SCALING_SCHEDULE, "it has no entry", f"write one such as {_EXAMPLE}")
    if len(parts) > MAX_ENTRIES:
        reason = f"it has more than {MAX_ENTRIES} entries"
        raise LabelRefusedError(Code.SCALING_SCHEDULE, reason, f"write at most {MAX_ENTRIES}")
    return entries


def _parse_entry(text: str) -> ScheduledBounds:
    words = text.split(maxsplit=_FIELDS + 3)
    expression, bounds = " ".join(words[:_FIELDS]), words[_FIELDS:]
    try:
        check_expression(expression)
    except CronError as error:
        reason = f"{quote_value(text)}: {error}"
        raise LabelRefusedError(Code.SCALING_SCHEDULE, reason, f"write one such as {_EXAMPLE}") from None
    found: dict[str, int] = {}
    for word in bounds:
        name, mark, value = word.partition("=")
        if name not in ("min", "max") or not mark or name in found:
            reason = f"{quote_value(word)} in {quote_value(text)} is not understood"
            raise LabelRefusedError(Code.SCALING_SCHEDULE, reason, f"write min=N, max=N or both, as in {_EXAMPLE}")
        if not _NUMBER.fullmatch(value) or not 1 <= int(value) <= _MAX_INSTANCES:
            reason = f"{quote_value(word)} is no number of instances"
            raise LabelRefusedError(Code.SCALING_SCHEDULE, reason, f"write {name}=1 to {name}={_MAX_INSTANCES}")
        found[name] = int(value)
    if not found:
        reason = f"{quote_value(text)} has no bound"
        raise LabelRefusedError(Code.SCALING_SCHEDULE, reason, f"write {escape_unprintable(expression)} min=N")
    return ScheduledBounds(expression, found.get("min"), found.get("max"))
