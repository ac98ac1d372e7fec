"""Reads compose files and what they name from the disk, as one project, within their bounds."""

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.limits import DEFAULT_LIMITS, ComposeBudget, ComposeLimits
from mesh.sources.compose.model import ComposeFile, project_name
from mesh.sources.compose.parse import read_compose_project
from mesh.sources.compose.references import ComposeReferenceError, ComposeText, read_variables
from mesh.util.regular_file import read_regular_file

PIPE_PATIENCE = 5.0
"""Seconds that a program has to write a compose file into a pipe."""
MAX_REFERENCED_FILES = 500
"""Files that the files of one project name."""
MAX_REFERENCED_TIMES = 4
"""How many times the bytes of one file those that are named may have together."""


FileStamp = tuple[int, int, int]
"""Another one when a file is written or replaced: time of its last change in ns, size, inode."""


def file_stamp(path: Path) -> FileStamp | None:
    """Return the stamp of a file, or None if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True, slots=True)
class ComposeProject:
    """The files of one project and what they are together."""

    content: ComposeFile
    name: str
    files: "ReferencedFiles"
    """Reads further files that they name, within the same bounds."""
    stamps: Mapping[Path, FileStamp | None]
    """The files and those that they name, each with its stamp from before it was read; None if it is missing."""


class ReferencedFiles:
    """Reads the files that compose files name: regular ones, each once, up to a number and a size of all together."""

    def __init__(self, limits: ComposeLimits = DEFAULT_LIMITS) -> None:
        self.stamps: dict[Path, FileStamp | None] = {}
        self._texts: dict[str, str | OSError | UnicodeDecodeError] = {}
        self._most = limits.file_bytes
        self._left = MAX_REFERENCED_TIMES * limits.file_bytes

    def read(self, path: str) -> str:
        """Return the text of a file. Raises `OSError` and `UnicodeDecodeError`, of the same file always the same."""
        if path not in self._texts:
            if len(self._texts) >= MAX_REFERENCED_FILES:
                raise OSError(errno.EMFILE, f"more than {MAX_REFERENCED_FILES} files are named", path)
            self._texts[path] = self._read(path)
        text = self._texts[path]
        if isinstance(text, str):
            return text
        raise text

    def _read(self, path: str) -> str | OSError | UnicodeDecodeError:
        self.stamps[Path(path)] = file_stamp(Path(path))
        try:
            content = read_regular_file(Path(path), min(self._most, self._left))
            self._left -= len(content)
            return content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            return error


def load_compose_project(
    paths: Sequence[Path], env: Mapping[str, str], limits: ComposeLimits = DEFAULT_LIMITS
) -> ComposeProject:
    """Read files as one project, with the `.env` beside the first one. A file that cannot be read breaks it.

    Variables of `env` go before those of `.env`. A later file in another directory gets what neither has from the
    `.env` beside itself. `limits` bounds each file.
    """
    files = ReferencedFiles(limits)
    budget = ComposeBudget(limits, len(paths))
    texts: list[ComposeText] = []
    variables: list[Mapping[str, str]] = []
    failures: list[Problem] = []
    directory = str(paths[0].parent)
    stamps = {path: file_stamp(path) for path in paths}
    for path in paths:
        where = str(path)
        try:
            known = _known_variables(files, dict.fromkeys((str(path.parent), directory)), env, budget)
            # Not kept as bytes while it is parsed: it may have megabytes.
            text = read_regular_file(path, limits.file_bytes, patience=PIPE_PATIENCE).decode("utf-8-sig")
        except ComposeReferenceError as error:
            failures.append(_unreadable(where, error.reason, error.remedy))
        except OSError as error:
            reason = f"it cannot be read: {error.strerror or error}"
            failures.append(_unreadable(str(error.filename or path), reason, "name a file that exists and is readable"))
        except UnicodeDecodeError as error:
            failures.append(
                _unreadable(where, f"it is not UTF-8 at byte {error.start}", "save it and its .env as UTF-8")
            )
        else:
            texts.append(ComposeText(where, text))
            variables.append(known)
    content = read_compose_project(texts, directory, variables, files, budget)
    if failures:
        content = ComposeFile(content.project, content.services, (*failures, *content.problems), broken=True)
    name = content.project or project_name(paths[0].absolute().parent.name)
    return ComposeProject(content, name, files, {**stamps, **files.stamps})


def _known_variables(
    files: ReferencedFiles, directories: Iterable[str], env: Mapping[str, str], budget: ComposeBudget
) -> Mapping[str, str]:
    """Return the variables of the `.env` files of directories, later ones first, and above them those of `env`."""
    known: dict[str, str] = {}
    for directory in directories:
        path = str(Path(directory, ".env"))
        known |= read_variables(files, path, env, path, budget, optional=True)
    return known | dict(env)


def _unreadable(where: str, reason: str, remedy: str) -> Problem:
    return Problem(Code.COMPOSE_NOT_YAML, Severity.ERROR, "the file", reason, remedy, where=where)
