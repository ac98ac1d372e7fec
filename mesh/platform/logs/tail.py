"""Follows the log of one container through its rotation.

A position is a file and an offset. Each file is held open from the moment it appears until all of it is delivered, so
that neither a rotation nor the removal of the container takes what is not read yet. What was removed before it could be
opened, or is beyond the bound of files held, is lost, and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.platform.logs.generations import LogGeneration, open_generations
from mesh.platform.logs.json_file import LogPosition, StoredLine
from mesh.platform.logs.plain_lines import LogBlock

MAX_REMOVED = 8
"""Files without a name that are held: their space on the disk is free only when they are closed."""
LONGEST_LINE = 512 * 1024
"""Bytes that are read for one line of the file. The driver's have 16 KiB of text, at most six bytes for each."""


@dataclass(slots=True)
class LostLines:
    """What rotation took before it was read."""

    occasions: int = 0
    """How often files were, or may have been, removed unread."""
    known_bytes: int = 0
    """Bytes of them whose number is known."""


class ContainerTail:
    """Reads one log from its position on. `advance` moves the position, once a store has what was read."""

    def __init__(self, path: Path, position: LogPosition | None) -> None:
        """`position` is that of an earlier process; None: from the beginning."""
        self.path = path
        self.position = position
        self.lost = LostLines()
        self._held: list[LogGeneration] = []
        """The oldest first. The first one is that of the position."""

    def follow(self) -> None:
        """Open the files that a rotation has made. Cheap if there are none. Raises `OSError` if the log cannot be
        opened; what is open can be read all the same.
        """
        if self._held and self._is_newest(self._held[-1]):
            self._check_cut()
            return
        found: dict[str, LogGeneration] = {}
        try:
            for generation in open_generations(self.path):
                if generation.fingerprint in found:
                    generation.close()
                else:
                    found[generation.fingerprint] = generation
        except OSError:
            for generation in found.values():
                generation.close()
            raise
        self._join(list(reversed(found.values())))
        self._bound_removed()

    def read(self, limit: int) -> tuple[list[StoredLine], bool]:
        """Return whole lines that follow the position, of about `limit` bytes, and whether these are all that there
        are. Raises `OSError`.
        """
        blocks, is_all = self.read_blocks(limit)
        return lines_of(blocks), is_all

    def read_blocks(self, limit: int) -> tuple[list[LogBlock], bool]:
        """Return the same as blocks, none of them empty."""
        blocks: list[LogBlock] = []
        left = limit
        for index, generation in enumerate(self._held):
            offset = self.position.offset if self.position and not index else 0
            data = generation.read(offset, left)
            is_whole = len(data) < left
            end = data.rfind(b"\n") + 1
            if is_whole and generation is not self._held[-1]:
                end = len(data)  # nothing is written to this file any more
            elif not (is_whole or end or blocks) and limit >= LONGEST_LINE:
                end = len(data)  # no line of the driver is so long: in pieces
            if end:
                blocks.append(LogBlock(generation.fingerprint, offset, data[:end]))
            left -= len(data)
            if not is_whole:
                break
        else:
            is_whole = True
        # It is compared after it was read: so these bytes follow the ones that the store has.
        if blocks and blocks[-1].generation == self._held[-1].fingerprint and self._check_cut():
            return [], True
        return blocks, is_whole

    def advance(self, position: LogPosition) -> None:
        """Move the position to where the store has everything before it, and close files that lie before it."""
        while self._held and self._held[0].fingerprint != position.generation:
            self._held.pop(0).close()
        self.position = position
        while len(self._held) > 1 and self._is_read(self._held[0], self.position.offset):
            self._held.pop(0).close()
            self.position = LogPosition(self._held[0].fingerprint, 0)

    def skip(self) -> None:
        """Give up the oldest file, whose data cannot be read, and count it as lost."""
        if self._held:
            self._drop_oldest()

    def unread(self) -> int:
        """Return how many bytes follow the position, of compressed files none."""
        offset = self.position.offset if self.position else 0
        return sum(max(0, each.unread(0 if index else offset)) for index, each in enumerate(self._held))

    def is_gone(self) -> bool:
        """Return whether the log has no file any more, as after the removal of its container."""
        try:
            self.path.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def has_more(self) -> bool:
        """Return whether there may be something to read. It looks at sizes alone."""
        offset = self.position.offset if self.position else 0
        return any(each.is_compressed or each.unread(0 if i else offset) > 0 for i, each in enumerate(self._held))

    def quiet_path(self) -> Path | None:
        """Return the file whose next change is the next news of the log; None if there are news, or may be."""
        try:
            if not self._held:
                # The container has not written anything yet.
                is_empty = self.position is None and self.path.stat(follow_symlinks=False).st_size == 0
                return self.path if is_empty else None
            newest = self._held[-1]
            offset = self.position.offset if self.position else 0
            is_read = len(self._held) == 1 and not newest.is_compressed and newest.unread(offset) == 0
            return self.path if is_read and self._is_newest(newest) else None
        except OSError:
            return None

    def take_lost(self) -> LostLines:
        """Return what was lost since the last call."""
        lost, self.lost = self.lost, LostLines()
        return lost

    def close(self) -> None:
        """Close all files."""
        while self._held:
            self._held.pop().close()

    def _is_newest(self, generation: LogGeneration) -> bool:
        try:
            return not generation.is_removed() and self.path.stat(follow_symlinks=False).st_ino == generation.inode
        except OSError:
            return False

    def _check_cut(self) -> bool:
        """Begin again with a file that was cut (`truncate -s 0`), and return whether it was: what it had is gone, and
        what it has is new, also if that is more by now. Raises `OSError`.
        """
        newest = self._held[-1]
        offset = self.position.offset if self.position and len(self._held) == 1 else 0
        unread = newest.unread(offset)
        if unread == 0 or (unread > 0 and not newest.has_other_content()):
            return False
        self.lost.occasions += 1
        self._held.pop().close()
        if not self._held:
            self.position = None
        return True

    def _join(self, found: Sequence[LogGeneration]) -> None:
        """Add the files that are not held yet, of which `found` has the oldest first."""
        by_name = {each.fingerprint: each for each in found}
        for index, held in enumerate(self._held):
            if held.is_removed() and held.fingerprint in by_name:
                # It was compressed: the copy has a name, so the space of the original need not be held.
                self._held[index] = by_name.pop(held.fingerprint)
                held.close()
        begin = self._first_new([each.fingerprint for each in found])
        ours = {each.fingerprint for each in self._held}
        for generation in found[begin:]:
            if generation.fingerprint not in ours:
                self._held.append(generation)
        kept = set(map(id, self._held))
        for generation in found:
            if id(generation) not in kept:
                generation.close()
        if self._held and self.position is None:
            self.position = LogPosition(self._held[0].fingerprint, 0)

    def _first_new(self, order: Sequence[str]) -> int:
        """Return the index of the first file that is not held yet, and count a gap before it as lost."""
        known = self._held[-1].fingerprint if self._held else self.position.generation if self.position else None
        if known in order:
            return order.index(known) + bool(self._held)
        if known is not None and order:
            self.lost.occasions += 1
            if not self._held:
                self.position = None
        return 0

    def _bound_removed(self) -> None:
        # The newest file is no rotated one, whether it has a name or not.
        while sum(each.is_removed() for each in self._held[:-1]) > MAX_REMOVED:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = self._held.pop(0)
        self.lost.occasions += 1
        self.lost.known_bytes += max(0, oldest.unread(self.position.offset if self.position else 0))
        oldest.close()
        self.position = LogPosition(self._held[0].fingerprint, 0) if self._held else None

    @staticmethod
    def _is_read(generation: LogGeneration, offset: int) -> bool:
        try:
            return not generation.read(offset, 1)
        except OSError:
            return False  # `read` tells why


def lines_of(blocks: Sequence[LogBlock]) -> list[StoredLine]:
    """Return the lines of blocks."""
    return [line for each in blocks for line in split_lines(each.data, each.generation, each.offset)]


def split_lines(data: bytes, generation: str, offset: int) -> list[StoredLine]:
    """Return the lines of a part of a file, which begins at `offset`."""
    lines = []
    for line in data.splitlines(keepends=True) if b"\r" not in data else _at_feeds(data):
        start, offset = offset, offset + len(line)
        lines.append(StoredLine(LogPosition(generation, start), LogPosition(generation, offset), line.rstrip(b"\n")))
    return lines


def _at_feeds(data: bytes) -> list[bytes]:
    """Split at line feeds alone, which `bytes.splitlines` does not."""
    parts = [part + b"\n" for part in data.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return [part for part in parts if part]
