"""Standard output and standard error of the verbs."""

import argparse
import sys


def as_json(value: object) -> None:
    """One document, indented, that ends the output."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def failed(options: argparse.Namespace, error: str) -> int:
    """Say what is wrong, where the reader looks for it; the exit status."""
    if getattr(options, "json", False):
        from mesh.verbs.answers import Failed

        as_json(Failed(error))
    else:
        print(f"vipmesh: {error}", file=sys.stderr)
    return 1
