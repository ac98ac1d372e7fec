"""The labels that say how a new release takes the place of the old one by shares of new connections."""

import re
from functools import partial
from itertools import pairwise

from mesh.config.labels.reader import RELEASE_CHECK_LABELS, LabelReader
from mesh.config.labels.release_checks import (
    MAX_FAILURES,
    MIN_CONNECTIONS,
    parse_max_failures,
    parse_min_connections,
)
from mesh.config.labels.values import LabelRefusedError, parse_number, parse_strategy, quote_value
from mesh.model.codes import Code
from mesh.model.release_rules import DEADLINE, DEFAULT_STEPS, MAX_STEP_SECONDS, MAX_STEPS
from mesh.model.service import ReleaseRules, ReleaseStep, ReleaseStrategy

STRATEGY, STEPS, RELEASE_DEADLINE = "release.strategy", "release.steps", "release.deadline_seconds"

_LONGEST = 1000
_STEP = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?) ?% ?, ?(hold|([0-9]{1,7}) ?([smhd]))", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXAMPLE = "write shares that grow, each with a time or hold, such as 1%,5m;10%,10m;50%,hold"


def parse_steps(text: str) -> tuple[ReleaseStep, ...]:
    """Parse `1%,5m;10%,10m;50%,hold`: shares that grow, each with the time that it takes at least."""
    parts = text.split(";")
    if len(text) > _LONGEST or len(parts) > MAX_STEPS:
        raise LabelRefusedError(Code.RELEASE_STEPS, f"more than {MAX_STEPS} steps", "write fewer")
    steps = tuple(map(_step, parts))
    if any(after.points <= before.points for before, after in pairwise(steps)):
        raise LabelRefusedError(Code.RELEASE_STEPS, f"the shares of {quote_value(text)} do not grow", _EXAMPLE)
    return steps


def _step(text: str) -> ReleaseStep:
    match = _STEP.fullmatch(text.strip())
    if match is None:
        raise LabelRefusedError(Code.RELEASE_STEPS, f"{quote_value(text)} is no step", _EXAMPLE)
    points = round(float(match[1]) * 100)
    seconds = 0 if match[3] is None else int(match[3]) * _UNITS[match[4]]
    if points > 10_000 or seconds > MAX_STEP_SECONDS:
        remedy = "write a share up to 100% and a time up to 7d"
        raise LabelRefusedError(Code.RELEASE_STEPS, f"{quote_value(text)} is out of range", remedy)
    return ReleaseStep(points, seconds, match[2] == "hold")


def read_release_rules(sheet: LabelReader) -> ReleaseRules | None:
    """Return how the release of a container takes the place of another; None if it does not do so by shares."""
    written = sheet.take(STRATEGY, parse_strategy, "")
    none: tuple[ReleaseStep, ...] = ()
    steps = sheet.take(STEPS, parse_steps, none)
    deadline = sheet.take(RELEASE_DEADLINE, partial(parse_number, low=1, high=MAX_STEP_SECONDS), DEADLINE)
    failures = sheet.take(MAX_FAILURES, parse_max_failures, None)
    connections = sheet.take(MIN_CONNECTIONS, parse_min_connections, None)
    if written not in {*ReleaseStrategy}:
        for name in (STEPS, RELEASE_DEADLINE):
            if sheet.has(name):
                remedy = f"set {STRATEGY} to canary, progressive or blue-green, or remove it"
                sheet.warn(Code.LABEL_WITHOUT_EFFECT, name, "only strategies by shares have steps", remedy)
        return None
    strategy = ReleaseStrategy(written)
    return ReleaseRules(
        strategy,
        steps or DEFAULT_STEPS[strategy],
        deadline,
        failures,
        connections,
        tuple(name for name in RELEASE_CHECK_LABELS if sheet.has(name)),
    )
