"""An engine that answers as Docker does: a range of API versions, a clock that is off, one labelled container."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path

from aiohttp import web

from tests.builders import WEB_LABELS

ID = "f" * 64
NAME = "web-1"
IMAGE = "sha256:" + "e" * 64


class FakeEngine:
    """Has one container. Its versions, its clock and its events are set by the test, also while it runs."""

    def __init__(self, oldest: str = "1.24", newest: str = "1.41", ahead: float = 0.0) -> None:
        """`ahead`: seconds by which its clock is ahead of this host's; negative: behind."""
        self.oldest, self.newest, self.ahead = oldest, newest, ahead
        self.told: object = {"ApiVersion": newest, "MinAPIVersion": oldest}
        """The response to `GET /version`; None: it is refused."""
        self.header: str | None = newest
        """`Api-Version` in each response."""
        self.has_date = True
        self.dates_ahead = 0.0
        """Seconds by which the time in its responses is ahead of its clock."""
        self.run = "2026-11-30T11:59:16.358097495Z"
        self.pid = 0
        """The first process of the container."""
        self.labels: dict[str, str] = dict(WEB_LABELS)
        """The labels of the container, its image's included."""
        self.image: dict[str, str] | None = {}
        """The labels of its image; None if the image is gone."""
        self.details: dict[str, object] = {}
        """What an inspection of the container tells besides."""
        self.tasks: list[dict[str, object]] | None = None
        """The tasks of the swarm that this engine manages; None if it manages none."""
        self.is_leaderless = False
        """Whether its swarm waits for a leader: then it does not answer for it."""
        self.images_read = 0
        """Inspections of the image."""
        self.past: list[dict[str, object]] = []
        self.asked: list[str] = []
        """The versions of all requests that had one."""
        self.spans: list[tuple[float | None, float | None]] = []
        """`since` and `until` of all requests for events."""
        self._listeners: list[asyncio.Queue[dict[str, object] | None]] = []
        self._served = asyncio.Event()

    @property
    def now(self) -> float:
        return time.time() + self.ahead

    def event(self, action: str, age: float = 0.0, signal: str | None = None, **attributes: str) -> dict[str, object]:
        """An event of the container, `age` seconds ago."""
        labels = {**WEB_LABELS, "name": NAME, **({} if signal is None else {"signal": signal}), **attributes}
        at = int((self.now - age) * 1e9)
        return {"Type": "container", "Action": action, "Actor": {"ID": ID, "Attributes": labels}, "timeNano": at}

    def tell(self, action: str, signal: str | None = None, **attributes: str) -> None:
        """Send an event to those who listen."""
        event = self.event(action, 0.0, signal, **attributes)
        self.past.append(event)
        for listener in self._listeners:
            listener.put_nowait(event)

    def restart(self, *, newest: str | None = None, oldest: str | None = None) -> None:
        """End all streams, and come back with other versions."""
        self.newest, self.oldest = newest or self.newest, oldest or self.oldest
        self.told, self.header = {"ApiVersion": self.newest, "MinAPIVersion": self.oldest}, self.newest
        for listener in self._listeners:
            listener.put_nowait(None)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if match := re.fullmatch(r"/v(\d+\.\d+)(/.*)", path):
            path = match[2]
            self.asked.append(match[1])
            if (refused := self._refused(match[1])) is not None:
                return self._json({"message": refused}, 400)
        if (answer := await self._rest(path)) is not None:
            return answer
        match path:
            case "/version":
                if self.told is None:
                    return self._json({"message": "forbidden"}, 403)
                return web.Response(body=json.dumps(self.told), content_type="application/json", headers=self._headers)
            case "/_ping":
                return web.Response(text="OK", headers=self._headers)
            case "/events":
                return await self._events(request)
            case "/containers/json":
                return self._json([self._container()])
            case other if other == f"/containers/{ID}/json":
                state = {"StartedAt": self.run, "Pid": self.pid}
                return self._json({"Id": ID, "Config": {"StopSignal": "CONT"}, "State": state, **self.details})
        return self._json({"message": "page not found"}, 404)

    async def _rest(self, path: str) -> web.Response | None:
        """The response to a question that tests seldom look at; None for another one."""
        match path:
            case "/networks":
                if self.is_leaderless:
                    await asyncio.Event().wait()
                return self._json([{"Name": "bridge", "Driver": "bridge"}])
            case "/info":
                if self.is_leaderless:
                    await asyncio.Event().wait()
                manages = self.tasks is not None
                return self._json({"Swarm": {"NodeID": "n1" if manages else "", "ControlAvailable": manages}})
            case "/tasks":
                if self.tasks is None:
                    return self._json({"message": "This node is not a swarm manager."}, 503)
                return self._json(self.tasks)
            case other if other == f"/images/{IMAGE}/json":
                self.images_read += 1
                if self.image is None:
                    return self._json({"message": "No such image"}, 404)
                return self._json({"Id": IMAGE, "Config": {"Labels": self.image or None}})
        return None

    @property
    def _headers(self) -> dict[str, str]:
        date = (
            {"Date": formatdate(self.now + self.dates_ahead, usegmt=True)}
            if self.has_date
            else {"Date": "yesterday, or so"}
        )
        return {**date, **({} if self.header is None else {"Api-Version": self.header})}

    def _json(self, value: object, status: int = 200) -> web.Response:
        return web.json_response(value, status=status, headers=self._headers)

    def _container(self) -> dict[str, object]:
        return {
            "Id": ID,
            "Names": [f"/{NAME}"],
            "State": "running",
            "Status": "Up 3 seconds",
            "Labels": self.labels,
            "ImageID": IMAGE,
            "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.29.0.2"}}},
        }

    def _refused(self, version: str) -> str | None:
        """Docker's own words, of daemon/server/middleware/version.go."""

        def number(text: str) -> tuple[int, ...]:
            return tuple(map(int, text.split(".")))

        if number(version) < number(self.oldest):
            return (
                f"client version {version} is too old. Minimum supported API version is {self.oldest}, "
                f"please upgrade your client to a newer version"
            )
        if number(version) > number(self.newest):
            return f"client version {version} is too new. Maximum supported API version is {self.newest}"
        return None

    async def _events(self, request: web.Request) -> web.StreamResponse:
        since, until = (float(text) if (text := request.query.get(n)) else None for n in ("since", "until"))
        self.spans.append((since, until))
        response = web.StreamResponse(headers=self._headers)
        await response.prepare(request)
        heard: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
        self._listeners.append(heard)
        for event in [*self.past] if since is not None else []:
            at = int(str(event["timeNano"])) / 1e9
            if (since or 0) <= at <= (until or float("inf")):
                await response.write(json.dumps(event).encode() + b"\n")
        try:
            async with asyncio.timeout(None if until is None else max(0.0, until - self.now)):
                while (coming := await heard.get()) is not None:
                    await response.write(json.dumps(coming).encode() + b"\n")
        except TimeoutError:
            return response
        finally:
            self._listeners.remove(heard)
        return response

    @asynccontextmanager
    async def listening(self, place: Path | str) -> AsyncIterator[str]:
        """Its URL while the block runs: a socket at a path, or `tcp` on a port of loopback."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        if isinstance(place, Path):
            await web.UnixSite(runner, place).start()
            url = f"unix://{place}"
        else:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"tcp://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield url
        finally:
            self.restart()
            await runner.cleanup()
