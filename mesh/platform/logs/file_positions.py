"""Knows up to where the store has each file, and which file is which through renames, copies and cuts.

A file is known by its device and inode, and is the same one as before if its first line and the bytes before the
position are. So neither a new file that gets the inode of a removed one nor a file that was cut and written again is
taken for the old one. The copy that `copytruncate` of logrotate makes has the same bytes under another inode.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

HEAD, TAIL = 1024, 1024
"""Bytes of the first line, and before the position, that are compared."""
GONE = "gone"
"""In the place of a digest: the file was removed, and one with the same inode is another one."""
CUT, VANISHED = "cut", "vanished"
"""Where the content of a position went: the file has other content, seen by a process; or no process looked."""
MAX_POSITIONS = 20_000
"""Files of a worker whose positions are kept; the oldest ones that no container has any more go first."""

ReadBytes = Callable[[int, int], bytes]
"""Reads from an offset so many bytes of a file; fewer at its end."""


class FileKey(NamedTuple):
    """What the kernel identifies a file by, as long as it exists."""

    device: int
    inode: int


class FilePosition(msgspec.Struct, frozen=True):
    """The position in one file, as it is saved."""

    container: str
    """The ID of the container that it is collected of."""
    device: int
    inode: int
    name: str
    """Its name when it was found first."""
    generation: str
    """16 hexadecimal digits: which content it is, for the identifiers of its documents."""
    head: str
    """The digest of its first line, or of the first bytes of that."""
    head_length: int
    tail: str = ""
    """The digest of the bytes before the offset."""
    offset: int = 0
    """Bytes of it that the store has."""
    size: int = 0
    """Its size when this was saved."""
    cut: int = 0
    """Where the last event of a delivery ended although more might have followed. It ends there if it is read again."""
    epoch: int = 0
    """How many others had the same inode before, as far as is known."""
    is_finished: bool = False
    """Whether it was rotated or removed, and is read to its end."""
    modified: int = 0
    """When the file was changed last as this was saved, in nanoseconds since 1970; 0 if that is not known."""
    sought: str = ""
    """`CUT` or `VANISHED` if this content is not in the file any more, and its copy was not found yet."""

    @property
    def key(self) -> FileKey:
        """The file that it is about."""
        return FileKey(self.device, self.inode)


def first_position(
    read: ReadBytes, key: FileKey, found: tuple[str, str], epoch: int, *, final: bool
) -> FilePosition | None:
    """Return the position at the beginning of a file; None before its first line is complete. `found` has the ID of the
    container and the name. Raises `OSError`.
    """
    first = read(0, HEAD)
    feed = first.find(b"\n") + 1
    if not feed and len(first) < HEAD and not (final and first):
        return None
    head = first[: feed or HEAD]
    container, name = found[0], name_as_text(found[1])
    identity = f"{container}\0{key.device}\0{key.inode}\0{epoch}\0".encode() + head
    return FilePosition(container, *key, name, _digest(identity), _digest(head), len(head), epoch=epoch)


def is_at(read: ReadBytes, position: FilePosition) -> bool:
    """Return whether a file has the bytes that the store has of this position. Raises `OSError`."""
    is_same = position.tail != GONE and is_headed(read, position)
    return is_same and _tail_of(read, position.offset) == position.tail


def is_headed(read: ReadBytes, position: FilePosition) -> bool:
    """Return whether a file begins with the first line of this position. Raises `OSError`."""
    head = read(0, position.head_length)
    return len(head) == position.head_length and _digest(head) == position.head


def moved(read: ReadBytes, position: FilePosition, offset: int, state: tuple[int, int]) -> FilePosition:
    """Return the position further on in the same file. `state` has its size and when it was changed. Raises
    `OSError`.
    """
    size, modified = state
    cut, tail = position.cut if position.cut > offset else 0, _tail_of(read, offset)
    return msgspec.structs.replace(position, offset=offset, tail=tail, size=size, modified=modified, cut=cut)


def is_prefix(copy: ReadBytes, size: int, original: ReadBytes) -> bool:
    """Return whether a file of this size has the first bytes of another one, as far as three blocks say. Raises
    `OSError`.
    """
    starts = {0, max(0, size // 2 - HEAD), max(0, size - HEAD)}
    return size > 0 and all(copy(at, min(HEAD, size - at)) == original(at, min(HEAD, size - at)) for at in starts)


def name_as_text(name: str) -> str:
    """Return the name of a file as it can be saved: one that is no UTF-8 with escapes in it."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def is_rotated_name(name: str, original: str) -> bool:
    """Return whether a rotation may have made this name of the original one: `a.log.1`, `a.log-2026.gz`, `a-1.log`."""
    name, original = name_as_text(name), name_as_text(original)
    if name.startswith(original):
        return len(name) > len(original)
    stem, dot, extension = original.rpartition(".")
    rest = name[len(stem) :]
    return bool(dot) and name.startswith(stem) and f".{extension}" in rest and rest[:1] in "._-" and rest[1:2].isdigit()


