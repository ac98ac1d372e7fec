"""`vipmesh demo`: shows the whole request path on loopback while it happens.

The demo starts the daemon on the example stack, real HTTP instances for its `x-endpoints`, and a client that does what
a user's client does: ask the name server, connect to the VIP. Then one instance dies, is pruned, and returns. The demo
needs no root, no kernel feature and no other server, and leaves nothing behind.
"""

import asyncio
import ipaddress
import secrets
import signal
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from mesh.api.status import ServiceStatus
from mesh.cli.demo_stack import demo_endpoints, demo_override
from mesh.config.labels.parse import parse_labels
from mesh.config.settings import Settings, parse_settings
from mesh.daemon.wiring import RunningDaemon, StartError, run_daemon
from mesh.model.codes import Code
from mesh.model.eligibility import first_container_port
from mesh.model.errors import CodedText
from mesh.model.service import Instance, Transport
from mesh.model.table import VirtualKey
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.source import ComposeSource
from meshdns.message import build_upstream_query, parse_reply
from meshdns.rdata import RecordType, encode_name

EXAMPLE_FILE = Path("examples/restserver/compose.yaml")
"""The compose file of the example stack."""
EXAMPLE_ROOTS = (Path(__file__).resolve().parents[2], Path(sys.prefix, "share", "vipmesh"))
"""The directories that may contain it: the source tree, and where a wheel installs it."""

SETTINGS = """
[vip]
pool = "127.112.0.0/16"
[dataplane]
driver = "userspace"
low_port_offset = {offset}
[dns]
listen = ["127.0.0.1:5353"]
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
tcp = "127.0.0.1:9780"
token_file = "{directory}/token"
[source.compose]
files = [{files}]
"""
"""The settings of the demo's daemon."""

REQUEST_INTERVAL = 0.5
"""Seconds between two requests of the demo's client."""
REPORT_INTERVAL = 5.0
"""Seconds between two reports of the client's requests."""


async def run_demo(file: Path | None, environment: Mapping[str, str]) -> None:
    """Run the demo until Ctrl-C or SIGTERM. Raises what `run_daemon` raises, alone or in an exception group.

    `file` is a compose file, or None for the example stack.
    """
    compose = file or next(
        (root / EXAMPLE_FILE for root in EXAMPLE_ROOTS if (root / EXAMPLE_FILE).exists()), EXAMPLE_FILE
    )
    if not compose.exists():
        raise StartError(Code.DEMO_CANNOT_START, f"{compose} does not exist; name a compose file: vipmesh demo FILE")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="vipmesh-demo-") as directory:
        files = _stack_files(compose, environment, Path(directory))
        named = ", ".join(f'"{file}"' for file in files)
        text = SETTINGS.format(offset=_port_offset(), directory=directory, files=named)
        _make_token(Path(directory, "token"))
        settings = parse_settings(text, environment, hostname="demo", file="demo")
        instances = [DemoInstance(instance) for instance in _listed(files, environment)]
        try:
            for instance in instances:
                await instance.start()
            async with asyncio.TaskGroup() as tasks:
                stories: list[asyncio.Task[None]] = []

                def began(running: RunningDaemon) -> None:
                    stories.append(
                        tasks.create_task(DemoStory(running, compose, settings, instances).tell(), name="story")
                    )

                await run_daemon(settings, environment, stop, began)
                for story in stories:
                    story.cancel()
        finally:
            for instance in instances:
                await instance.stop()
    print("\nThe demo has ended and left nothing behind.")


def _make_token(file: Path) -> None:
    file.touch(0o600)
    file.write_text(secrets.token_hex(16))


def _port_offset() -> int:
    """Return 0 if this process can listen on port 80 of a loopback address, else 8000."""
    with socket.socket() as trial:
        try:
            trial.bind(("127.112.255.254", 80))
        except OSError:
            return 8000
    return 0


