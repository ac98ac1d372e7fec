"""`vipmesh completion SHELL`: prints a static script that completes verbs, options and files."""

import argparse
from pathlib import Path

import shtab

from mesh.cli.parser import build_parser


def completion(options: argparse.Namespace) -> int:
    """Run `vipmesh completion`: print the script. Exit status 0."""
    whole = build_parser()
    _complete_files(whole)
    print(shtab.complete(whole, options.shell))
    return 0


def _complete_files(of: argparse.ArgumentParser) -> None:
    """Mark the arguments that are files, also those of every verb."""
    for action in of._actions:  # noqa: SLF001 (argparse offers no other way)
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for verb in action.choices.values():
                _complete_files(verb)
