"""Standard output and standard error of the verbs."""

import argparse
import sys
from collections.abc import Iterable

from mesh.model.errors import CodedText


def print_json(value: object) -> None:
    """One document, indented, that ends the output."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def report_failure(options: argparse.Namespace, errors: Iterable[CodedText]) -> int:
    """Say what is wrong, a line for each error, where the reader looks for it; the exit status."""
    errors = tuple(errors)
    if getattr(options, "json", False):
        from mesh.cli.documents import FailureDocument

        print_json(
            FailureDocument("\n".join(error.text for error in errors), tuple(str(error.code) for error in errors))
        )
    else:
        for error in errors:
            complain(error.text, str(error.code))
    return 1


def complain(error: str, code: str | None) -> None:
    """Write an error to standard error; `code` comes after its first line, None: it has none."""
    first, *more = error.splitlines() or [""]
    for line in (first if code is None else f"{first} [{code}]", *more):
        print(f"vipmesh: {line}", file=sys.stderr)
