"""The last deploys of a project as the store keeps them: time, author and digests, no spec and no environment. Pure.

    stacks/<project>    {"v": 1, "deploys": [{"at", "by", "digests": {SERVICE: DIGEST}}]}    newest first, at most ten

The record is for people on workers whose engines cannot be asked. Any worker may write it, so nothing is decided by it:
what the engine has to run is read from compose files and from the engine's own services alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from mesh.cluster.records.decode import MAX_RECORD_BYTES, record_key
from mesh.model.past_event import bounded_text
from mesh.model.validation import validate_number, validate_text
from mesh.platform.stacks.records import DeployRecord

STACKS_PREFIX = "stacks/"
"""The key prefix of the records of all projects."""
MOST_DEPLOYS = 10
"""The most deploys that are kept of a project."""
MOST_PROJECTS = 200
"""The most projects that are kept: each branch of a repository may be one."""
MOST_SERVICES = 500
"""The most services of one deploy."""
MOST_BYTES = 64 << 10
"""The most bytes of a record that is written."""
_VERSION = 1
_LATEST = 1 << 40
"""The latest time, in seconds since the epoch."""
_MOST_CHARACTERS = 200
"""Of an author, a service and a digest."""


@dataclass(frozen=True, slots=True)
class KeptDeploy:
    """One deploy of a project."""

    at: int
    """In seconds since the epoch."""
    by: str
    """The user, with the host: `anna@w1`."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """The digest of each service that got a new release, by its name."""


class _DeployValue(msgspec.Struct, frozen=True):
    at: int
    by: str
    digests: dict[str, str]


class _StackValue(msgspec.Struct, frozen=True):
    v: int
    deploys: tuple[_DeployValue, ...] = ()


def stack_key(project: str) -> str:
    """Return the key of the record of a project. Raises ValueError if it is no name that compose can give."""
    validate_text(project, "a project")
    if len(project) > _MOST_CHARACTERS:
        raise ValueError(f"a project has more than {_MOST_CHARACTERS} characters")
    return record_key("stacks", project)


def kept_deploys(records: Iterable[DeployRecord]) -> tuple[KeptDeploy, ...]:
    """Return the deploys that engine services carry: what one user deployed at one time is one deploy."""
    found: dict[tuple[int, str], dict[str, str]] = {}
    for each in records:
        digests = found.setdefault((each.at, _bounded(each.by)), {})
        if len(digests) < MOST_SERVICES:
            digests[_bounded(each.service)] = _bounded(each.digest)
    return _newest(KeptDeploy(at, by, digests) for (at, by), digests in found.items() if 0 <= at <= _LATEST)


def merge_deploys(kept: Iterable[KeptDeploy], found: Iterable[KeptDeploy]) -> tuple[KeptDeploy, ...]:
    """Return the newest deploys of both, each once; what is `found` in the engine counts where both say something."""
    merged: dict[tuple[int, str], dict[str, str]] = {}
    for each in (*found, *kept):
        digests = merged.setdefault((each.at, each.by), {})
        for service, digest in each.digests.items():
            # A record with more services of one deploy is no valid one.
            if service not in digests and len(digests) < MOST_SERVICES:
                digests[service] = digest
    return _newest(KeptDeploy(at, by, digests) for (at, by), digests in merged.items())


def encode_deploys(deploys: Iterable[KeptDeploy]) -> bytes:
    """Return the value of the record: as many of the newest deploys as have room."""
    kept = [_DeployValue(each.at, each.by, dict(sorted(each.digests.items()))) for each in _newest(deploys)]
    while True:
        value = msgspec.json.encode(_StackValue(_VERSION, tuple(kept)))
        if len(value) <= MOST_BYTES or not kept:
            return value
        kept.pop()


def decode_deploys(value: bytes) -> tuple[KeptDeploy, ...]:
    """Return the deploys of a record, newest first; none of a record of a later version.

    Raises ValueError if it is not valid, whatever it has.
    """
    if len(value) > MAX_RECORD_BYTES:
        raise ValueError(f"it has more than {MAX_RECORD_BYTES} bytes")
    try:
        found = msgspec.json.decode(value, type=_StackValue)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if found.v != _VERSION:
        return ()
    return merge_deploys((), map(_valid, found.deploys[:MOST_DEPLOYS]))


def surplus_keys(records: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the keys of the projects beyond the most that are kept, those without a deploy for longest."""
    keys = [key for key in records if key.startswith(STACKS_PREFIX)]
    if len(keys) <= MOST_PROJECTS:
        return ()
    return tuple(sorted(keys, key=lambda key: (_last_deploy(records[key]), key))[: len(keys) - MOST_PROJECTS])


def _last_deploy(value: bytes) -> int:
    """Return the time of the last deploy of a record; 0 if it is not valid or has none."""
    try:
        return max((each.at for each in decode_deploys(value)), default=0)
    except ValueError:
        return 0


def _valid(value: _DeployValue) -> KeptDeploy:
    validate_number(value.at, 0, _LATEST, "seconds since the epoch")
    if len(value.digests) > MOST_SERVICES:
        raise ValueError(f"a deploy has more than {MOST_SERVICES} services")
    for text in (value.by, *value.digests, *value.digests.values()):
        validate_text(text, "an author, a service or a digest")
    return KeptDeploy(value.at, value.by, value.digests)


def _newest(deploys: Iterable[KeptDeploy]) -> tuple[KeptDeploy, ...]:
    return tuple(sorted(deploys, key=lambda each: (-each.at, each.by))[:MOST_DEPLOYS])


def _bounded(text: str) -> str:
    """Return a text that passes the gate."""
    return bounded_text(text.encode(errors="replace").decode(), _MOST_CHARACTERS) or "-"
