"""The files of one container that are followed: new ones, renamed ones, copies, cut ones, removed ones.

Rotation is not announced by anybody, so it is seen in the files: a rename keeps the inode; `copytruncate` of logrotate
leaves a copy, recognised by its bytes, and a file that is shorter or has other bytes. What was read of the original is
not read of the copy, and what was not is.
"""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from mesh.config.labels.log_files import is_compressed_name
from mesh.platform.logs.file_positions import (
    CUT,
    GONE,
    VANISHED,
    FileKey,
    FilePosition,
    LogFilePositions,
    is_at,
    is_headed,
    is_prefix,
    is_rotated_name,
    moved,
    name_as_text,
)
from mesh.platform.logs.file_scan import LogFileEntry, LogFileScan, scan_sources
from mesh.platform.logs.file_tail import FileTail
from mesh.platform.logs.generations import LogGeneration
from mesh.platform.logs.locate import LogFileSource
from mesh.platform.logs.tail import MAX_REMOVED, LostLines

MAX_FILES = 128
"""Files of one container that are open at once."""
SHORTEST_SCAN, LONGEST_SCAN = 0.5, 5.0
"""Seconds between two looks at names: at least, and at most although no directory has changed."""
QUIET = 5.0
"""Seconds without a change after which a file that is read makes room for another one."""
REMOVED_QUIET = 60.0
"""Seconds without a change after which a file without a name is closed: a program may write to it for a while."""
COPY_PATIENCE = 10.0
"""Seconds in which what a rotation took may appear as a copy."""
MAX_SOUGHT = 256
"""Contents of one container whose copies are looked for at once."""
MAX_UNPACKED = 64 << 20
"""Bytes of a compressed file that are passed over to the position; more would delay others."""


@dataclass(slots=True)
class _Orphan:
    """Content whose file is not there any more, or has other content."""

    position: FilePosition
    size: int
    """Its last known size."""
    since: float
    is_vanished: bool = False
    """Whether no process looked when it went, so that more may have been written."""


