"""Compose files as a source of instances: `x-endpoints` of a service lists where its instances are reached.

It is meant for workers without a container engine: processes under another supervisor, virtual machines, a first try on
a laptop. The files are checked once a second, since there is no portable notification of changes and a check costs one
stat call per file. A changed file is read only when it has stayed the same for a moment: a file that an editor has
written in part may be valid YAML with services missing. A file that is broken or gone freezes the last list; it never
empties it.

Several files are one project, as with `docker compose -f a -f b`: later files are merged into earlier ones. A service
that cannot be read as it was meant keeps its last good instances, and the others go on.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from mesh.model.errors import CodedText
from mesh.model.problem import Problem, Severity
from mesh.model.service import Instance
from mesh.sources.compose.files import FileStamp, file_stamp, load_compose_project
from mesh.sources.compose.limits import DEFAULT_LIMITS, ComposeLimits
from mesh.sources.compose.model import ComposeService
from mesh.sources.compose.ports import endpoint_port_problems
from mesh.sources.compose.tree import ComposeEntry

LARGE = 1 << 17
"""Bytes of all files above which the memory that they took is given back to the system."""
_NO_KEYS: Mapping[str, ComposeEntry] = MappingProxyType({})
"""Instead of the trees of the files, which nobody needs here."""
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
        listing = _list(self._files, self._env, self._good, self._limits)
        self._take(listing)
        return listing.instances, listing.problems

    async def watch(self) -> AsyncGenerator[tuple[tuple[Instance, ...], tuple[Problem, ...]], None]:
        """Yield the instances as `Source.watch` specifies. One reader at a time: `touch` wakes only one."""
        told: tuple[tuple[Instance, ...], tuple[Problem, ...]] | None = None
        while True:
            listing = await asyncio.to_thread(_list, self._files, self._env, self._good, self._limits)
            self._take(listing)
            if listing.trouble is None and (listing.instances, listing.problems) != told:
                told = listing.instances, listing.problems
                yield told
            await self._change(listing.stamps)

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

    async def _change(self, known: Mapping[Path, FileStamp | None]) -> None:
        """Return when a file differs from `known` and no longer changes, or immediately after `touch`."""
        while not await self._touched(self._interval):
            now = await asyncio.to_thread(_stamps, known)
            if now == known:
                continue
            for _ in range(_RESTS_AT_MOST):
                if await self._touched(self._rest):
                    return
                before, now = now, await asyncio.to_thread(_stamps, known)
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
    stamps: Mapping[Path, FileStamp | None] = field(default_factory=dict)
    """All files that were read, as they were before."""


def _list(
    paths: Sequence[Path], env: Mapping[str, str], before: _ComposeListing, limits: ComposeLimits
) -> _ComposeListing:
    listing = _list_files(paths, env, before, limits)
    if max(_size(listing), _size(before)) > LARGE:
        from mesh.util.free_memory import release_free_memory  # noqa: PLC0415 -- few have such files

        release_free_memory()
    return listing


def _size(listing: _ComposeListing) -> int:
    return sum(stamp[1] for stamp in listing.stamps.values() if stamp is not None)


def _list_files(
    paths: Sequence[Path], env: Mapping[str, str], before: _ComposeListing, limits: ComposeLimits
) -> _ComposeListing:
    """Read the files. Services that are refused are taken from `before`, and so is what has not changed: the control
    loop has it, and would keep it beside its equal.
    """
    project = load_compose_project(paths, env, limits)
    content, problems = project.content, project.content.problems
    if content.broken:
        trouble = next(p.coded for p in problems if p.severity is Severity.ERROR)
        return _ComposeListing(problems=problems, trouble=trouble, stamps=project.stamps)
    owners = ((f"{project.name}/{name}", service) for name, service in content.services.items() if service.is_active)
    services = {owner: _kept_service(service, before.services.get(owner)) for owner, service in owners}
    problems += tuple(problem for service in services.values() for problem in endpoint_port_problems(service))
    for name in content.refused:
        owner = f"{project.name}/{name}"
        services.pop(owner, None)
        if owner in before.services:
            services[owner] = before.services[owner]
    found = [
        (Instance(f"{owner}/{endpoint}", owner, endpoint.address, service.labels, endpoint.port), endpoint.where)
        for owner, service in services.items()
        for endpoint in service.endpoints or ()
    ]
    known = {instance.id: instance for instance in before.instances}
    new = sorted((instance for instance, _ in found), key=lambda instance: instance.id)
    instances = tuple(old if (old := known.get(each.id)) == each else each for each in new)
    where = {instance.id: place for instance, place in found}
    return _ComposeListing(
        before.instances if instances == before.instances else instances,
        before.problems if problems == before.problems else problems,
        services,
        where,
        stamps=project.stamps,
    )


def _kept_service(service: ComposeService, before: ComposeService | None) -> ComposeService:
    """Return what is kept of a service, with the labels that it had before if they are the same."""
    labels = service.labels if before is None or service.labels != before.labels else before.labels
    return replace(service, labels=labels, keys=_NO_KEYS)


def _stamps(paths: Iterable[Path]) -> Mapping[Path, FileStamp | None]:
    return {path: file_stamp(path) for path in paths}
