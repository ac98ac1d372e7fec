"""Finds out which worker runs the endpoints that a verb names, from the status of the worker that is asked. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mesh.model.codes import Code
from mesh.model.errors import MeshError


class EndpointTargetError(MeshError):
    """A name does not say which endpoint is meant. The text ends with what to write instead."""


class EndpointTarget(NamedTuple):
    """An endpoint that a verb is about."""

    name: str
    """The name or ID of a container, or the ID of an endpoint, for the request to its worker."""
    worker: str

    @property
    def shown(self) -> str:
        """How messages name it, and how it can be typed."""
        return f"{self.name}@{self.worker}"


@dataclass(frozen=True, slots=True)
class ClusterDirectory:
    """The endpoints of each worker, as one worker knows them."""

    worker: str
    """The worker that was asked."""
    admin: Mapping[str, str] = field(default_factory=dict)
    """The address of the admin API of each worker that publishes one, `HOST:PORT` or `https://HOST:PORT`."""
    endpoints: Sequence[Mapping[str, Any]] = ()
    """All endpoints, as in the status document."""
    services: Mapping[str, Sequence[EndpointTarget]] = field(default_factory=dict)
    """The endpoints of each service, by each of its names and by its owner."""
    counts_together: bool = True
    """Whether the worker knows that several endpoints are requested at once; version 0.1.0 does not."""

    def find(self, name: str) -> tuple[EndpointTarget, ...]:
        """Return the endpoints of this name: one, or all of a service.

        An endpoint of the worker that is asked comes before those of others. A name that nothing in the status has is
        that worker's, too: it knows its containers by more names. Raises `EndpointTargetError`.
        """
        called, at, worker = name.rpartition("@")
        if at and called and worker in self._workers:
            found = [each for each in self._called(called) if each.worker == worker]
            return (found[0] if found else EndpointTarget(called, worker),)
        found = self._called(name)
        own = [each for each in found if each.worker == self.worker]
        if own:
            return (EndpointTarget(name, self.worker),)
        if len(found) > 1:
            raise EndpointTargetError(
                Code.ENDPOINT_AMBIGUOUS,
                f"several workers run {name}; write {' or '.join(f'{name}@{each.worker}' for each in found)}",
            )
        if found:
            return (found[0],)
        return tuple(self.services.get(name.rstrip("."), ())) or (EndpointTarget(name, self.worker),)

    @property
    def _workers(self) -> frozenset[str]:
        return frozenset([self.worker, *self.admin, *(endpoint["worker"] for endpoint in self.endpoints)])

    def _called(self, name: str) -> list[EndpointTarget]:
        return [
            EndpointTarget(endpoint["id"], endpoint["worker"])
            for endpoint in self.endpoints
            if name in (endpoint["id"], endpoint.get("name"))
        ]


def read_directory(status: Mapping[str, Any]) -> ClusterDirectory:
    """Return who runs what by a status document. Raises `LookupError` and `TypeError` if it is none."""
    endpoints: list[Mapping[str, Any]] = []
    services: dict[str, list[EndpointTarget]] = {}
    for service in status["services"]:
        rows = service["endpoints"]
        endpoints += rows
        targets = [EndpointTarget(row["id"], row["worker"]) for row in rows]
        for name in {service["name"], service["owner"], *service["names"]}:
            services.setdefault(name, []).extend(targets)
    return ClusterDirectory(
        status["worker"],
        {row["name"]: row["admin"] for row in status.get("workers", ()) if row.get("admin")},
        endpoints,
        services,
        all("weight_from" in row for row in endpoints),
    )
