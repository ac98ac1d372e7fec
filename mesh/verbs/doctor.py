"""`vipmesh doctor`: what of this host stands in the daemon's way, and the line that mends it."""

import argparse
import asyncio
from dataclasses import dataclass

from mesh.doctor import Finding, Level, judge
from mesh.examine import examine, wanted
from mesh.verbs.configured import settings
from mesh.verbs.tell import as_json


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What programs get."""

    errors: int
    warnings: int
    findings: tuple[Finding, ...]
    """In the order in which a start would meet them; those that are well, too."""


def doctor(options: argparse.Namespace) -> int:
    """Exit status 1: something keeps the daemon from starting or forwarding."""
    asked = wanted(settings(options.config))
    findings = judge(asyncio.run(examine(asked)), asked)
    levels = [finding.level for finding in findings]
    errors, warnings = levels.count(Level.ERROR), levels.count(Level.WARNING)
    if options.json:
        as_json(Diagnosis(errors, warnings, findings))
    else:
        print(*findings, f"{errors} errors, {warnings} warnings", sep="\n")
    return 1 if errors else 0
