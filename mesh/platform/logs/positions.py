"""Keeps up to where the store has each log: one file, replaced as a whole.

A crash leaves the old file or the new one.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mesh.platform.logs.file_positions import FilePosition
from mesh.platform.logs.json_file import LogPosition
from mesh.store.private_file import create_private
from mesh.util.regular_file import read_regular_file

MAX_BYTES = 16 << 20
"""The most bytes of the file: about 100,000 containers."""
_VERSION = 1


class SavedPosition(msgspec.Struct, frozen=True):
    """The position of one container, as it is in the file."""

    generation: str
    offset: int


class SavedPositions(msgspec.Struct, frozen=True):
    """The file."""

    version: int
    positions: Mapping[str, SavedPosition]
    """By the ID of the container."""
    files: tuple[FilePosition, ...] = ()
    """Those of files inside of containers. Older versions neither read nor keep them."""


class DamagedPositionsError(Exception):
    """The file was damaged and has been set aside. The message says what is wrong with it."""


class PositionFile:
    """Reads and replaces the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.files: tuple[FilePosition, ...] = ()
        """The positions of files inside of containers, once the file is loaded."""

    def load(self) -> dict[str, LogPosition]:
        """Return the positions by container ID, none if there is no file. `files` has those of files then.

        Raises `DamagedPositionsError` once the file is renamed to `*.damaged`, and `OSError`.
        """
        try:
            data = read_regular_file(self._path, MAX_BYTES)
        except FileNotFoundError:
            return {}
        try:
            saved = msgspec.json.decode(data, type=SavedPositions)
            offsets = [each.offset for each in saved.positions.values()] + [each.offset for each in saved.files]
            if saved.version != _VERSION or min(offsets, default=0) < 0:
                raise ValueError("its version or an offset is unknown")
        except (ValueError, RecursionError) as error:
            self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
            raise DamagedPositionsError(str(error)) from error
        self.files = saved.files
        return {id: LogPosition(each.generation, each.offset) for id, each in saved.positions.items()}

    def save(self, positions: Mapping[str, LogPosition], files: Sequence[FilePosition] = ()) -> None:
        """Replace the file; when it returns, the new one is on the disk. Raises `OSError`: then the old one stays."""
        saved = SavedPositions(_VERSION, {id: SavedPosition(*each) for id, each in positions.items()}, tuple(files))
        beside = self._path.with_name(f"{self._path.name}.new")
        descriptor = create_private(beside)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(saved))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # the new name, too
        finally:
            os.close(directory)
