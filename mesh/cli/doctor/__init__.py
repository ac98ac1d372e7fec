"""`vipmesh doctor`: what of this host stands in the daemon's way, and the line that mends it."""

import argparse
import asyncio
from dataclasses import dataclass

from mesh.cli.doctor.collect import examine, wanted
from mesh.cli.doctor.rules import Level, judge
from mesh.cli.output import as_json
from mesh.cli.settings import settings


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was looked at."""

    level: str
    """`error`, `warning`, `hint` or `ok`."""
    about: str
    """`data plane`, `capabilities`, `kernel settings`, `dns port`, `vip pool`, `resolver`, `clock`, ..."""
    found: str
    mend: str | None
    """The line that mends it: a command, or what to write where."""
    code: str | None
    """Where `docs/errors.md` says more; null: it is well."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What programs get."""

    errors: int
    warnings: int
    findings: tuple[Found, ...]
    """In the order in which a start would meet them; those that are well, too."""


def doctor(options: argparse.Namespace) -> int:
    """Exit status 1: something keeps the daemon from starting or forwarding."""
    asked = wanted(settings(options.config))
    findings = judge(asyncio.run(examine(asked)), asked)
    levels = [finding.level for finding in findings]
    errors, warnings = levels.count(Level.ERROR), levels.count(Level.WARNING)
    if options.json:
        found = tuple(Found(f.level, f.about, f.found, f.mend, f.code and f.code.value) for f in findings)
        as_json(Diagnosis(errors, warnings, found))
    else:
        print(*findings, f"{errors} errors, {warnings} warnings", sep="\n")
    return 1 if errors else 0
