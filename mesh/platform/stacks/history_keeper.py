"""Copies the last deploys that engine services carry to the store, for workers whose engines cannot be asked.

The engine is the one that is believed. Every worker with a manager of the swarm copies the same, so it does no harm
that there are several; what the store has of services that are gone stays.
"""

import asyncio
import logging
from collections.abc import Mapping

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.part import DaemonPart
from mesh.platform.fleet.errors import FleetError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.kept_deploys import (
    KeptDeploy,
    decode_deploys,
    encode_deploys,
    kept_deploys,
    merge_deploys,
    stack_key,
    surplus_keys,
)
from mesh.platform.stacks.records import history_of
from mesh.platform.stacks.running import projects_of, read_running
from mesh.store import Store
from mesh.util.bulkhead import Bulkhead

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.DAEMON)

PAUSE = 5.0
"""Seconds between two looks at the engine while its services change."""
RETRY = 30.0
"""Seconds until a copy that failed is tried again."""


class DeployHistoryKeeper:
    """Keeps the records of the last deploys in the store."""

    def __init__(self, fleet: Fleet, store: Store) -> None:
        self._fleet = fleet
        self._store = store
        self._due = asyncio.Event()
        self._written: dict[str, tuple[KeptDeploy, ...]] = {}
        """What the engine had of each project when it was copied last."""
        self._failed = ""
        """Why the last copy failed; empty if it did not."""

    async def run(self) -> None:
        """Copy after each change of the engine's services, until cancelled."""
        self._due.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bulkhead.keep_running("changes of stacks", self._follow), name="changes of stacks")
            while True:
                await self._due.wait()
                self._due.clear()
                await bulkhead.run("deploys in the store", self._copy_patiently)
                await asyncio.sleep(PAUSE)

    async def copy(self) -> None:
        """Copy what the engine has once. An engine that is no manager has nothing. Raises `MeshError`."""
        state = await self._fleet.state()
        if not state.can_act:
            return
        services = await self._fleet.services()
        found = {name: kept_deploys(history_of(read_running(name, services, (), {}))) for name in projects_of(services)}
        changed = {name: each for name, each in found.items() if each and self._written.get(name) != each}
        if not changed:
            return
        records = (await self._store.read()).records
        for project, deploys in changed.items():
            if await self._write(project, deploys, records):
                self._written[project] = deploys
            else:
                self._due.set()  # another worker was faster
        for key in surplus_keys(records):
            await self._store.change({key: records[key]}, {key: None})

    async def _follow(self) -> None:
        async for _ in self._fleet.changes():
            self._due.set()

    async def _copy_patiently(self) -> None:
        try:
            await self.copy()
        except FleetError:
            return  # the next change of the engine, or its next start, says that it is there again
        except MeshError as error:
            if str(error) != self._failed:
                self._failed = str(error)
                log.warning(
                    "the last deploys are not written to the store: %s", error, extra=Code.DEPLOYS_NOT_KEPT.extra
                )
            await asyncio.sleep(RETRY)
            self._due.set()
        else:
            self._failed = ""

    async def _write(self, project: str, deploys: tuple[KeptDeploy, ...], records: Mapping[str, bytes]) -> bool:
        """Write the record of a project; return whether nobody has changed it meanwhile. Raises `StoreError`."""
        try:
            key = stack_key(project)
        except ValueError:
            return True  # no compose file has such a name: somebody has labelled a service so
        before = records.get(key)
        value = encode_deploys(merge_deploys(_kept(before), deploys))
        return value == before or await self._store.change({key: before}, {key: value})


def _kept(value: bytes | None) -> tuple[KeptDeploy, ...]:
    """Return the deploys of a record; none if there is none or it is not valid."""
    try:
        return () if value is None else decode_deploys(value)
    except ValueError:
        return ()
