"""`vipmesh doctor`: what of this host stands in the daemon's way, and the line that mends it."""

import argparse
import asyncio
from dataclasses import dataclass

from mesh.cli.doctor.collect import doctor_input, examine_host
from mesh.cli.doctor.rules import FindingLevel, host_findings
from mesh.cli.output import print_json
from mesh.cli.settings import load_settings


@dataclass(frozen=True, slots=True)
class FindingDocument:
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
class DiagnosisDocument:
    """What programs get."""

    errors: int
    warnings: int
    findings: tuple[FindingDocument, ...]
    """In the order in which a start would meet them; those that are well, too."""


def doctor(options: argparse.Namespace) -> int:
    """Exit status 1: something keeps the daemon from starting or forwarding."""
    asked = doctor_input(load_settings(options.config))
    findings = host_findings(asyncio.run(examine_host(asked)), asked)
    levels = [finding.level for finding in findings]
    errors, warnings = levels.count(FindingLevel.ERROR), levels.count(FindingLevel.WARNING)
    if options.json:
        found = tuple(FindingDocument(f.level, f.about, f.found, f.mend, f.code and f.code.value) for f in findings)
        print_json(DiagnosisDocument(errors, warnings, found))
    else:
        print(*findings, f"{errors} errors, {warnings} warnings", sep="\n")
    return 1 if errors else 0
