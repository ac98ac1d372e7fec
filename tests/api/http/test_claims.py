"""`vipmesh claims` and the admin API behind it, over a store in memory."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mesh.api.http.server import AdminApi
from mesh.cli.main import main
from mesh.cluster.claim_actions import ClaimActions
from mesh.cluster.records.encode import build_view, encode_name_claim, encode_port_claim, encode_registration
from mesh.model.service import Transport
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.api.http.test_openapi import DESCRIBED
from tests.api.http.worker import client, socket_of
from tests.api.metrics.test_families import OBSERVED
from tests.builders import service


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[MemoryCluster]:
    """A store with claims, behind an admin API."""
    cluster = MemoryCluster()
    cluster.write(
        {
            **encode_name_claim("web.test", "shop/web"),
            **encode_name_claim("old.test", "shop/old\x1b]0;x"),
            **encode_name_claim("gone.test", "shop/gone"),
            **encode_port_claim(Transport.TCP, 8080, "gone.test", 80),
            **encode_registration("w1", [service("web.test", owner="shop/web")], []),
        }
    )
    api = AdminApi(socket_of(tmp_path), lambda: OBSERVED, claims=ClaimActions(MemoryStore(cluster, "w1")))
    await api.start()
    yield cluster
    await api.stop()


async def vipmesh(tmp_path: Path, *arguments: str) -> int:
    """The exit status of `vipmesh claims`."""
    called = partial(main, ["claims", "--admin", socket_of(tmp_path).listen, *arguments])
    return await asyncio.get_running_loop().run_in_executor(None, called)


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        ("GET /v1/claims", None, 200),
        ("POST /v1/claims/free", {"name": "gone.test"}, 200),
        ("POST /v1/claims/free", {"name": "web.test"}, 409),
        ("POST /v1/claims/free", {"nam": "web.test"}, 400),
        ("POST /v1/claims/free", {"name": "x" * (1 << 17)}, 413),
        ("POST /v1/claims/move", {"name": "web.test", "owner": "shop2/web"}, 200),
        ("POST /v1/claims/move", {"name": "web.test"}, 400),
        ("POST /v1/claims/move", {"name": "none.test", "owner": "shop2/web"}, 409),
    ],
)
async def test_responses_match_the_description(
    cluster: MemoryCluster, tmp_path: Path, request_line: str, body: dict[str, str] | None, status: int
) -> None:
    method, _, path = request_line.partition(" ")
    async with client(tmp_path) as session, session.request(method, path, json=body) as answer:
        found = await answer.json()
        assert (answer.status, found) == (status, found)
    response: dict[str, Any] = DESCRIBED["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in response:
        response = DESCRIBED["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": DESCRIBED["components"]}).validate(found)


async def test_the_list_is_text_for_people_and_json_for_programs(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await vipmesh(tmp_path, "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "name  gone.test  shop/gone  unused",
        "name  web.test  shop/web  in use",
        "port  tcp/8080  gone.test  unused",
    ], "the record with an owner that cannot be is none"
    assert await vipmesh(tmp_path, "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["claims"]
    assert [row["claim"] for row in rows] == ["gone.test", "web.test", "tcp/8080"]


async def test_freeing_and_moving_leave_audit_lines(
    cluster: MemoryCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert await vipmesh(tmp_path, "move", "web.test", "shop2/web") == 0
    assert await vipmesh(tmp_path, "free", "tcp/8080", "gone.test") == 0
    assert capsys.readouterr().out.splitlines() == [
        "web.test: belongs to shop2/web",
        "tcp/8080: free",
        "gone.test: free",
    ]
    assert build_view(cluster.records)[0].claims.owners == {"web.test": "shop2/web"}
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("audit: claims")]
    assert [
        bool(re.search(end, line))
        for line, end in zip(lines, ["requested$", r"done after \d+\.\d s: "] * 3, strict=True)
    ] == [True] * 6
    assert all("claims move" in line and "shop2/web" in line for line in lines[:2])


async def test_the_first_refusal_ends_it(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await vipmesh(tmp_path, "free", "tcp/8080", "web.test", "gone.test", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["done"], answer["code"]) == (["tcp/8080"], "VM231")
    assert "web.test is held by shop/web, which declares it; " in answer["error"]
    assert await vipmesh(tmp_path, "move", "none.test", "a/b") == 1
    assert "nobody holds the name 'none.test'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["list", "x"], ["free"], ["move"], ["move", "web.test"], ["move", "a", "b", "c"]]
)
async def test_wrong_usage(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert await vipmesh(tmp_path, *arguments) == 2
    assert "usage: vipmesh claims" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list"], ["free", "web.test"], ["move", "web.test", "a/b"]])
@pytest.mark.parametrize("as_json", [False, True])
async def test_without_a_daemon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], *, as_json: bool
) -> None:
    assert await vipmesh(tmp_path, *arguments, *(["--json"] if as_json else [])) == 1
    out, err = capsys.readouterr()
    assert "start it with `vipmesh run`" in (json.loads(out)["error"] if as_json else err)
    assert (err if as_json else out) == ""


async def test_a_store_that_is_away_is_a_refusal_with_its_code(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.out_of_reach = True
    assert await vipmesh(tmp_path, "list") == 1
    assert "the store is out of reach; bring it back [VM401]" in capsys.readouterr().err
    assert await vipmesh(tmp_path, "list", "--json") == 1
    assert json.loads(capsys.readouterr().out)["codes"] == ["VM401"]
