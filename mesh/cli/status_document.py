"""The status of a worker as its daemon sends it, what of it counts for a name, and what is wrong with it. Pure.

The fields are those of the admin API that `vipmesh status` shows. A daemon of an earlier version sends fewer of them.
"""

import re
from collections.abc import Iterator
from functools import cached_property

import msgspec


class EndpointRow(msgspec.Struct, frozen=True):
    """One endpoint."""

    id: str
    worker: str
    address: str
    port: int | None
    weight: int
    release: str | None
    health: str
    serving: bool
    last_probe: str | None = None
    drain: str | None = None
    name: str | None = None
    kept: bool = False
    held_back: bool = False
    programming: bool = False
    since: str | None = None
    last_probe_at: str | None = None
    connections: int | None = None
    opened: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    slow_start_percent: int | None = None
    slow_start_until: str | None = None


class ReleaseShareRow(msgspec.Struct, frozen=True):
    """One release of a service."""

    release: str | None
    endpoints: int
    serving: int
    given: float | None
    share: float


class ServiceRow(msgspec.Struct, frozen=True):
    """One service."""

    name: str
    owner: str
    vip: str | None
    names: tuple[str, ...]
    virtual_servers: tuple[str, ...]
    endpoints: tuple[EndpointRow, ...]
    not_arriving: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    releases: tuple[ReleaseShareRow, ...] = ()

    @property
    def serving(self) -> int:
        """The number of endpoints that serve."""
        return sum(endpoint.serving for endpoint in self.endpoints)

    @property
    def rank(self) -> int:
        """0 if no endpoint serves, 1 if something else is wrong, 2 if all is well."""
        if not any(endpoint.serving for endpoint in self.endpoints):
            return 0
        well = all(e.serving and not e.kept and not e.held_back for e in self.endpoints)
        return 2 if well and not self.not_arriving else 1

    def is_called(self, asked: str) -> bool:
        """Return whether this is the name of the service, of an endpoint or of a worker that runs one, or a VIP."""
        name = asked.lower().rstrip(".")
        names = (self.name, *self.names)
        return (
            any(name in (each, each.partition(".")[0]) for each in names)
            or asked in (self.owner, self.owner.rpartition("/")[2], self.vip)
            or any(asked in (each.id, each.name, each.worker) for each in self.endpoints)
        )


class Notice(msgspec.Struct, frozen=True):
    """One current condition of the worker."""

    kind: str
    severity: str
    code: str | None
    text: str
    owner: str | None = None


class LogsRow(msgspec.Struct, frozen=True):
    """How far the collection of logs is."""

    answers: bool
    logs: int = 0
    lag_seconds: float = 0.0
    lost: int = 0
    refused: int = 0


class StatusDocument(msgspec.Struct, frozen=True, dict=True):
    """The status of a worker."""

    version: str
    worker: str
    data_plane: str
    data_plane_reason: str
    services: tuple[ServiceRow, ...] = ()
    problems: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    suspicions: tuple[str, ...] = ()
    repairs: int = 0
    digest: str | None = None
    store: str = ""
    workers: tuple[dict[str, str | int | None], ...] = ()
    notices: tuple[Notice, ...] = ()
    acting: str | None = None
    logs: LogsRow | None = None

    @cached_property
    def conditions(self) -> tuple[Notice, ...]:
        """What is wrong, errors first; of an earlier version, whose texts have no codes, too."""
        found = self.notices or tuple(self._earlier_notices())
        return tuple(sorted(found, key=lambda notice: notice.severity != "error"))

    @property
    def is_in_order(self) -> bool:
        """Whether nothing of level error is wrong, and each service has an endpoint that serves.

        Before the first pass nothing is known of the services.
        """
        return (
            self.digest is not None
            and all(service.rank for service in self.services)
            and all(notice.severity != "error" for notice in self.conditions)
        )

    def about(self, asked: str) -> "StatusDocument":
        """Return the part that is about this name; without services and notices if nothing is called so."""
        services = tuple(service for service in self.services if service.is_called(asked))
        owners = {service.owner for service in services} | {
            owner
            for notice in self.conditions
            if (owner := notice.owner) is not None and asked in (owner, owner.rpartition("/")[2])
        }
        words = {asked, *(word for each in services for word in (each.name, each.vip, *each.names) if word)}
        mention = re.compile(rf"(?<![\w.:-])(?:{'|'.join(map(re.escape, sorted(words)))})(?![\w-]|\.\w)")
        notices = tuple(
            notice
            for notice in self.conditions
            if (notice.owner in owners if notice.owner is not None else mention.search(notice.text))
        )
        return msgspec.structs.replace(
            self, services=services, notices=notices, problems=(), failures=(), frozen=(), suspicions=()
        )

    def _earlier_notices(self) -> Iterator[Notice]:
        for text in self.problems:
            is_error = text.startswith("error: ") or ": error: " in text
            yield Notice("problem", "error" if is_error else "warning", None, text)
        for kind, severity, texts in (
            ("failure", "error", self.failures),
            ("frozen", "error", self.frozen),
            ("suspicion", "warning", self.suspicions),
        ):
            yield from (Notice(kind, severity, None, text) for text in texts)


def decode_status(body: str) -> StatusDocument:
    """Return the status in a response. Raises `ValueError` if it is none."""
    try:
        return msgspec.json.decode(body, type=StatusDocument)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