def _stack_files(compose: Path, environment: Mapping[str, str], directory: Path) -> list[Path]:
    """Return the files of the stack: the one that is shown, and one with the instances that it does not list."""
    endpoints = demo_endpoints(load_compose_project([compose], environment).content)
    if not endpoints:
        return [compose]
    override = directory / "endpoints.yaml"
    override.write_text(demo_override(endpoints))
    return [compose, override]


def _listed(files: list[Path], environment: Mapping[str, str]) -> tuple[Instance, ...]:
    """Return the instances that the demo has to start. Raises `StartError` if it cannot start them."""
    compose = files[0]
    instances, problems = ComposeSource(files, env=environment).read()
    if not instances:
        message = f"{compose} has no service with a routing label, so the demo has nothing to start"
        details = [CodedText(f"  {problem}", problem.code) for problem in problems]
        raise StartError(Code.DEMO_CANNOT_START, message, details)
    for instance in instances:
        if not ipaddress.ip_address(instance.address).is_loopback:
            message = f"{compose}: the demo starts instances on 127.0.0.0/8 only, not on {instance.address}"
            raise StartError(Code.DEMO_CANNOT_START, message)
    return instances


class DemoInstance:
    """An HTTP server that stands for one container."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._runner: web.AppRunner | None = None
        parsed = parse_labels(instance.labels, owner=instance.owner, subject=instance.id, domain="mesh.internal")
        self.port = instance.port or (first_container_port(parsed.service) if parsed.service else 80)

    @property
    def owner(self) -> str:
        """The service that it is an instance of, `project/service`."""
        return self._instance.owner

    @property
    def name(self) -> str:
        """The address, `127.0.0.11:18080`, which the server also answers with."""
        return f"{self._instance.address}:{self.port}"

    async def start(self) -> None:
        """Start to listen. Raises `StartError`."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._instance.address, self.port).start()
        except OSError as error:
            raise StartError(
                Code.DEMO_CANNOT_START, f"the demo cannot start an instance on {self.name}: {error.strerror}"
            ) from error

    async def stop(self) -> None:
        """Stop at once, as a killed container does; does nothing if it is not running."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(text=f"hello from {self.name}\n")


class DemoStory:
    """Prints the events of the demo as they happen."""

    def __init__(
        self, running: RunningDaemon, compose: Path, settings: Settings, instances: list[DemoInstance]
    ) -> None:
        self._running = running
        self._admin = settings.admin_listen
        token = settings.admin_token_file.read_text() if settings.admin_token_file is not None else ""
        self._page = f"http://{settings.admin_tcp}/#token={token}"
        self._compose = compose
        self._instances = instances
        self._owner: str | None = None
        """The service that the story is about, as soon as there is one."""
        self._began = time.monotonic()
        self._answers: Counter[str] = Counter()

    async def tell(self) -> None:
        """Show the service, the failure of an instance and its return; then go on as a client until cancelled."""
        service = await self._until(lambda service: len(service.virtual_servers) > 0)
        self._owner = service.owner
        self._instances = [instance for instance in self._instances if instance.owner == service.owner]
        name, url = service.name, self._url(service)
        self._introduce(service, url)
        everyone = len(self._instances)
        await self._until(lambda service: _serving(service) == everyone)
        self._say(f"all {everyone} instances have answered their first probe and serve")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._client(name, url), name="client")
            tasks.create_task(self._account(), name="account")
            if len(self._instances) > 1:
                await self._death_and_return(self._instances[-1])
            self._say("the demo is complete; Ctrl-C ends it")

    async def _death_and_return(self, victim: DemoInstance) -> None:
        everyone = len(self._instances)
        await asyncio.sleep(REPORT_INTERVAL)
        await victim.stop()
        died = time.monotonic()
        self._say(f"{victim.name} is killed, as by `docker kill`")
        service = await self._until(lambda service: _serving(service) < everyone)
        reason = next(endpoint.last_probe for endpoint in service.endpoints if not endpoint.serving)
        self._say(f"{victim.name} is pruned {time.monotonic() - died:.1f} s later; last probe: {reason}")
        await asyncio.sleep(REPORT_INTERVAL)
        await victim.start()
        self._say(f"{victim.name} is started again")
        await self._until(lambda service: _serving(service) == everyone)
        self._say(f"{victim.name} has passed its probes and serves again")

    def _introduce(self, service: ServiceStatus, url: str) -> None:
        dns_host, dns_port = self._running.dns[0]
        port = url.rpartition(":")[2].rstrip("/")
        dig = f"dig @{dns_host} -p {dns_port} {service.name}"
        endpoints = ", ".join(instance.name for instance in self._instances)
        print(f"vipmesh demo: {self._compose}")
        print(f"\n  {service.name}  ->  VIP {service.vip}, port {port}  ->  {endpoints}\n")
        print("Try in another terminal:\n")
        print(f"  {dig}")
        print(f"  curl {url}")
        print(f"  curl http://$({dig} +short):{port}/")
        print(f"  {Path(sys.executable).with_name('vipmesh')} status --admin {self._admin}")
        print(f"\nAnd in a browser:\n\n  {self._page}")
        if not url.endswith(":80/"):
            print("\n(Port 80 is not free for this user, so the VIP listens on 8000 + 80 here.)")
        print(flush=True)

    def _url(self, service: ServiceStatus) -> str:
        first = min(service.virtual_servers)
        address, port = self._running.listening_on(
            VirtualKey(service.vip or "", int(first.rpartition(":")[2]), Transport.TCP)
        )
        return f"http://{address}:{port}/"

    async def _until(self, holds: Callable[[ServiceStatus], bool]) -> ServiceStatus:
        """Return the first service that has a name, from then on the same one, as soon as the condition holds."""
        while True:
            services = [service for service in self._running.status().services if self._is_told(service)]
            if services and holds(services[0]):
                return services[0]
            await asyncio.sleep(0.05)

    def _is_told(self, service: ServiceStatus) -> bool:
        return bool(service.endpoints) and self._owner in (None, service.owner)

    async def _client(self, name: str, url: str) -> None:
        """Resolve the name, connect and send a request, with a new connection each time, as different users would."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                await asyncio.sleep(REQUEST_INTERVAL)
                try:
                    vip = await asyncio.to_thread(_resolve, name, self._running.dns[0])
                    request = session.get(url.replace(url[7:].rpartition(":")[0], vip), headers={"Connection": "close"})
                    async with request as reply:
                        self._answers[(await reply.text()).strip().removeprefix("hello from ")] += 1
                except (aiohttp.ClientError, OSError, TimeoutError):
                    self._answers["failed"] += 1

    async def _account(self) -> None:
        """Report the client's requests at regular intervals."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            failed = self._answers.pop("failed", 0)
            answered = ", ".join(f"{count} by {name}" for name, count in sorted(self._answers.items()))
            self._say(f"client: {self._answers.total()} requests answered ({answered}), {failed} failed")
            self._answers.clear()

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)


def _resolve(name: str, server: tuple[str, int]) -> str:
    """Return the IPv4 address of a name. Raises `OSError` unless the name server answers with one address."""
    question = encode_name(name) + struct.pack("!HH", RecordType.A, 1)
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.settimeout(2)
        udp.connect(server)
        id = secrets.token_bytes(2)
        udp.send(id + build_upstream_query(b"\0" + question, edns=False))
        packet = udp.recv(512)
    reply = parse_reply(packet, question) if packet[:2] == id else None
    if reply is None or reply.counts != (1, 0, 0):
        raise OSError(f"the name server has no address of {name}")
    return str(ipaddress.IPv4Address(reply.body[-4:]))


def _serving(service: ServiceStatus) -> int:
    return sum(endpoint.serving for endpoint in service.endpoints)
