"""Standard output and standard error of the verbs."""

import argparse
import sys


def as_json(value: object) -> None:
    """One document, indented, that ends the output."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def failed(options: argparse.Namespace, error: str, *, among: str = "VM", default: str | None = None) -> int:
    """Say what is wrong, a line for each thing, where the reader looks for it; the exit status.

    `among`: the beginning of the codes that come into question; `default`: the code if none of them fits.
    """
    from mesh.model.codes import code_of, coded

    if getattr(options, "json", False):
        from mesh.cli.documents import Failed

        codes = [code_of(line, among) or default for line in error.splitlines()]
        as_json(Failed(error, tuple(code for code in codes if code is not None)))
    else:
        for line in error.splitlines():
            print(f"vipmesh: {coded(line, among, default)}", file=sys.stderr)
    return 1
