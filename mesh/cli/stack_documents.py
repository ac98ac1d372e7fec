"""The JSON documents of the verbs of stacks; `docs/cli.md` lists their fields.

Fields are added, never changed or removed; a program must ignore fields that it does not know.
"""

from dataclasses import dataclass

from mesh.cli.documents import ProblemDocument
from mesh.platform.stacks.rows import ReleaseRow


@dataclass(frozen=True, slots=True)
class ServiceChangeDocument:
    """What a deploy does to one service."""

    service: str
    kind: str
    """`create`, `release`, `scale`, `continue`, `nothing`, `remove`, `leave` or `refuse`."""
    text: str
    differences: tuple[str, ...]
    """What of the container or its surroundings differs; values of the environment are not told."""
    outside: tuple[str, ...]
    """What was changed outside vipmesh."""
    strategy: str | None
    """`rolling` or `replace`; None if no release takes the place of another."""
    strategy_reason: str | None


@dataclass(frozen=True, slots=True)
class ServiceFailureDocument:
    """A service that did not become ready."""

    service: str
    ready: int
    wanted: int
    reasons: tuple[str, ...]
    """Why, in the words of the engine or of the last probe."""


@dataclass(frozen=True, slots=True)
class DeployDocument:
    """The result of `deploy`, `undeploy` or `scale`."""

    project: str
    dry_run: bool
    changes: tuple[ServiceChangeDocument, ...] = ()
    """What differs, in order of the steps."""
    steps: tuple[str, ...] = ()
    """What was done, in order."""
    failures: tuple[ServiceFailureDocument, ...] = ()
    problems: tuple[ProblemDocument, ...] = ()
    """What is wrong with the files."""
    volumes: tuple[str, ...] = ()
    """The named volumes that `undeploy` leaves."""
    error: str | None = None
    """Why it ended before its end; None if it did not."""
    code: str | None = None
    """The code of the error, which `docs/errors.md` explains."""
    worker: str | None = None
    """The worker that has scaled; None if the engine of this host was asked."""


@dataclass(frozen=True, slots=True)
class InstancesDocument:
    """The result of `ps`."""

    services: tuple[ReleaseRow, ...]
    error: str | None = None
    """Why it is not known what serves; None if it is."""
    code: str | None = None
    worker: str | None = None
    """The worker whose engine has answered; None for the engine of this host."""


@dataclass(frozen=True, slots=True)
class InstanceMovesDocument:
    """The result of `rebalance`, or of `drain` or `undrain` with `--worker`."""

    verb: str
    worker: str | None
    """The worker that is drained or taken back; None for a rebalancing."""
    dry_run: bool
    moves: tuple[str, ...] = ()
    """What is to be moved, a line each; of a rebalancing only with `--dry-run`."""
    everywhere: tuple[str, ...] = ()
    """Services with one instance on each worker: that of the worker ends."""
    bound: tuple[str, ...] = ()
    """Services with data of the worker, or that no other worker may have."""
    outside: tuple[str, ...] = ()
    """Services there that vipmesh has not deployed."""
    steps: tuple[str, ...] = ()
    """What was done, in order."""
    failures: tuple[ServiceFailureDocument, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left alone or left out, and why."""
    error: str | None = None
    """Why it ended before its end; None if it did not."""
    code: str | None = None
