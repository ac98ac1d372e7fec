"""Version 0.1.0 reads the claims that this version writes, and rewrites them without harm."""

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.cluster.claim_guard import ClaimGuard
from mesh.cluster.claim_usage import ClaimUsage
from mesh.cluster.records.encode import (
    build_view,
    encode_moved_name,
    encode_name_claim,
    encode_port_claim,
    encode_service_claim,
    encode_vip_claim,
)
from mesh.model.claims import ClaimLimits, Claims
from mesh.model.service import Transport
from tests.builders import service

EARLIER = Path(__file__).resolve().parents[1] / "data" / "version-0.1.0-f76dd97.tar.xz"
READ = """
import json, sys
from mesh.store.records import name_claim, view
given = {key: value.encode() for key, value in json.load(sys.stdin).items()}
seen, problems = view(given)
key, value = name_claim("web.test", "demo/new")
print(json.dumps([dict(seen.claims.owners), dict(seen.claims.vips), len(seen.claims.ports), list(map(str, problems)),
                  {**{k: v.decode() for k, v in given.items()}, key: value.decode()}]))
"""
"""Prints what the earlier version understands, and the records after it has taken over `web.test`."""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    with tarfile.open(EARLIER) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def read(code: Path, records: dict[str, bytes]) -> list[Any]:
    given = json.dumps({key: value.decode() for key, value in records.items()})
    environment = {**os.environ, "PYTHONPATH": f"{code}:{code / 'dns'}"}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        env=environment,
        cwd=code,
    )
    answer: list[Any] = json.loads(done.stdout)
    return answer


def test_it_ignores_what_it_does_not_know_and_what_it_rewrites_is_derived_again(code: Path) -> None:
    usage = ClaimUsage(ClaimLimits(grace=100, keep=1000))
    records = {
        **encode_moved_name("web.test", "demo/web", "shop/web"),
        **encode_name_claim("old.test", "demo/old"),
        **encode_service_claim("web.test", "10.112.0.9"),
        **encode_vip_claim("10.112.0.9", "web.test"),
        **encode_port_claim(Transport.TCP, 8080, "web.test", 80),
    }
    usage.follow_view((), build_view(records)[0].claims, 0)
    for now in range(300):
        for before, after in usage.changes(now, 0):
            assert {key: records.get(key) for key in before} == before
            records = {key: value for key, value in {**records, **after}.items() if value is not None}
        usage.follow_records(records, None, now)
    assert sum(key.startswith("claims/idle/") for key in records) == 3

    owners, vips, ports, problems, rewritten = read(code, records)
    assert owners == {"web.test": "demo/web", "old.test": "demo/old"}
    assert (vips, ports, problems) == ({"web.test": "10.112.0.9"}, 1, [])

    after_it = {key: value.encode() for key, value in rewritten.items()}
    claims = build_view(after_it)[0].claims
    assert claims == replace(build_view(records)[0].claims, owners={"web.test": "demo/new", "old.test": "demo/old"})
    assert after_it.keys() == records.keys(), "the records of times are left alone"
    usage.follow_records(after_it, None, 300)
    usage.follow_view((service("web.test", owner="demo/new"),), claims, 300)
    assert usage.lapsed(300).released == {"old.test"}, "the time of the former owner is not the new one's"
    guard = ClaimGuard()
    guard.offer([service("web.test", owner="demo/new")])
    guard.learn((), claims, after_it)
    guard.follow(after_it, None, 300)
    assert guard.restorations(300) == []


def test_a_record_that_it_has_written_means_the_same_here(code: Path) -> None:
    *_, rewritten = read(code, {})
    records = {key: value.encode() for key, value in rewritten.items()}
    assert records == encode_name_claim("web.test", "demo/new"), "byte for byte"
    assert build_view(records)[0].claims == Claims(owners={"web.test": "demo/new"})