def _tail_of(read: ReadBytes, offset: int) -> str:
    start = max(0, offset - TAIL)
    data = read(start, offset - start) if offset else b""
    return _digest(data) if data and len(data) == offset - start else ""


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


class LogFilePositions:
    """Keeps the positions of all files of a worker. A file that several containers have is collected of one."""

    def __init__(self, saved: Iterable[FilePosition] = ()) -> None:
        """`saved` are those of an earlier process."""
        each_saved = tuple(saved)
        self._positions = {each.key: each for each in each_saved if not each.sought}
        self._sought = {each.generation: each for each in each_saved if each.sought}
        self._owners: dict[FileKey, str] = {}
        self.is_changed = False
        """Whether they differ from what was saved last. Who saves them resets it."""

    def saved(self) -> tuple[FilePosition, ...]:
        """Return all positions. Those that are sought come first: older versions take the last one of a file."""
        return *self._sought.values(), *self._positions.values()

    def claim(self, key: FileKey, container: str) -> bool:
        """Have a file for a container, and return whether no other one has it."""
        return self._owners.setdefault(key, container) == container

    def is_of_another(self, key: FileKey, container: str) -> bool:
        """Return whether another container has the file now."""
        return self._owners.get(key, container) != container

    def release(self, key: FileKey) -> None:
        """Give the file up; its position stays."""
        self._owners.pop(key, None)

    def find(self, key: FileKey) -> FilePosition | None:
        """Return the position of a file; None if it is new."""
        return self._positions.get(key)

    def of(self, container: str) -> tuple[FilePosition, ...]:
        """Return the positions in the files of a container."""
        return tuple(each for each in self._positions.values() if each.container == container)

    def sought_of(self, container: str) -> tuple[FilePosition, ...]:
        """Return the positions in content of a container whose copy was not found yet."""
        return tuple(each for each in self._sought.values() if each.container == container)

    def seek(self, position: FilePosition) -> None:
        """Keep the position in content that is not in its file any more, until it is found or lost."""
        self._sought[position.generation] = position
        self.is_changed = True

    def end_seeking(self, generation: str) -> None:
        """Forget content that was sought."""
        self.is_changed |= self._sought.pop(generation, None) is not None

    def put(self, position: FilePosition) -> None:
        """Replace the position of a file."""
        self._positions.pop(position.key, None)
        self._positions[position.key] = position
        self.is_changed = True
        if len(self._positions) > MAX_POSITIONS:
            spare = next((key for key in self._positions if key not in self._owners), None)
            if spare is not None:
                del self._positions[spare]

    def drop(self, key: FileKey) -> None:
        """Forget a file."""
        self.is_changed |= self._positions.pop(key, None) is not None
        self._owners.pop(key, None)
