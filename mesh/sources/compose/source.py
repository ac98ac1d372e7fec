"""Compose files as a source of instances: `x-endpoints` of a service lists where its instances are reached.

It is meant for workers without a container engine: processes under another supervisor, virtual machines, a first try on
a laptop. The files are checked once a second, since there is no portable notification of changes and a check costs one
stat call per file. A changed file is read only when it has stayed the same for a moment: a file that an editor has
written in part may be valid YAML with services missing. A file that is broken or gone freezes the last list; it never
empties it.

Several files are one project, as with `docker compose -f a -f b`: later files override earlier ones per service.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.problem import Problem, Severity
from mesh.model.service import Instance
from mesh.sources.compose.interpolate import ExpansionError
from mesh.sources.compose.model import (
    DEFAULT_LIMITS,
    ComposeFile,
    ComposeLimits,
    ComposeService,
    merge_files,
    project_name,
)
from mesh.sources.compose.parse import read_compose_file
from mesh.sources.compose.ports import endpoint_port_problems
from mesh.util.regular_file import read_regular_file

PIPE_PATIENCE = 5.0
"""Seconds that a program has to write a compose file into a pipe."""
LARGE = 1 << 17
"""Bytes of all files above which the memory that they took is given back to the system."""
_RESTS_AT_MOST = 20  # after that, a file that still changes is read all the same


class ComposeSource:
    """The `Source` of compose files.

    `env` provides the variables and takes precedence over the `.env` file beside each file. Times are in seconds:
    `interval` between two checks, `rest` for which a changed file must stay the same before it is read.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        env: Mapping[str, str],
        name: str = "source 0",
        limits: ComposeLimits = DEFAULT_LIMITS,
        interval: float = 1.0,
        rest: float = 0.1,
    ) -> None:
        self.name = name
        self._files = tuple(files)
        self._env = env
        self._limits = limits
        self._interval = interval
        self._rest = rest
        self._look = asyncio.Event()
        self._good = _ComposeListing()
        self._trouble: CodedText | None = None

    @property
    def trouble(self) -> CodedText | None:
        """Why the last list is frozen; None while the files can be read."""
        return self._trouble

    def touch(self) -> None:
        """Read the files immediately, changed or not. Call it in the event loop's thread."""
        self._look.set()

    def read(self) -> tuple[tuple[Instance, ...], tuple[Problem, ...]]:
        """Read the files now: return the instances, ordered by ID, and the problems. No instances if one is broken."""
        listing = _list(self._files, self._env, self._limits)
        self._take(listing)
        return listing.instances, listing.problems

    async def watch(self) -> AsyncGenerator[tuple[tuple[Instance, ...], tuple[Problem, ...]], None]:
        """Yield the instances as `Source.watch` specifies. One reader at a time: `touch` wakes only one."""
        told: tuple[tuple[Instance, ...], tuple[Problem, ...]] | None = None
        while True:
            before = await asyncio.to_thread(_fingerprint, self._files)
            listing = await asyncio.to_thread(_list, self._files, self._env, self._limits)
            self._take(listing)
            if listing.trouble is None and (listing.instances, listing.problems) != told:
                told = listing.instances, listing.problems
                yield told
            await self._change(before)

    def locate(self, instance: Instance, label: str | None) -> str:
        """Return `FILE:LINE` of the label, or of the instance's entry in `x-endpoints`."""
        service = self._good.services.get(instance.owner)
        if service is None:
            return str(self._files[0])
        if label is not None:
            return service.label_where.get(label, service.where)
        return self._good.where.get(instance.id, service.where)

    def _take(self, listing: "_ComposeListing") -> None:
        self._trouble = listing.trouble
        if listing.trouble is None:
            self._good = listing

    async def _change(self, known: object) -> None:
        """Return when a file differs from `known` and no longer changes, or immediately after `touch`."""
        while not await self._touched(self._interval):
            now = await asyncio.to_thread(_fingerprint, self._files)
            if now == known:
                continue
            for _ in range(_RESTS_AT_MOST):
                if await self._touched(self._rest):
                    return
                before, now = now, await asyncio.to_thread(_fingerprint, self._files)
                if now == before:
                    return
            return

    async def _touched(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._look.wait()
        except TimeoutError:
            return False
        self._look.clear()
        return True


def load_compose_file(path: Path, env: Mapping[str, str], limits: ComposeLimits = DEFAULT_LIMITS) -> ComposeFile:
    """Read one file with the `.env` beside it. A file that cannot be read counts as broken."""
    variables = path.parent / ".env"
    try:
        known = _environment(variables, env, limits)
        # Not kept as bytes while it is parsed: it may have megabytes.
        text = read_regular_file(path, limits.file_bytes, patience=PIPE_PATIENCE).decode("utf-8-sig")
        return read_compose_file(text, str(path), known, limits)
    except ExpansionError as error:
        return _unreadable(variables, error.reason, error.remedy)
    except OSError as error:
        name, reason = error.filename or path, error.strerror or str(error)
        return _unreadable(name, f"it cannot be read: {reason}", "name a file that exists and is readable")
    except UnicodeDecodeError as error:
        return _unreadable(path, f"it is not UTF-8 at byte {error.start}", "save it and its .env as UTF-8")


def project_of(paths: Sequence[Path], files: Sequence[ComposeFile]) -> str:
    """Return the last `name:` in the files, or the name of the first file's directory if there is none."""
    named = [file.project for file in files if file.project is not None]
    return named[-1] if named else project_name(paths[0].absolute().parent.name)


@dataclass(frozen=True, slots=True)
class _ComposeListing:
    """The content of the files at one time."""

    instances: tuple[Instance, ...] = ()
    problems: tuple[Problem, ...] = ()
    services: Mapping[str, ComposeService] = field(default_factory=dict)
    """By owner."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Instance ID -> `FILE:LINE`."""
    trouble: CodedText | None = None


def _list(paths: Sequence[Path], env: Mapping[str, str], limits: ComposeLimits) -> _ComposeListing:
    listing = _list_files(paths, env, limits)
    if sum(stat[1] for stat in map(_stat, paths) if stat is not None) > LARGE:
        from mesh.util.free_memory import release_free_memory  # noqa: PLC0415 -- `vipmesh check` seldom needs it

        release_free_memory()
    return listing


def _list_files(paths: Sequence[Path], env: Mapping[str, str], limits: ComposeLimits) -> _ComposeListing:
    files = [load_compose_file(path, env, limits) for path in paths]
    problems = tuple(problem for file in files for problem in file.problems)
    broken = [file for file in files if file.broken]
    if broken:
        trouble = next(p.coded for p in broken[0].problems if p.severity is Severity.ERROR)
        return _ComposeListing(problems=problems, trouble=trouble)
    project = project_of(paths, files)
    services = {f"{project}/{name}": service for name, service in merge_files(files).items()}
    problems += tuple(problem for service in services.values() for problem in endpoint_port_problems(service))
    found = [
        (Instance(f"{owner}/{endpoint}", owner, endpoint.address, service.labels, endpoint.port), endpoint.where)
        for owner, service in services.items()
        for endpoint in service.endpoints or ()
    ]
    instances = sorted((instance for instance, _ in found), key=lambda instance: instance.id)
    return _ComposeListing(tuple(instances), problems, services, {instance.id: where for instance, where in found})


def _fingerprint(paths: Sequence[Path]) -> tuple[tuple[int, int, int] | None, ...]:
    """Return a value that changes when a file or its `.env` is written or replaced. It has None for a missing file."""
    return tuple(_stat(file) for path in paths for file in (path, path.parent / ".env"))


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _environment(path: Path, env: Mapping[str, str], limits: ComposeLimits) -> dict[str, str]:
    """Return the variables of a `.env` file, if there is one, overridden by those of the process.

    Raises `OSError`, `UnicodeDecodeError`, and `ExpansionError` if its values are too long with variables replaced.
    """
    try:
        text = read_regular_file(path, limits.file_bytes).decode("utf-8-sig")
    except FileNotFoundError:
        return dict(env)
    from mesh.sources.compose.dotenv_file import read_dotenv  # noqa: PLC0415 -- few have such a file

    return read_dotenv(text, env, limits)


def _unreadable(path: object, reason: str, remedy: str) -> ComposeFile:
    problem = Problem(Code.COMPOSE_NOT_YAML, Severity.ERROR, "the file", reason, remedy, where=str(path))
    return ComposeFile(None, {}, (problem,), broken=True)
