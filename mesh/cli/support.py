"""`vipmesh support`: writes one archive with what is needed to find a fault, without secrets.

It shows first what the archive will have, and asks. What cannot be had, such as the status of a daemon that is dead, is
listed in the archive with the reason.
"""

import argparse
import asyncio
import io
import os
import socket
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from mesh.cli.documents import SupportDocument, SupportPartDocument
from mesh.cli.output import print_json, printable, report_failure
from mesh.cli.settings import load_settings
from mesh.cli.support_parts import CollectedPart, SupportPart, collect_part, known_secrets, support_parts
from mesh.config.settings import Settings, parse_settings
from mesh.model.codes import Code
from mesh.model.errors import CodedText, SettingsError

_FOLDER = "vipmesh-support"
"""The directory in the archive."""
_CONTENTS = "CONTENTS.txt"
"""The file in the archive that lists the others, and what is missing."""


def support(options: argparse.Namespace) -> int:
    """Run `vipmesh support`. Exit status 1 if nothing was written."""
    try:
        settings = load_settings(options.config)
        parts = support_parts(options, settings)
    except SettingsError as error:
        # They may be the fault. The rest is collected as for a worker without a settings file.
        settings = parse_settings("", {}, hostname=socket.gethostname())
        parts = support_parts(options, settings, error)
    file = options.output or Path(f"vipmesh-support-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%S')}.tar.gz")
    if not options.yes and (refusal := _ask(parts, file, options)) is not None:
        return report_failure(options, [CodedText(refusal, Code.SUPPORT_NOT_WRITTEN)])
    collected = asyncio.run(_collect(parts, settings))
    try:
        _write(file, collected)
    except OSError as error:
        text = f"{file} cannot be written: {error.strerror or error}; name another one with --output"
        return report_failure(options, [CodedText(text, Code.SUPPORT_NOT_WRITTEN)])
    if options.json:
        told = tuple(SupportPartDocument(part.name, len(part.text), part.missing) for part in collected)
        print_json(SupportDocument(str(file), told))
    else:
        print(*(printable(line) for line in _contents(collected).splitlines()), sep="\n")
        print(printable(f"{file} is written; look into it before you send it"))
    return 0


def _ask(parts: Sequence[SupportPart], file: Path, options: argparse.Namespace) -> str | None:
    """Show what will be written, and ask. Returns why it must not be written; None if it may be."""
    if options.json:
        return "nothing was written, since --json cannot ask; add --yes"
    print(printable(f"{file} will have, without passwords, tokens and the values of probes:"))
    width = max(len(part.name) for part in parts)
    print(*(f"  {part.name:<{width}}  {part.holds}" for part in parts), sep="\n")
    try:
        answer = input("Write it? [y/N] ")
    except EOFError:
        print()
        return "nothing was written, since nobody could be asked; add --yes"
    return None if answer.strip().lower() in ("y", "yes") else "nothing was written; answer y to write it"


async def _collect(parts: Sequence[SupportPart], settings: Settings) -> list[CollectedPart]:
    secrets = await known_secrets(settings)
    # One after the other: the listings of the kernel and of the daemon shall not slow down one another.
    return [await collect_part(part, secrets) for part in parts]


def _contents(collected: Sequence[CollectedPart]) -> str:
    """Return the list of the parts, with what is missing and why."""
    lines = []
    for part in collected:
        state = "missing" if not part.text and part.missing else f"{len(part.text)} bytes"
        lines.append(f"{part.name}: {state}" + (f": {part.missing}" if part.missing else ""))
    return "\n".join(lines) + "\n"


def _write(file: Path, collected: Sequence[CollectedPart]) -> None:
    """Write the archive, for its owner only.

    Raises `OSError`, also if the file exists; then there is no file of ours.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, text in (
                (_CONTENTS, _contents(collected).encode(errors="replace")),
                *((part.name, part.text) for part in collected if part.text),
            ):
                entry = tarfile.TarInfo(f"{_FOLDER}/{name}")
                entry.size, entry.mtime, entry.mode = len(text), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(text))
    except OSError:
        file.unlink()
        raise
