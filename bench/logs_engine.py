"""Stands for a container engine as far as `vipmesh ship` asks one: containers with json-file logs in directories.

    PYTHONPATH=. python bench/logs_engine.py SOCKET DIRECTORY

Each directory in DIRECTORY is a container, named after it, with the file `<name>-json.log`.
"""

import asyncio
import sys
from pathlib import Path

from aiohttp import web

VERSION = "1.41"


class LogEngine:
    """Answers what the log shipper asks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The handler of all paths."""
        path = request.path.removeprefix(f"/v{VERSION}")
        headers = {"Api-Version": VERSION}
        if path == "/events":
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            await asyncio.Event().wait()
        if path == "/_ping":
            return web.Response(text="OK", headers=headers)
        names = sorted(each.name for each in self._directory.iterdir())
        answers: dict[str, object] = {
            "/version": {"ApiVersion": VERSION, "MinAPIVersion": "1.24"},
            "/info": {"Swarm": {"NodeID": ""}},
            "/containers/json": [self._summary(name) for name in names],
            **{f"/containers/{name}/json": self._details(name) for name in names},
        }
        if path not in answers:
            return web.json_response({"message": "page not found"}, status=404, headers=headers)
        return web.json_response(answers[path], headers=headers)

    @staticmethod
    def _summary(name: str) -> dict[str, object]:
        labels = {
            "mesh.log_store_app": "stdout",
            "com.docker.compose.project": "shop",
            "com.docker.compose.service": "web",
        }
        return {"Id": name, "Names": [f"/shop-web-{name[:8]}"], "State": "running", "Labels": labels, "ImageID": "i"}

    def _details(self, name: str) -> dict[str, object]:
        path = str(self._directory / name / f"{name}-json.log")
        return {"Id": name, "LogPath": path, "HostConfig": {"LogConfig": {"Type": "json-file"}}, "Config": {}}


async def serve(socket: Path, directory: Path) -> None:
    """Answer until the process ends."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", LogEngine(directory).answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
