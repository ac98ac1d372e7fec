"""Reads compose files and what they name from the disk, as one project."""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.model import ComposeFile, project_name
from mesh.sources.compose.parse import read_compose_project
from mesh.sources.compose.references import ComposeReferenceError, ComposeText, read_variables
from mesh.util.regular_file import MAX_FILE_BYTES, read_regular_file

PIPE_PATIENCE = 5.0
"""Seconds that a program has to write a compose file into a pipe."""
MAX_REFERENCED_FILES = 500
MAX_REFERENCED_BYTES = 4 * MAX_FILE_BYTES


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

    def __init__(self) -> None:
        self.stamps: dict[Path, FileStamp | None] = {}
        self._texts: dict[str, str | OSError | UnicodeDecodeError] = {}
        self._left = MAX_REFERENCED_BYTES

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
            content = read_regular_file(Path(path), min(MAX_FILE_BYTES, self._left))
            self._left -= len(content)
            return content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            return error


def load_compose_project(paths: Sequence[Path], env: Mapping[str, str]) -> ComposeProject:
    """Read files as one project, with the `.env` beside the first one. A file that cannot be read breaks it.

    Variables of `env` go before those of `.env`. A later file in another directory gets what neither has from the
    `.env` beside itself.
    """
    files = ReferencedFiles()
    texts: list[ComposeText] = []
    variables: list[Mapping[str, str]] = []
    failures: list[Problem] = []
    directory = str(paths[0].parent)
    stamps = {path: file_stamp(path) for path in paths}
    for path in paths:
        where = str(path)
        try:
            known = {**_dot_env(files, str(path.parent), env), **_dot_env(files, directory, env), **env}
            text = read_regular_file(path, patience=PIPE_PATIENCE).decode("utf-8-sig")
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
    content = read_compose_project(texts, directory, variables, files)
    if failures:
        content = ComposeFile(content.project, content.services, (*failures, *content.problems), broken=True)
    name = content.project or project_name(paths[0].absolute().parent.name)
    return ComposeProject(content, name, files, {**stamps, **files.stamps})


def _dot_env(files: ReferencedFiles, directory: str, env: Mapping[str, str]) -> Mapping[str, str]:
    path = str(Path(directory, ".env"))
    return read_variables(files, path, env, path, optional=True)


def _unreadable(where: str, reason: str, remedy: str) -> Problem:
    return Problem(Code.COMPOSE_NOT_YAML, Severity.ERROR, "the file", reason, remedy, where=where)
