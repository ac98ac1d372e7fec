"""The worker of bench/page.py: so many services, of which 60 a second change while DIRECTORY/changing is there.

    python bench/page_worker.py DIRECTORY SERVICES

DIRECTORY/token is the token of its admin API, and DIRECTORY/port gets the port once it listens.
"""

import asyncio
import sys
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from mesh.api.http.broadcaster import EventBroadcaster
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.control.planner import make_plan
from mesh.model.service import Health
from tests.api.page.browser import Worker, observed

CHANGES, STEP = 60, 0.5
"""A second; seconds between two steps."""


async def main(directory: Path, services: int) -> None:
    """Serve until the process is ended."""
    worker = Worker(directory, observed(services, 2))
    feed = EventBroadcaster(worker.look)
    entrance = AdminListenConfig(f"unix://{directory}/admin.sock", f"127.0.0.1:{worker.port}", directory / "token")
    api = AdminApi(entrance, lambda: worker.observed, feed=feed)
    await api.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed.run())
        (directory / "port").write_text(str(worker.port))
        keys = cycle(list(worker.observed.probed))
        while True:
            await asyncio.sleep(STEP)
            if not (directory / "changing").exists():
                continue
            seen = worker.observed
            if seen.view is None:
                raise RuntimeError("the worker has no view")
            probed = dict(seen.probed)
            for key in islice(keys, round(CHANGES * STEP)):
                probed[key] = Health.HEALTHY if probed[key] is Health.UNHEALTHY else Health.UNHEALTHY
            plan = make_plan(seen.view, {**seen.view.health, **probed})
            worker.observed = replace(seen, probed=probed, plan=plan)
            feed.changed()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
