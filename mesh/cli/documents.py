"""What programs get of the verbs that answer by themselves; `docs/cli.md` describes each field.

`status` and `explain` give what the admin API gives, which `mesh/api/openapi.yaml` describes. Fields are added, never
changed or taken away; a program ignores those that it does not know.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FailureDocument:
    """The verb could not be carried out."""

    error: str
    """What, why, and what to do instead; a line for each thing that is wrong."""
    codes: tuple[str, ...] = ()
    """Where `docs/errors.md` says more."""


@dataclass(frozen=True, slots=True)
class ChangeDocument:
    """Of `drain`, `undrain`, `stop`."""

    verb: str
    done: tuple[str, ...]
    """Ids of the endpoints, in the order in which they were named."""
    error: str | None = None
    """Why the next one was not; those after it were not tried."""
    code: str | None = None
    """Where `docs/errors.md` says more of the error."""


@dataclass(frozen=True, slots=True)
class ProblemDocument:
    """A problem of a file."""

    severity: str
    """`error`: it is refused; `warning`: it is taken, without the part that is named."""
    where: str | None
    """`FILE:LINE`."""
    subject: str
    """What it is about: `service server, label mesh.routing.port_80`."""
    label: str | None
    """The label's full key, if it is about one."""
    reason: str
    remedy: str
    """What to write instead."""
    code: str | None
    """Where `docs/errors.md` says more."""


@dataclass(frozen=True, slots=True)
class CheckDocument:
    """Of `check`."""

    files: tuple[str, ...]
    errors: int
    warnings: int
    problems: tuple[ProblemDocument, ...]
    """In order of the files, then of lines."""


@dataclass(frozen=True, slots=True)
class TeardownDocument:
    """Of `teardown`."""

    removed: tuple[str, ...]
    """What was taken away from the kernel, a line each."""
    failed: tuple[str, ...]
    """What could not be, and why."""
    claims: str
    """The URL of the store, which keeps what was given away."""
