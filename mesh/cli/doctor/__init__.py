"""`vipmesh doctor`: checks whether the daemon can run on this host, and shows how to fix what is wrong."""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.cli.doctor.collect import doctor_input, examine_host
from mesh.cli.doctor.rules import Finding, FindingLevel, host_findings
from mesh.cli.output import print_json, printable
from mesh.cli.settings import load_settings
from mesh.config.settings import Settings


@dataclass(frozen=True, slots=True)
class FindingDocument:
    """The result of one check of the host."""

    level: str
    """`error`, `warning`, `hint` or `ok`."""
    about: str
    """`data plane`, `capabilities`, `kernel settings`, `dns port`, `vip pool`, `resolver`, `clock`, ..."""
    found: str
    """The state that was found."""
    mend: str | None
    """How to fix it: a command, or what to write where; None if there is nothing to do."""
    code: str | None
    """The code of the finding, which `docs/errors.md` explains; null for `ok`."""


@dataclass(frozen=True, slots=True)
class DiagnosisDocument:
    """The document of `vipmesh doctor --json`."""

    errors: int
    warnings: int
    findings: tuple[FindingDocument, ...]
    """Every finding, also those that are `ok`, in the order in which a start of the daemon would meet them."""


def doctor(options: argparse.Namespace) -> int:
    """Run `vipmesh doctor`. Exit status 1 if something keeps the daemon from starting or forwarding."""
    findings = asyncio.run(_findings(load_settings(options.config)))
    document = _document(findings)
    errors, warnings = document.errors, document.warnings
    if options.json:
        print_json(document)
    else:
        print(
            *(printable(str(finding)) for finding in findings),
            f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}",
            sep="\n",
        )
    return 1 if errors else 0


async def diagnose(settings: Settings) -> DiagnosisDocument:
    """Return what `vipmesh doctor --json` prints. Raises `OSError`."""
    return _document(await _findings(settings))


async def _findings(settings: Settings) -> Sequence[Finding]:
    asked = doctor_input(settings)
    return host_findings(await examine_host(asked), asked)


def _document(findings: Sequence[Finding]) -> DiagnosisDocument:
    levels = [finding.level for finding in findings]
    found = tuple(FindingDocument(f.level, f.about, f.found, f.mend, f.code and f.code.value) for f in findings)
    return DiagnosisDocument(levels.count(FindingLevel.ERROR), levels.count(FindingLevel.WARNING), found)


def _counted(number: int, noun: str) -> str:
    """Return `1 error`, `2 errors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
