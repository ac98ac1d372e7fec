"""The JSON documents of the verbs that do not ask the daemon for one; `docs/cli.md` lists their fields.

`status` and `explain` print the documents of the admin API, which `mesh/api/openapi.yaml` describes. Fields are added,
never changed or removed; a program must ignore fields that it does not know.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FailureDocument:
    """A verb that could not be carried out."""

    error: str
    """The messages, one line each: subject, state and remedy."""
    codes: tuple[str, ...] = ()
    """Their codes, which `docs/errors.md` explains."""


@dataclass(frozen=True, slots=True)
class LeftOutDocument:
    """An endpoint of another worker to which nothing was done."""

    endpoint: str
    worker: str
    """The worker that runs it."""
    reason: str
    """Why, and how to change that."""
    code: str
    """The code of the reason, which `docs/errors.md` explains."""


@dataclass(frozen=True, slots=True)
class ChangeDocument:
    """The result of `drain`, `maintenance`, `undrain`, `stop` or `weight`."""

    verb: str
    done: tuple[str, ...]
    """The ids of the endpoints that were changed, in the order of the command line."""
    error: str | None = None
    """Why the next endpoint was refused, which also ended the verb; None if all were changed."""
    code: str | None = None
    """The code of the error, which `docs/errors.md` explains."""
    left_out: tuple[LeftOutDocument, ...] = ()
    """The endpoints of other workers that were left out."""


@dataclass(frozen=True, slots=True)
class ClaimChangeDocument:
    """The result of `claims free` or `claims move`."""

    action: str
    done: tuple[str, ...]
    """The claims that were freed or moved, in the order of the command line."""
    error: str | None = None
    """Why the next claim was refused, which also ended the verb; None if all were changed."""
    code: str | None = None
    """The code of the error, which `docs/errors.md` explains."""


@dataclass(frozen=True, slots=True)
class ShareChangeDocument:
    """The result of `rollout share`."""

    service: str
    """The service, `project/service`; as it was written if it was refused."""
    shares: Mapping[str, float]
    """The shares that releases have now, in per cent; the other releases have the rest. Empty after `reset`."""
    error: str | None = None
    """Why it was refused; None if it was not."""
    code: str | None = None
    """The code of the error, which `docs/errors.md` explains."""


@dataclass(frozen=True, slots=True)
class RolloutChangeDocument:
    """The result of `rollout promote`, `pause`, `resume`, `abort` or `undo`."""

    action: str
    service: str
    """The service, `project/service`; as it was written if it was refused."""
    phase: str | None = None
    """The phase that the rollout is in now: `step`, `confirm`, `aborted`; None if the request was refused."""
    state: str | None = None
    """The phase as a sentence; None if the request was refused."""
    reason: str | None = None
    """Why it does that: the verb, and who typed it."""
    error: str | None = None
    """Why it was refused; None if it was not."""
    code: str | None = None
    """The code of the error, which `docs/errors.md` explains."""


@dataclass(frozen=True, slots=True)
class RolloutReleaseDocument:
    """One release of a service."""

    release: str | None
    """Its name; None for the endpoints that name no release."""
    endpoints: int
    serving: int
    """The number of its endpoints to which new connections go."""
    given: float | None
    """The share that an operator gave it, in per cent; None if none was given, or if no shares are in force."""
    share: float
    """Its part of new connections by weight and share, in per cent."""
    opened: int | None = None
    """The new connections that it got through this worker meanwhile; None if they were not counted."""
    measured: float | None = None
    """The part of these in per cent; None if there were none, or if they were not counted."""


@dataclass(frozen=True, slots=True)
class RolloutDocument:
    """The result of `rollout status`."""

    service: str
    """The service, `project/service`."""
    name: str
    """Its first routing name."""
    vip: str | None
    releases: tuple[RolloutReleaseDocument, ...]
    """Its releases, sorted by name; empty if no endpoint names one."""
    shares_by: str | None = None
    """Who gave the shares that are in force; None if none are, or if that is not known."""
    note: str | None = None
    """How shares in force are kept, if not exactly in each cycle of connections; None otherwise."""
    seconds: float | None = None
    """The time in which new connections were counted; None if they were not."""
    rollout: Mapping[str, str | float | bool | None] | None = None
    """How far its rollout is, as `RolloutStatus` of the admin API; None if it has none."""


@dataclass(frozen=True, slots=True)
class WorkerRemovalDocument:
    """The result of `workers remove`."""

    worker: str
    records: int
    """The number of records that were removed from the store."""
    revoked: str | None
    """The file that lists its certificate as revoked; None if it was not revoked where the command runs."""
    lines: tuple[str, ...]
    """The lines that the operator has to type afterwards."""
    error: str | None = None
    """Why its certificate could not be revoked; None if it was, or if there are no certificates."""
    code: str | None = None
    """The code of the error, which `docs/errors.md` explains."""


@dataclass(frozen=True, slots=True)
class SupportPartDocument:
    """A file in the archive of `support`."""

    name: str
    bytes: int
    missing: str | None = None
    """Why it is not there or not whole; None if it is."""


@dataclass(frozen=True, slots=True)
class SupportDocument:
    """The result of `support`."""

    file: str
    parts: tuple[SupportPartDocument, ...]
    """Every file in the archive, and those that are missing."""


@dataclass(frozen=True, slots=True)
class RolesDocument:
    """The result of `cluster roles`."""

    lines: tuple[str, ...]
    """The commands, in the order in which they are to be run."""


@dataclass(frozen=True, slots=True)
class ProblemDocument:
    """A problem of a file."""

    severity: str
    """`error` if the setting is refused; `warning` if it is used without the part that is named."""
    where: str | None
    """`FILE:LINE`; None if no place is known."""
    subject: str
    """The thing that the problem is about: `service server, label mesh.routing.port_80`."""
    label: str | None
    """The full key of the label; None if the problem is not about one."""
    reason: str
    """The state: why it is a problem."""
    remedy: str
    """The remedy: what to write instead."""
    code: str | None
    """The code of the message, which `docs/errors.md` explains."""


@dataclass(frozen=True, slots=True)
class CheckDocument:
    """The result of `check`."""

    files: tuple[str, ...]
    """The files that were checked."""
    errors: int
    warnings: int
    problems: tuple[ProblemDocument, ...]
    """Every problem, in order of the files, then of lines."""


@dataclass(frozen=True, slots=True)
class TeardownDocument:
    """The result of `teardown`."""

    removed: tuple[str, ...]
    """The kernel state that was removed, one line each."""
    failed: tuple[str, ...]
    """The state that could not be removed, and why, one line each."""
    claims: str
    """The URL of the store, which keeps the claims."""


@dataclass(frozen=True, slots=True)
class CertificateDocument:
    """A certificate of the cluster."""

    file: str
    holder: str
    """`authority`, `vipmesh:worker/NAME` or `vipmesh:operator/NAME`; of a revoked one the name of its file."""
    ends: str
    """The last day of its validity, such as `2027-11-30`."""
    action: str
    """`made`, `renewed`, `revoked`, or `kept` if it is as it was."""


@dataclass(frozen=True, slots=True)
class CertificatesDocument:
    """The result of `cluster certs` or `cluster revoke`."""

    directory: str
    certificates: tuple[CertificateDocument, ...]
