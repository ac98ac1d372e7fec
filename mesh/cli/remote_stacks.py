"""Asks daemons about stacks where the engine of this host cannot be asked: the own one, or that of another worker.

Another worker is asked by the command line itself, with the certificate or token of whoever types the verb: no worker
acts because another one says so.
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from mesh.cli.access import AdminAccess, find_access_to
from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.stacks.errors import StackRequestError
from mesh.platform.stacks.rows import StackHistoryDocument, StacksDocument

T = TypeVar("T")

_TIMEOUT = 20.0
"""Seconds that a daemon has for an answer: it may ask other workers for it."""
_PATIENCE = 86_400.0
"""Seconds that a scaling may take: as long as there is progress."""
_MOST_WORKERS = 50
"""The most other workers that are asked."""


class RemoteStacks:
    """Asks the daemon that the options name, and other workers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._asked: AdminClient | None = None

    def listing(self) -> StacksDocument:
        """Return what the engine of some worker runs. Raises `MeshError`, with the reason of the own daemon."""
        found = _decode(self._client.ask("/v1/stacks", timeout=_TIMEOUT).body, StacksDocument)
        if found.error is None:
            return found
        for client in self._others():
            try:
                other = _decode(client.ask("/v1/stacks?here=true").body, StacksDocument)
            except MeshError:
                continue
            if other.error is None:
                return other
        raise StackRequestError(_code(found.code), found.error)

    def history(self, project: str) -> StackHistoryDocument:
        """Return the last deploys of a project, as the own daemon has them. Raises `MeshError`."""
        path = f"/v1/stacks/{quote(project, safe='')}/history"
        return _decode(self._client.ask(path, timeout=_TIMEOUT).body, StackHistoryDocument)

    def scale(
        self, worker: str, project: str, service: str, instances: int, wait: float
    ) -> tuple[str, Mapping[str, Any]]:
        """Have a worker change a number of instances; return the worker and its answer. Raises `MeshError`."""
        client = self._client_of(worker)
        body = {"service": service, "instances": instances, "wait": wait}
        answer, code = client.act(f"/v1/stacks/{quote(project, safe='')}/scale", body, _PATIENCE, lambda _: None)
        if "error" in answer:
            raise StackRequestError(_code(code), str(answer["error"]))
        return worker, answer

    @property
    def _client(self) -> AdminClient:
        if self._asked is None:
            self._asked = AdminClient(self._options)
        return self._asked

    def _client_of(self, worker: str) -> AdminClient:
        """Return the client for a worker. Raises `StackRequestError` if there are no credentials for it."""
        if worker == self._workers().worker:
            return self._client
        try:
            access = self._access(worker)
        except DaemonUnreachableError as error:
            raise StackRequestError(
                Code.STACK_ELSEWHERE, f"the engine of {worker} can do it: {error}; or type it there"
            ) from error
        if access is None:
            raise StackRequestError(
                Code.STACK_ELSEWHERE,
                f"the engine of {worker} can do it, and {worker} is asked with your own credentials alone; name them "
                "with --cert and --ca, or type it there",
            )
        return AdminClient(self._options, access)

    def _others(self) -> Iterator[AdminClient]:
        """Yield a client for each other worker that publishes an admin API; none without own credentials."""
        known = self._workers()
        for worker in [each.name for each in known.workers if each.name != known.worker][:_MOST_WORKERS]:
            try:
                access = self._access(worker)
            except DaemonUnreachableError:
                continue  # it publishes no address
            if access is None:
                return
            yield AdminClient(self._options, access)

    def _access(self, worker: str) -> AdminAccess | None:
        """Return how another worker is asked; None without own credentials. Raises `MeshError`."""
        answer = self._client.ask(f"/v1/workers/{quote(worker, safe='')}/address", timeout=_TIMEOUT)
        address = _decode(answer.body, _WorkerAddress).address
        return find_access_to(worker, address, self._options, os.environ)

    def _workers(self) -> "_Workers":
        return _decode(self._client.ask("/v1/workers", timeout=_TIMEOUT).body, _Workers)


class _WorkerName(msgspec.Struct, frozen=True):
    name: str


class _Workers(msgspec.Struct, frozen=True):
    worker: str
    workers: tuple[_WorkerName, ...] = ()


class _WorkerAddress(msgspec.Struct, frozen=True):
    address: str


def _decode(body: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:
        raise MeshError(Code.DAEMON_UNREACHABLE, f"the answer of the daemon has no stacks: {error}") from error


def _code(code: str | None) -> Code:
    return next((each for each in Code if str(each) == code), Code.STACK_NO_MANAGER)