class LogFileSet:
    """Opens the files of a container as they come, and recognises the ones that it knows."""

    def __init__(
        self,
        container: str,
        sources: Sequence[LogFileSource],
        positions: LogFilePositions,
        clock: Callable[[], float],
    ) -> None:
        """`container` is its ID; `clock` is monotonic, in seconds."""
        self.container = container
        self.tails: dict[FileKey, FileTail] = {}
        self.lost = LostLines()
        self.is_copied = False
        """Whether a file was rotated by a copy and a cut, between which lines may be written that nobody has."""
        self.scan: LogFileScan | None = None
        """The last look at the names; None before the first one."""
        self._sources = sources
        self._positions = positions
        self._clock = clock
        self._orphans = {
            each.generation: _Orphan(
                msgspec.structs.replace(each, sought=""), each.size, clock(), is_vanished=each.sought == VANISHED
            )
            for each in positions.sought_of(container)
        }
        """By generation; an earlier process may have looked for them already."""
        self._is_known_expected = False
        """Whether the files of an earlier process were looked for."""
        self._scanned = 0.0
        """When the names were looked at."""

    def follow(self) -> None:
        """Look what has become of the files. Cheap if nothing has."""
        now = self._clock()
        for tail in tuple(self.tails.values()):
            try:
                tail.look(now)
                if tail.is_cut():
                    self._orphan(tail, now)
            except OSError:
                self.skip(tail)
        if self._is_scan_due(now):
            self._look_at_names(now)
        self._settle_orphans(now)
        for tail in tuple(self.tails.values()):
            if not tail.name and now - tail.changed >= REMOVED_QUIET and not tail.has_more():
                self._finish(tail)
        self._bound_removed()

    def advance(self, position: FilePosition) -> None:
        """The store has everything of this content before the position, which `FileTail.read_events` has returned."""
        for tail in self.tails.values():
            if tail.position is not None and tail.position.generation == position.generation:
                tail.position = msgspec.structs.replace(position, device=tail.key.device, inode=tail.key.inode)
                self._positions.put(tail.position)
                return
        if (orphan := self._orphans.get(position.generation)) is not None:
            # It was cut meanwhile: its copy is recognised at this position.
            orphan.position = position
            self._seek(orphan)
            known = self._positions.find(position.key)
            if known is not None and known.generation == position.generation:
                self._positions.put(position)

    def skip(self, tail: FileTail) -> None:
        """Give up a file whose data cannot be read, and count it as lost."""
        self.lost.occasions += 1
        self.lost.known_bytes += 0 if tail.file.is_compressed else max(0, tail.size - tail.offset)
        self._finish(tail)

    def close(self) -> None:
        """Close all files, and give them up for other containers."""
        for key in tuple(self.tails):
            self.tails.pop(key).close()
            self._positions.release(key)
        if self.scan is not None:
            self.scan.close()

    def _is_scan_due(self, now: float) -> bool:
        if self.scan is None:
            return True
        since = now - self._scanned
        if since < SHORTEST_SCAN and not self._orphans:
            return False
        return since >= LONGEST_SCAN or bool(self._orphans) or not self.scan.is_current()

    def _look_at_names(self, now: float) -> None:
        scan = scan_sources(self._sources)
        if self.scan is not None:
            self.scan.close()
        self.scan, self._scanned = scan, now
        entries = {entry.key: entry for entry in scan.entries}
        if not self._is_known_expected and not (scan.unreadable or scan.excess):
            self._is_known_expected = True
            self._expect_known(entries, now)
        for key, tail in self.tails.items():
            entry = entries.get(key)
            tail.name = "" if entry is None else name_as_text(entry.name)
            if entry is not None and tail.name != tail.first_name and not tail.has_more():
                self._mark_finished(tail.position)
        wanted = list(filter(self._is_wanted, scan.entries))
        urgent = sorted(filter(self._is_unread, wanted), key=self._rank)
        room = self._make_room(len(urgent), now)
        chosen = (*urgent, *(each for each in wanted if not self._is_unread(each)))[:room]
        # A copy has a longer name: what became of its original is known by then.
        for entry in sorted(chosen, key=lambda each: len(each.name)):
            self._take(entry, now)
        for entry in urgent[room:]:
            scan.excess[entry.directory.path] += 1

    def _expect_known(self, present: Collection[FileKey], now: float) -> None:
        """Take the files of an earlier process that are not there any more for rotated away."""
        for position in self._positions.of(self.container):
            if position.key not in present and position.key not in self.tails and not position.is_finished:
                self._seek(_Orphan(position, position.size, now, is_vanished=True))

    def _seek(self, orphan: _Orphan) -> None:
        """Look for content from now on, also in the next process."""
        self._orphans[orphan.position.generation] = orphan
        sought = VANISHED if orphan.is_vanished else CUT
        self._positions.seek(msgspec.structs.replace(orphan.position, size=orphan.size, sought=sought))

    def _end_seeking(self, generation: str) -> _Orphan:
        self._positions.end_seeking(generation)
        return self._orphans.pop(generation)

    def _rank(self, entry: LogFileEntry) -> tuple[bool, int]:
        """Sort files with a position first, then the ones that were written last."""
        return self._positions.find(entry.key) is None, -entry.modified

    def _is_wanted(self, entry: LogFileEntry) -> bool:
        """Return whether a file is to be opened."""
        if entry.key in self.tails or self._positions.is_of_another(entry.key, self.container):
            return False
        known = self._positions.find(entry.key)
        if entry.is_meant or (known is not None and known.container == self.container):
            return known is None or not known.is_finished or self._is_unread(entry)
        # Another name is of interest if it may be what is left of a file that is not there any more.
        is_left = any(is_rotated_name(entry.name, each.position.name) for each in self._orphans.values())
        return is_left or self._earlier_name(entry) is not None

    def _earlier_name(self, entry: LogFileEntry) -> str | None:
        """Return the name that a file with a new content had, which no label means, if it was meant while no process
        looked: a rotation has given it another name, and it was written later than one of the same rotation that is
        known.
        """
        if is_compressed_name(entry.name):
            return None
        for each in self._orphans.values():
            if each.is_vanished and is_rotated_name(entry.name, each.position.name):
                return each.position.name
        for other in () if self.scan is None else self.scan.entries:
            known = self._positions.find(other.key)
            if (
                known is not None
                and known.container == self.container
                and name_as_text(other.name) != known.name
                and is_rotated_name(entry.name, known.name)
                and entry.modified > other.modified
            ):
                return known.name
        return None

    def _is_unread(self, entry: LogFileEntry) -> bool:
        known = self._positions.find(entry.key)
        if known is None or known.tail == GONE or entry.size != known.offset or entry.size < known.head_length:
            return True
        return known.modified not in (0, entry.modified)  # it may have been cut, and written to the same size

    def _make_room(self, wanted: int, now: float) -> int:
        """Close files that are read to their end, as far as others need their place, and return the places."""
        quiet = [t for t in self.tails.values() if now - t.changed >= QUIET and t.position and not t.has_more()]
        for tail in sorted(quiet, key=lambda each: each.changed):
            if MAX_FILES - len(self.tails) >= wanted:
                break
            self._close(tail)
        return max(0, MAX_FILES - len(self.tails))

    def _take(self, entry: LogFileEntry, now: float) -> None:
        """Open a file and find out which one it is."""
        try:
            descriptor = entry.open()
        except FileNotFoundError:
            return  # it was renamed or removed meanwhile
        except OSError as error:
            self._refuse(entry, error)
            return
        is_packed = is_compressed_name(entry.name)
        file = LogGeneration(descriptor, compressed=is_packed)
        status = os.fstat(descriptor)
        tail = FileTail(file, FileKey(status.st_dev, status.st_ino), (self.container, entry.path), entry.label, now)
        tail.name = name_as_text(entry.name)
        try:
            is_taken = tail.key not in self.tails and self._identify(tail, entry, now)
        except OSError as error:
            is_taken = False
            if not is_packed:
                self._refuse(entry, error)
        if is_taken and self._positions.claim(tail.key, self.container):
            self.tails[tail.key] = tail
        else:
            tail.close()

    def _refuse(self, entry: LogFileEntry, error: OSError) -> None:
        if self.scan is not None:
            self.scan.refused[entry.path] = error.strerror or str(error)

    def _identify(self, tail: FileTail, entry: LogFileEntry, now: float) -> bool:
        """Give a file its position, and return whether it is followed. Raises `OSError`."""
        is_packed = tail.file.is_compressed
        known = None if is_packed else self._positions.find(tail.key)
        if known is not None and is_at(tail.file.read, known):
            tail.position = msgspec.structs.replace(known, container=self.container)
            return True
        if self._is_copy(tail, entry.name, now):
            return False
        if (is_read_on := self._adopt(tail, entry.name)) is not None:
            return is_read_on
        earlier = self._earlier_name(entry)
        if is_packed or not (entry.is_meant or earlier is not None):
            return False
        if not entry.is_meant:
            tail.found_name = earlier or tail.found_name
        if known is not None:
            tail.epoch = known.epoch + 1
            if known.container == self.container and not known.is_finished:
                self._seek(_Orphan(known, known.size, now))
        return True

    def _adopt(self, tail: FileTail, name: str) -> bool | None:
        """Give a file the position in content that is sought, and return whether more of it is to be read; None if it
        has no such content. Raises `OSError`.
        """
        for generation, orphan in tuple(self._orphans.items()):
            device, inode = tail.key
            if self._is_left_of(tail, name, orphan):
                self._end_seeking(generation)
                self._count_uncopied(tail, orphan)
                before = self._positions.find(orphan.position.key)
                if before is not None and before.generation == generation:
                    self._mark_finished(before)
                tail.position = msgspec.structs.replace(orphan.position, device=device, inode=inode)
                self._positions.put(tail.position)
                return True
            if self._is_beginning_of(tail, name, orphan):
                # All of it was read. What followed until the cut is in no copy; the orphan knows what of it was read.
                position = moved(tail.file.read, orphan.position, tail.size, tail.file.state())
                self._positions.put(msgspec.structs.replace(position, device=device, inode=inode, is_finished=True))
                self.is_copied = True
                return False
        return None

    def _is_copy(self, tail: FileTail, name: str, now: float) -> bool:
        """Return whether a file is a copy of one that is followed, which may be cut next. Raises `OSError`."""
        for other in tuple(self.tails.values()):
            if other.file.is_compressed or not is_rotated_name(name, other.first_name):
                continue
            if not tail.file.is_compressed and (not tail.size or is_prefix(tail.file.read, tail.size, other.file.read)):
                return True  # an empty one may become a copy, too
            other.look(now)
            if other.is_cut():  # this very moment
                self._orphan(other, now)
        return False

    @staticmethod
    def _is_left_of(tail: FileTail, name: str, orphan: _Orphan) -> bool:
        if not is_rotated_name(name, orphan.position.name):
            return False
        if tail.file.is_compressed and (orphan.position.offset > MAX_UNPACKED or not name.endswith(".gz")):
            return False
        return is_at(tail.file.read, orphan.position)

    @staticmethod
    def _is_beginning_of(tail: FileTail, name: str, orphan: _Orphan) -> bool:
        """Return whether a file is a copy that was made before the last of what was read was written."""
        position = orphan.position
        if tail.file.is_compressed or orphan.is_vanished or not is_rotated_name(name, position.name):
            return False
        return position.head_length <= tail.size < position.offset and is_headed(tail.file.read, position)

    def _count_uncopied(self, tail: FileTail, orphan: _Orphan) -> None:
        """Count what was written between the copy and the cut, as far as it was seen, as lost."""
        if orphan.is_vanished or tail.file.is_compressed or tail.key == orphan.position.key:
            return
        self.is_copied = True
        if orphan.size > tail.size:
            self.lost.occasions += 1
            self.lost.known_bytes += orphan.size - tail.size

    def _orphan(self, tail: FileTail, now: float) -> None:
        """The file has other content now; follow that."""
        if tail.position is not None:
            self._seek(_Orphan(tail.position, tail.reached, now))
        tail.begin_again()

    def _settle_orphans(self, now: float) -> None:
        """Count what did not appear again as lost."""
        excess = len(self._orphans) - MAX_SOUGHT
        for number, (generation, orphan) in enumerate(tuple(self._orphans.items())):
            if now - orphan.since < COPY_PATIENCE and number >= excess:
                continue
            self._end_seeking(generation)
            unread = max(0, orphan.size - orphan.position.offset)
            if unread or orphan.is_vanished:
                self.lost.occasions += 1
                self.lost.known_bytes += unread
            known = self._positions.find(orphan.position.key)
            if known is not None and known.generation == generation:
                self._mark_finished(known)

    def _mark_finished(self, position: FilePosition | None, *, is_gone: bool = False) -> None:
        if position is not None and (is_gone or not position.is_finished):
            tail = GONE if is_gone else position.tail
            self._positions.put(msgspec.structs.replace(position, is_finished=True, tail=tail))

    def _finish(self, tail: FileTail) -> None:
        """Close a file that nothing more is read of."""
        self._mark_finished(tail.position, is_gone=tail.is_removed())
        self._close(tail)

    def _close(self, tail: FileTail) -> None:
        self.tails.pop(tail.key, None)
        self._positions.release(tail.key)
        tail.close()

    def _bound_removed(self) -> None:
        """Give up the oldest of too many files without a name: their space is free only when they are closed."""
        removed = [tail for tail in self.tails.values() if not tail.name and tail.is_removed()]
        for tail in removed[: max(0, len(removed) - MAX_REMOVED)]:
            if tail.has_more():
                self.skip(tail)
            else:
                self._finish(tail)
