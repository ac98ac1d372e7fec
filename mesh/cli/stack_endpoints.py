"""Drains the endpoints of instances at the daemons of their workers, several at a time."""

import argparse
import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar

from mesh.cli.client import AdminClient
from mesh.cli.drain import PATIENCE, client_of, read_status
from mesh.cli.endpoint_targets import ClusterDirectory, EndpointTarget
from mesh.cli.stack_access import StackRequestError
from mesh.model.codes import Code

T = TypeVar("T")

_AT_A_TIME = 16
"""Endpoints that drain at the same time: each is a request that waits for its connections."""


class AdminStackEndpoints:
    """Requests drains of the daemons that run the endpoints of tasks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    async def drain(self, tasks: Collection[str]) -> tuple[str, ...]:
        """Drain the endpoints of tasks and wait until their connections have ended.

        Returns a line for each worker that cannot be asked. Raises `StackRequestError` and `DaemonUnreachableError`.
        """
        return await self._change("drain", tasks)

    async def undrain(self, tasks: Collection[str]) -> tuple[str, ...]:
        """Let the endpoints of tasks take connections again. Returns and raises as `drain`."""
        return await self._change("undrain", tasks)

    async def _change(self, verb: str, tasks: Collection[str]) -> tuple[str, ...]:
        asked = AdminClient(self._options)
        directory = await _in_thread(partial(read_status, asked))
        clients: dict[str, AdminClient] = {directory.worker: asked}
        here: list[EndpointTarget] = []
        notes: dict[str, str] = {}
        for target in targets_of(directory, tasks):
            left_out = client_of(target, directory, self._options, clients)
            if left_out is None:
                here.append(target)
            else:
                notes[target.worker] = (
                    f"{left_out.reason} [{left_out.code}]; its instances drain when the engine stops them"
                )
        places = asyncio.Semaphore(_AT_A_TIME)

        async def change(target: EndpointTarget) -> None:
            async with places:
                body = self._body(verb, target, here, directory)
                await _in_thread(partial(_request, clients[target.worker], verb, target, body))

        await asyncio.gather(*map(change, here))
        return tuple(notes[worker] for worker in sorted(notes))

    def _body(
        self, verb: str, target: EndpointTarget, together: Collection[EndpointTarget], directory: ClusterDirectory
    ) -> Mapping[str, Any]:
        body: dict[str, Any] = {"name": target.name}
        if verb == "drain" and directory.counts_together:
            body["together"] = [{"worker": each.worker, "endpoint": each.name} for each in together]
            if self._options.force:
                body["force"] = True
        return body


def targets_of(directory: ClusterDirectory, tasks: Collection[str]) -> tuple[EndpointTarget, ...]:
    """Return the endpoints of tasks. Swarm names the container of a task SERVICE.SLOT.TASK."""
    wanted = frozenset(tasks)
    found = (
        EndpointTarget(endpoint["id"], endpoint["worker"])
        for endpoint in directory.endpoints
        if (endpoint.get("name") or "").rpartition(".")[2] in wanted
    )
    return tuple(dict.fromkeys(found))


def _request(client: AdminClient, verb: str, target: EndpointTarget, body: Mapping[str, Any]) -> None:
    answer, code = client.act(f"/v1/{verb}", body, PATIENCE, lambda _: None)
    error = answer.get("error")
    if error is not None:
        named = "" if code is None else f" [{code}]"
        raise StackRequestError(Code.ENDPOINTS_NOT_DRAINED, f"{target.shown}: {error}{named}")


async def _in_thread(work: Callable[[], T]) -> T:
    """Return the result of a request that may take long, from a thread for which an interruption does not wait."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def finish(change: Callable[[], None]) -> None:
        if not found.done():
            change()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 -- it is raised where the result is awaited
            change = partial(found.set_exception, error)
        else:
            change = partial(found.set_result, result)
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, change)

    threading.Thread(target=run, daemon=True).start()
    return await found
