"""Prints results to standard output and messages to standard error."""

import argparse
import sys
from collections.abc import Iterable

from mesh.model.errors import CodedText


def print_json(value: object) -> None:
    """Print a value as one indented JSON document."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    print("".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in text))


def printable(text: str) -> str:
    """Return text for a terminal, whatever its source: control characters escaped, except for line ends.

    A terminal obeys what a name, a label or a server's answer contains: it would hide lines, or type commands.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def report_failure(options: argparse.Namespace, errors: Iterable[CodedText]) -> int:
    """Report errors, one line each, as text or as a JSON document, and return exit status 1."""
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
    """Print an error to standard error. `code` follows its first line; None for an error without one."""
    first, *more = error.splitlines() or [""]
    for line in (first if code is None else f"{first} [{code}]", *more):
        print(f"vipmesh: {printable(line)}", file=sys.stderr)
