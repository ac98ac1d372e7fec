"""`vipmesh check`: reports every problem of compose files before anything runs."""

import argparse
import os

from mesh.cli.lint import check_files
from mesh.cli.output import print_json, printable
from mesh.cli.settings import load_settings
from mesh.config.name_policy import name_policy
from mesh.config.secrets import secret_files, secrets_in_clear
from mesh.model.problem import Severity
from mesh.sources.compose.limits import compose_limits
from mesh.util.regular_file import world_readable


def check(options: argparse.Namespace) -> int:
    """Run `vipmesh check`. Exit status 1 if there is an error; warnings alone do not count."""
    known = load_settings(options.config)
    readable = world_readable(secret_files(known))
    problems = [
        *secrets_in_clear(known),
        *(problem for file, problem in secret_files(known).items() if file in readable),
        *check_files(
            options.files,
            os.environ,
            pool=known.vip_pool,
            policy=name_policy(known),
            limits=compose_limits(known),
            settings=known,
        ),
    ]
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if options.json:
        from mesh.cli.documents import CheckDocument, ProblemDocument

        found = tuple(
            ProblemDocument(p.severity, p.where, p.subject, p.label, p.reason, p.remedy, str(p.code)) for p in problems
        )
        print_json(CheckDocument(tuple(map(str, options.files)), errors, len(problems) - errors, found))
    else:
        lines = (printable(problem.coded.line) for problem in problems)
        print(*lines, f"{len(options.files)} files: {errors} errors, {len(problems) - errors} warnings", sep="\n")
    return 1 if errors else 0
