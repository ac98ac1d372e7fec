"""`vipmesh rollout` and the admin API behind it, over a store in memory."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mesh.api.http.release_shares import points_of
from mesh.api.http.server import AdminApi
from mesh.cli.main import main
from mesh.cli.rollout import parse_shares, rollout_document, rollout_lines
from mesh.cluster.records.encode import build_view, encode_name_claim, encode_registration, encode_rollout
from mesh.model.release_rollout import ReleaseRollout, RolloutPhase
from mesh.platform.rollouts.rollout_actions import RolloutActions
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.api.http.test_openapi import DESCRIBED
from tests.api.http.worker import client, socket_of
from tests.api.metrics.test_families import OBSERVED
from tests.builders import endpoint, service

WEB = service("web.test", owner="shop/web")
ENDPOINTS = [
    endpoint("a", owner=WEB.owner, release="v1"),
    endpoint("b", owner=WEB.owner, address="10.2.0.2", release="v2"),
]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[MemoryCluster]:
    """A store with a service of two releases, behind an admin API."""
    cluster = MemoryCluster()
    cluster.write({**encode_name_claim("web.test", "shop/web"), **encode_registration("w1", [WEB], ENDPOINTS)})
    api = AdminApi(socket_of(tmp_path), lambda: OBSERVED, shares=RolloutActions(MemoryStore(cluster, "w1")))
    await api.start()
    yield cluster
    await api.stop()


async def vipmesh(tmp_path: Path, *arguments: str) -> int:
    """The exit status of `vipmesh rollout`."""
    called = partial(main, ["rollout", "--admin", socket_of(tmp_path).listen, *arguments])
    return await asyncio.get_running_loop().run_in_executor(None, called)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"service": "shop/web", "shares": {"v2": 10}}, 200),
        ({"service": "web.test", "shares": {"v2": 0.25, "v1": 99}}, 200),
        ({"service": "web", "shares": None}, 200),
        ({"service": "shop/web", "shares": {"v3": 10}}, 409),
        ({"service": "shop/web", "shares": {"v2": 10.001}}, 400),
        ({"service": "shop/web", "shares": {"v2": -1}}, 400),
        ({"service": "shop/web", "shares": {"v2": 1e300}}, 400),
        ({"service": "shop/web", "shares": {"v2": "10"}}, 400),
        ({"service": "shop/web", "shares": {f"v{n}": 1 for n in range(17)}}, 400),
        ({"service": "shop/web"}, 400),
        ({"service": "shop/web", "shares": None, "more": 1}, 400),
        ({"service": "x" * (1 << 17), "shares": None}, 413),
    ],
)
async def test_responses_match_the_description(
    cluster: MemoryCluster, tmp_path: Path, body: dict[str, Any], status: int
) -> None:
    async with client(tmp_path) as session, session.post("/v1/rollouts/share", json=body) as answer:
        found = await answer.json()
        assert (answer.status, found) == (status, found)
    response: dict[str, Any] = DESCRIBED["paths"]["/v1/rollouts/share"]["post"]["responses"][str(status)]
    if "$ref" in response:
        response = DESCRIBED["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": DESCRIBED["components"]}).validate(found)


async def test_shares_are_given_shown_and_taken_back(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert await vipmesh(tmp_path, "share", "shop/web", "v2=12.5") == 0
    assert capsys.readouterr().out == "shop/web: v2 12.5 %\n"
    [shares] = build_view(cluster.records)[0].shares.values()
    assert shares.given == {"v2": 1250}
    assert shares.by
    assert 'audit: rollout share "shop/web" "v2=12.5" by ' in caplog.text
    assert await vipmesh(tmp_path, "share", "shop/web", "v1=10%", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "service": "shop/web",
        "shares": {"v1": 10.0},
        "error": None,
        "code": None,
    }
    assert await vipmesh(tmp_path, "share", "shop/web", "reset") == 0
    assert capsys.readouterr().out == "shop/web: no shares; the weights of its endpoints count\n"
    assert 'audit: rollout share "shop/web" "reset" by ' in caplog.text
    assert not build_view(cluster.records)[0].shares


async def test_a_refusal_says_what_to_write(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await vipmesh(tmp_path, "share", "shop/web", "v3=10") == 1
    assert "no release 'v3'; write one of v1, v2, or start it first [VM980]" in capsys.readouterr().err
    assert await vipmesh(tmp_path, "share", "shop/web", "v3=10", "--json") == 1
    assert json.loads(capsys.readouterr().out)["code"] == "VM980"
    assert await vipmesh(tmp_path, "status", "nothing") == 1
    assert "there is no service 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("share", "shop/web"),
        ("share", "shop/web", "v2"),
        ("share", "shop/web", "v2=x"),
        ("share", "shop/web", "v2=1", "v2=2"),
        ("share", "shop/web", "v2=1", "reset"),
        ("share", "shop/web", "v2=-1"),
        ("status", "shop/web", "v2=1"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", *words]) == 2
    assert "usage: vipmesh rollout" in capsys.readouterr().err


def test_per_cent_become_hundredths() -> None:
    assert parse_shares(["v2=10", "v1=0.5%"]) == {"v2": 10, "v1": 0.5}
    assert points_of({"v2": 10, "v1": 0.1, "v3": 33.33}) == {"v2": 1000, "v1": 10, "v3": 3333}


def of(opened: tuple[int | None, int | None], **more: object) -> dict[str, Any]:
    """The status of a service with two releases, and the connections of its endpoints so far."""
    ends = [
        {"worker": "w1", "id": id, "release": release, "opened": count}
        for id, release, count in zip("ab", ("v1", "v2"), opened, strict=True)
    ]
    rows = [
        {"release": "v1", "endpoints": 1, "serving": 1, "given": None, "share": 90.0},
        {"release": "v2", "endpoints": 1, "serving": 1, "given": 10.0, "share": 10.0},
    ]
    return {"owner": "shop/web", "name": "web.test", "vip": "10.112.0.7", "endpoints": ends, "releases": rows} | more


def test_what_releases_get_is_measured_between_two_looks() -> None:
    found = rollout_document(of((100, 7)), of((280, 27), shares_by="anna", shares_note="at random"), 2.0)
    assert [(row.release, row.opened, row.measured) for row in found.releases] == [("v1", 180, 90.0), ("v2", 20, 10.0)]
    assert list(rollout_lines(found)) == [
        "shop/web  web.test  10.112.0.7  shares given by anna",
        "RELEASE  SERVING  GIVEN  SHARE  NEW CONNECTIONS",
        "v1       1/1      -      90 %   90 % (180)",
        "v2       1/1      10 %   10 %   10 % (20)",
        "new connections through this worker, in the last 2 s",
        "at random",
    ]


def test_counts_that_are_missing_or_were_reset() -> None:
    found = rollout_document(of((None, None)), of((None, None)), 2.0)
    assert [(row.opened, row.measured) for row in found.releases] == [(None, None), (None, None)]
    found = rollout_document(of((100, 7)), of((3, 7)), 2.0)
    assert [(row.opened, row.measured) for row in found.releases] == [(3, 100.0), (0, 0.0)]
    found = rollout_document(of((100, 7)), of((100, 7)), None)
    assert [(row.opened, row.measured) for row in found.releases] == [(None, None), (None, None)]
    nothing = rollout_document(of((1, 1), releases=[]), of((1, 1), releases=[], vip=None), 2.0)
    assert "set the label routing.release" in list(rollout_lines(nothing))[1]


LED = {
    "pause": "step 1 of 2: 1 % for v2, paused",
    "abort": "v2 was aborted, all for v1",
    "undo": "v2 was aborted, all for v1",
}


@pytest.mark.parametrize("verb", LED)
async def test_operators_lead_a_rollout(
    tmp_path: Path,
    cluster: MemoryCluster,
    verb: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    state = LED[verb]
    step = ReleaseRollout("shop/web", "v2", "v1", RolloutPhase.STEP, steps=2, points=100)
    cluster.change(encode_rollout(step))
    assert await vipmesh(tmp_path, verb, "web.test") == 0
    assert capsys.readouterr().out == f"shop/web: {state}\n"
    rollout = build_view(cluster.records)[0].rollouts["shop/web"]
    assert rollout.words == state
    assert rollout.reason.startswith(f"{verb} by uid ")
    assert f'audit: rollout {verb} "web.test" by uid ' in caplog.text
    assert await vipmesh(tmp_path, "resume", "shop/web", "--json") == (0 if verb == "pause" else 1)
    found = json.loads(capsys.readouterr().out)
    assert (found["action"], found["service"]) == ("resume", "shop/web")
    assert found["code"] == (None if verb == "pause" else "VM941")


async def test_a_service_without_a_rollout_is_told_so(
    tmp_path: Path, cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = cluster.revision
    assert await vipmesh(tmp_path, "promote", "shop/web") == 1
    assert "shop/web has no rollout; see `vipmesh rollout status`" in capsys.readouterr().err
    assert cluster.revision == revision
    assert await vipmesh(tmp_path, "promote", "shop/web", "v2=10") == 2
