"""The grammar of paths in `log_store_<name>`, and of `log.multiline`. Pure.

A path is one inside the container: `/var/log/app.log`, `/var/log/app/*.log`, `/var/log/mysql/`. Between two slashes
`*`, `?` and `[...]` match as in a shell; a path that ends in a slash means all files of the directory, not those of
directories below it.

Whoever starts a container chooses the pattern of `log.multiline`, and every line is compared with it. RE2 takes time in
proportion to the line whatever the pattern is, and has a bound of memory: https://github.com/google/re2/wiki/WhyRE2
"""

import re
from typing import TYPE_CHECKING

from mesh.config.labels.values import LabelRefusedError, quote_value
from mesh.model.codes import Code

if TYPE_CHECKING:
    import re2

MAX_PATHS = 16
"""Paths of one label."""
MAX_PATH = 1024
"""Bytes of one path."""
MAX_NAME = 255
"""Bytes between two slashes: NAME_MAX, limits.h."""
MAX_PATTERN = 256
"""Characters of the pattern."""
MAX_INSTRUCTIONS = 1000
"""Steps of a pattern as RE2 has compiled it: it takes up to as many for each byte of a line."""
_PATTERN_MEMORY = 64 << 10
"""Bytes that RE2 may use for a pattern."""

_EXAMPLES = "write paths such as /var/log/app.log, /var/log/app/*.log or /var/log/mysql/, separated by commas"
_UNWRITTEN = ("/proc", "/sys", "/dev")
"""Directories that the engine mounts in every container, without files that a program writes."""
_COMPRESSED = re.compile(r"\.(gz|bz2|xz|zst|lz4|zip|tgz|Z)$")


def is_compressed_name(name: str) -> bool:
    """Return whether a file's name says that it is compressed: its lines were read before it was."""
    return _COMPRESSED.search(name) is not None


def parse_log_path(text: str) -> tuple[str, ...]:
    """Return the parts between the slashes; the last one is empty for a directory. Raises `LabelRefusedError`."""
    if not text.startswith("/"):
        raise _refused(f"{quote_value(text)} is neither stdout nor a path from the root", _EXAMPLES)
    parts = tuple(text[1:].split("/"))
    reason = _fault(text, parts)
    if reason:
        raise _refused(f"the path {quote_value(text)} {reason}", _EXAMPLES)
    if is_compressed_name(parts[-1]):
        raise _refused(f"{quote_value(text)} means compressed files", "name the files before they are compressed")
    if any(text == each or text.startswith(f"{each}/") for each in _UNWRITTEN):
        raise _refused(f"{quote_value(text)} is a directory of the kernel", "write stdout, or log to another directory")
    return parts


def _fault(text: str, parts: tuple[str, ...]) -> str:
    """Say what is wrong with a path; empty if nothing is."""
    if not text.isprintable() or "\\" in text:
        return "has a character that no path here has"
    if len(text.encode()) > MAX_PATH or any(len(part.encode()) > MAX_NAME for part in parts):
        return f"is longer than {MAX_PATH} bytes, or has a name of more than {MAX_NAME}"
    if parts == ("",):
        return "is the root itself"
    if "" in parts[:-1] or any(part in (".", "..") for part in parts):
        return "has an empty name, . or .."
    if any("**" in part for part in parts):
        return "has **, but directories below are not searched; write one * for each"
    return ""


def compile_start_pattern(text: str) -> "re2._Regexp[bytes]":
    """Compile `log.multiline`: a line in which it is found begins an event. Raises `LabelRefusedError`."""
    import re2  # noqa: PLC0415 -- few have this label

    remedy = r"write what the first line begins with, such as ^\d{4}-\d{2}-\d{2} or ^\S, in the syntax of RE2"
    if not text or len(text) > MAX_PATTERN:
        raise _refused(f"a pattern has 1 to {MAX_PATTERN} characters", remedy)
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    try:
        pattern = re2.compile(text, options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0] if error.args else ""
        reason = said.decode(errors="replace") if isinstance(said, bytes) else str(error)
        raise _refused(f"{quote_value(text)} is no regular expression: {quote_value(reason)}", remedy) from error
    if pattern.programsize > MAX_INSTRUCTIONS:
        raise _refused(f"{quote_value(text)} takes too long for each line", remedy)
    if pattern.search(b"") is not None:
        raise _refused(f"{quote_value(text)} is found in every line", remedy)
    return pattern


def _refused(reason: str, remedy: str) -> LabelRefusedError:
    return LabelRefusedError(Code.LOG_LABEL, reason, remedy)
