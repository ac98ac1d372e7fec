"""Follows one file that a container writes: from its position on, until nothing is written to it any more.

It is held open, so that neither a rename nor its removal takes what is not read yet.
"""

import os

from mesh.config.labels.logs import LogPathLabel
from mesh.platform.logs.file_lines import MAX_EVENT, EventRules, FileEvents, cut_events
from mesh.platform.logs.file_positions import FileKey, FilePosition, first_position, is_at, moved, name_as_text
from mesh.platform.logs.generations import LogGeneration

LONGEST_EVENT = 2 * MAX_EVENT + 2
"""Bytes that are read for one event: it and the first line of the next one."""
MAX_ZEROS = 1 << 20
"""Zeros before a line that are passed over, those of a hole not counted."""


class FileTail:
    """Reads one file."""

    # 14 attributes: what the file is and how it is collected, which do not change, and what was seen of it last, by
    # which it is known whether anything is to be done. Nobody else needs a part of that.

    def __init__(
        self, file: LogGeneration, key: FileKey, found: tuple[str, str], label: LogPathLabel, now: float
    ) -> None:
        """`found` has the ID of the container and the path inside of it; `now` is in seconds of a monotonic clock."""
        self.file = file
        self.key = key
        self.container, self.path = found
        self.label = label
        self.position: FilePosition | None = None
        """None before the first line is complete."""
        self.epoch = 0
        """That of the position that it will have."""
        self.name = ""
        """The name that it has now; empty if it has none that is seen."""
        self.found_name = name_as_text(self.path.rpartition("/")[2])
        """The name that it had when it was found, or that its rotation began with."""
        self.changed = now
        """When it changed last."""
        self._state = file.state()
        self.reached = self._state[0]
        """The largest size that was seen of this content."""
        self._compared: tuple[int, int] | None = None
        """The state in which it had the bytes before the position."""
        self._searched: tuple[tuple[int, int], bool] | None = None
        """The state in which no event was complete, and whether it was read as one that nothing follows."""

    @property
    def offset(self) -> int:
        """Bytes of it that the store has."""
        return self.position.offset if self.position is not None else 0

    @property
    def size(self) -> int:
        """Bytes, when it was looked at last."""
        return self._state[0]

    @property
    def first_name(self) -> str:
        """The name that it had when it was found, or that its rotation began with."""
        return self.position.name if self.position is not None else self.found_name

    def look(self, now: float) -> None:
        """Look whether it has changed. Raises `OSError`."""
        state = self.file.state()
        if state != self._state:
            self._state, self.changed = state, now
            self.reached = max(self.reached, state[0])

    def is_cut(self) -> bool:
        """Return whether the bytes before the position are not there any more, as seen last. Raises `OSError`."""
        if self.position is None or self.file.is_compressed:
            return False
        if self._compared == self._state:
            return False
        if self.size < self.offset or not is_at(self.file.read, self.position):
            return True
        self._compared = self._state
        return False

    def has_more(self) -> bool:
        """Return whether there may have been something to read when it was looked at."""
        return not self.is_searched(final=False) if self.file.is_compressed else self.size > self.offset

    def begin_again(self) -> None:
        """The file has other content, of which nothing is read."""
        if self.position is not None:
            self.epoch = self.position.epoch + 1
        self.position = self._compared = None
        self.reached = self.size

    def is_searched(self, *, final: bool) -> bool:
        """Return whether no event was complete in the state that it had. `final`: also if nothing follows."""
        return self._searched in ((self._state, True), (self._state, final))

    def is_removed(self) -> bool:
        """Return whether it has no name any more, wherever that may be. Raises `OSError`."""
        return self.file.is_removed()

    def read_events(self, limit: int, rules: EventRules, *, final: bool) -> tuple[FileEvents, FilePosition] | None:
        """Return events that follow the position, of about `limit` bytes, and the position behind them; None if none is
        complete. Raises `OSError`.
        """
        if self.position is None:
            found = self.container, self.found_name
            self.position = first_position(self.file.read, self.key, found, self.epoch, final=final)
        state = self.file.state()
        if self.position is not None:
            events = self._cut(self.position, max(limit, LONGEST_EVENT), rules, final=final)
            after = None if events is None else moved(self.file.read, self.position, events.end, state)
            # It is compared after it was read: so these bytes follow the ones that the store has.
            if not self.file.is_compressed and not is_at(self.file.read, self.position):
                return None
            if events is not None and after is not None:
                return events, after
        self._searched = state, final or rules.is_idle
        return None

    def _cut(self, position: FilePosition, limit: int, rules: EventRules, *, final: bool) -> FileEvents | None:
        offset = self._first_written(position.offset)
        if offset is None:
            return None
        is_repeated = position.cut > offset
        read = self.file.read(offset, position.cut - offset if is_repeated else limit)
        # A file whose space was reserved has zeros where nothing is written yet.
        data = read.rstrip(b"\0")
        is_all = is_repeated or len(data) < limit
        if is_repeated and rules.begins is not None:
            rules = EventRules(rules.begins)
        events = cut_events(data, offset, final=is_repeated or (final and is_all), rules=rules)
        return None if events.end == position.offset else events

    def _first_written(self, offset: int) -> int | None:
        """Return where the next line begins; None if nothing is written behind the offset.

        A program that does not append goes on behind a hole when its file is cut: lseek(2).
        """
        if self.file.is_compressed or self.file.read(offset, 1) != b"\0":
            return offset
        for _ in range(2):  # behind the page that was written last, and behind the hole that follows it
            try:
                offset = os.lseek(self.file.descriptor, offset, os.SEEK_DATA)
                data = self.file.read(offset, MAX_ZEROS)
                if written := data.lstrip(b"\0"):
                    return offset + len(data) - len(written)
                offset = os.lseek(self.file.descriptor, offset, os.SEEK_HOLE)
            except OSError:
                return None
        return None

    def close(self) -> None:
        """Close the file."""
        self.file.close()
