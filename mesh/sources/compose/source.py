"""Compose files as a source of instances: `x-endpoints` of a service says where its instances are reached.

For a worker without a container engine to ask: processes under another supervisor, virtual machines, a first try on
a laptop. The files are looked at once a second, since there is no portable way to be told of a change, and a look
costs one stat. A file is read only after it has rested a moment: half a file that an editor has written so far may be
sound YAML with services missing. A file that is broken or gone freezes the last list; it never empties it.

Several files are one project, as with `docker compose -f a -f b`: later ones override service by service.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.variables import parse_variables

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.problem import Problem, Severity
from mesh.model.service import Instance
from mesh.sources.compose.model import ComposeFile, ComposeService, merge_files, project_name
from mesh.sources.compose.parse import read_compose_file

_RESTS_AT_MOST = 20  # a file that never rests is read all the same


class ComposeSource:
    """The `Source` of compose files.

    `env` fills in the variables, above a `.env` file beside each file. Times are in seconds: `interval` between two
    looks, `rest` for which a changed file must stay the same before it is read.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        env: Mapping[str, str],
        name: str = "source 0",
        interval: float = 1.0,
        rest: float = 0.1,
    ) -> None:
        self.name = name
        self._files = tuple(files)
        self._env = env
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
        """Read the files at once, changed or not. For the thread of the event loop."""
        self._look.set()

    def read(self) -> tuple[tuple[Instance, ...], tuple[Problem, ...]]:
        """Read the files now: the instances, ordered by id, and the problems. No instances if a file is broken."""
        listing = _list(self._files, self._env)
        self._take(listing)
        return listing.instances, listing.problems

    async def watch(self) -> AsyncGenerator[tuple[tuple[Instance, ...], tuple[Problem, ...]], None]:
        """Yield the instances as `Source.watch` specifies. One reader at a time: `touch` wakes only one."""
        told: tuple[tuple[Instance, ...], tuple[Problem, ...]] | None = None
        while True:
            before = await asyncio.to_thread(_fingerprint, self._files)
            listing = await asyncio.to_thread(_list, self._files, self._env)
            self._take(listing)
            if listing.trouble is None and (listing.instances, listing.problems) != told:
                told = listing.instances, listing.problems
                yield told
            await self._change(before)

    def locate(self, instance: Instance, label: str | None) -> str:
        """`FILE:LINE` of the label, or of the instance's entry in `x-endpoints`."""
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
        """Return when a file is no longer as `known` and has come to rest, or at once when touched."""
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


def load_compose_file(path: Path, env: Mapping[str, str]) -> ComposeFile:
    """Read one file with the `.env` beside it. A file that cannot be read is a broken one."""
    try:
        known = _environment(path.parent / ".env", env)
        return read_compose_file(path.read_text("utf-8-sig"), str(path), known)
    except OSError as error:
        name, reason = error.filename or path, error.strerror or str(error)
        return _unreadable(name, f"it cannot be read: {reason}", "name a file that exists and is readable")
    except UnicodeDecodeError as error:
        return _unreadable(path, f"it is not UTF-8 at byte {error.start}", "save it and its .env as UTF-8")


def project_of(paths: Sequence[Path], files: Sequence[ComposeFile]) -> str:
    """The last `name:` in the files, else the name of the first one's directory."""
    named = [file.project for file in files if file.project is not None]
    return named[-1] if named else project_name(paths[0].absolute().parent.name)


@dataclass(frozen=True, slots=True)
class _ComposeListing:
    """What the files say at one time."""

    instances: tuple[Instance, ...] = ()
    problems: tuple[Problem, ...] = ()
    services: Mapping[str, ComposeService] = field(default_factory=dict)
    """Owner -> the service."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Instance id -> `FILE:LINE`."""
    trouble: CodedText | None = None


def _list(paths: Sequence[Path], env: Mapping[str, str]) -> _ComposeListing:
    files = [load_compose_file(path, env) for path in paths]
    problems = tuple(problem for file in files for problem in file.problems)
    broken = [file for file in files if file.broken]
    if broken:
        trouble = next(p.coded for p in broken[0].problems if p.severity is Severity.ERROR)
        return _ComposeListing(problems=problems, trouble=trouble)
    project = project_of(paths, files)
    services = {f"{project}/{name}": service for name, service in merge_files(files).items()}
    found = [
        (Instance(f"{owner}/{endpoint}", owner, endpoint.address, service.labels, endpoint.port), endpoint.where)
        for owner, service in services.items()
        for endpoint in service.endpoints or ()
    ]
    instances = sorted((instance for instance, _ in found), key=lambda instance: instance.id)
    return _ComposeListing(tuple(instances), problems, services, {instance.id: where for instance, where in found})


def _fingerprint(paths: Sequence[Path]) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file or its `.env` is written or replaced; None for one that is not there."""
    return tuple(_stat(file) for path in paths for file in (path, path.parent / ".env"))


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _environment(path: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The variables of a `.env` file, if there is one, under those of the process.

    python-dotenv would fill in `${VAR}` from this process's own environment; here it is `env` that counts.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return dict(env)
    known = dict(env)
    for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items():
        if value is not None and name not in env:
            known[name] = "".join(atom.resolve(known) for atom in parse_variables(value))
    return known


def _unreadable(path: object, reason: str, remedy: str) -> ComposeFile:
    problem = Problem(Code.COMPOSE_NOT_YAML, Severity.ERROR, "the file", reason, remedy, where=str(path))
    return ComposeFile(None, {}, (problem,), broken=True)
