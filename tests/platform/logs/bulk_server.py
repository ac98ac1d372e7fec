"""Stands for Elasticsearch: the bulk API as the reference of version 8 has it, templates and policies."""

import json

from aiohttp import web


class BulkServer:
    """Speaks the bulk API of Elasticsearch 8 as its reference has it, and refuses what that refuses."""

    def __init__(self) -> None:
        self.indices: dict[str, dict[str, dict[str, str]]] = {}
        self.statuses: list[int] = []
        """Statuses of the next answers in place of 200."""
        self.full = 0
        """So many of the next requests have no room for their second half."""
        self.refuses = "to be refused"
        self.limit = 1 << 24
        self.authorization: list[str | None] = []
        self.objects: dict[str, dict[str, object]] = {}
        """Templates and policies by their paths."""
        self.object_status = 200
        """The status of a `PUT` of one."""

    async def answer(self, request: web.Request) -> web.Response:
        """The handler of all paths."""
        if request.path == "/_bulk" and request.method == "POST":
            return await self.bulk(request)
        known = request.path.startswith(("/_index_template/", "/_ilm/policy/", "/_plugins/_ism/policies/"))
        if not known or request.method not in ("GET", "PUT"):
            return web.Response(status=405)
        if request.method == "GET":
            found = self.objects.get(request.path)
            return web.json_response(found or {}, status=404 if found is None else 200)
        if self.object_status == 200:
            assert request.content_type == "application/json"
            self.objects[request.path] = json.loads(await request.read())
        return web.json_response({"error": "told to"}, status=self.object_status)

    async def bulk(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-ndjson"
        self.authorization.append(request.headers.get("Authorization"))
        if self.statuses:
            return web.json_response({"error": "told to"}, status=self.statuses.pop(0))
        body = await request.read()
        if len(body) > self.limit:
            return web.Response(status=413)
        assert body.endswith(b"\n"), "the last line ends with a line feed"
        lines = body.split(b"\n")[:-1]
        items = [self._create(json.loads(lines[n]), json.loads(lines[n + 1]), n) for n in range(0, len(lines), 2)]
        if self.full:
            self.full -= 1
            for item in items[len(items) // 2 :]:
                item["create"] = {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "full"}}
        return web.json_response({"took": 1, "errors": True, "items": items})

    def _create(self, action: dict[str, dict[str, str]], source: dict[str, str], _: int) -> dict[str, object]:
        assert action.keys() == {"create"}
        name, id = action["create"]["_index"], action["create"]["_id"]
        assert name == name.lower()
        index = self.indices.setdefault(name, {})
        if self.refuses in source["message"]:
            reason = {"type": "document_parsing_exception", "reason": "failed to parse field"}
            return {"create": {"_index": name, "_id": id, "status": 400, "error": reason}}
        if id in index:
            reason = {"type": "version_conflict_engine_exception", "reason": "document already exists"}
            return {"create": {"_index": name, "_id": id, "status": 409, "error": reason}}
        index[id] = source
        return {"create": {"_index": name, "_id": id, "status": 201, "result": "created"}}
