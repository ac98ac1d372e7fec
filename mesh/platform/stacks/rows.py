"""The rows of what runs of stacks and of their deploys, and the documents that have them. Pure.

Fields are added, never changed or removed; a program must ignore fields that it does not know. `vipmesh ps` needs no
more than this where a daemon answers: nothing else is imported here.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """One release of a service."""

    service: str
    """`PROJECT/SERVICE`."""
    release: str
    image: str
    desired: int | None
    """None: one on each worker."""
    running: int
    serving: int | None
    """None if it has no routing, or if no daemon answers."""
    pending: tuple[str, ...]
    """Why the engine has not started the others, in its own words."""
    workers: dict[str, int]
    """How many run on each worker."""
    outside: tuple[str, ...]
    """What was changed outside vipmesh."""
    project: str = ""
    ready: int | None = None
    """Those that serve, or that run where there is no routing; None if no daemon answers."""


@dataclass(frozen=True, slots=True)
class StacksDocument:
    """The document of `GET /v1/stacks`: all that runs of the stacks, or why that is not known."""

    worker: str | None
    """The worker whose engine has answered; None if none has."""
    services: tuple[ReleaseRow, ...] = ()
    """Each release of each service, sorted by service and release."""
    error: str | None = None
    """Why it is not known what runs; None if it is."""
    code: str | None = None
    """The code of the error, which `docs/errors.md` explains."""


@dataclass(frozen=True, slots=True)
class DeployRow:
    """One deploy of one service."""

    service: str
    release: str | None
    """None where no engine answers that has the release."""
    digest: str
    """The digest of what it was made of."""
    image: str | None
    """None as for `release`."""
    at: str
    """The time, as `2026-11-30T14:02:11Z`."""
    by: str
    """The user, with the host."""


@dataclass(frozen=True, slots=True)
class StackHistoryDocument:
    """The document of `GET /v1/stacks/PROJECT/history`."""

    project: str
    deploys: tuple[DeployRow, ...] = field(default=())
    """Newest first."""
