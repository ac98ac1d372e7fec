"""A worker with an admin API and a channel to one other, for `channel.py`: NAME DIRECTORY PORT OTHER PORT_OF_OTHER."""

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from mesh.api.channel.certificates import ChannelCertificates
from mesh.api.channel.https import HttpsWorkerChannel
from mesh.api.http.past_events import PastEventsHandler
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.model.claims import Claims
from mesh.model.service import Endpoint, Instance, Route, Service, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from mesh.testing.channel import FakeDirectory

SERVICES, ENDPOINTS = 100, 3


def observed(name: str) -> WorkerSnapshot:
    """A worker of a cluster."""
    names = [f"service-{number}.mesh.internal" for number in range(SERVICES)]
    services = tuple(Service(f"demo/{n}", n, (Route(n, 80, Transport.TCP, 80),)) for n in sorted(names))
    endpoints = tuple(
        Endpoint(f"{s.owner}-{n}", s.owner, name, f"10.0.{number}.{n + 1}")
        for number, s in enumerate(services)
        for n in range(ENDPOINTS)
    )
    vips = {s.name: f"10.112.1.{n}" for n, s in enumerate(services)}
    view = ClusterView(services, endpoints, Claims(vips, {s.name: s.owner for s in services}))
    instances = tuple(Instance(e.id, e.owner, e.address, {}) for e in endpoints)
    return WorkerSnapshot(WorkerFacts("0", name, "bench", "a bench"), view, instances, plan=make_plan(view, {}))


async def serve(name: str, directory: Path, port: int, other: str, there: int) -> None:
    """Answer until SIGTERM."""
    certificates = ChannelCertificates(directory / f"{name}.pem", None, directory / "ca.pem")
    channel = HttpsWorkerChannel(FakeDirectory({other: RealKey("127.0.0.1", there)}), certificates)
    listen = AdminListenConfig(
        f"unix://{directory}/{name}.sock",
        f"127.0.0.1:{port}",
        cert=directory / f"{name}.pem",
        client_ca=directory / "ca.pem",
    )
    snapshot, end = observed(name), asyncio.Event()
    api = AdminApi(listen, lambda: snapshot, past=PastEventsHandler(lambda: name), channel=channel)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    await api.start()
    print("ready", flush=True)
    await end.wait()
    await api.stop()
    await channel.close()


if __name__ == "__main__":
    who, where, at, peer, its = sys.argv[1:]
    uvloop.run(serve(who, Path(where), int(at), peer, int(its)))
