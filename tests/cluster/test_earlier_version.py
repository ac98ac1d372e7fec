"""Records of endpoints that declare different things, read and written by the last released version."""

import base64
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mesh.cluster.records.encode import (
    build_view,
    encode_daemon,
    encode_declaration_claim,
    encode_name_claim,
    encode_registration,
    encode_service_claim,
)
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Endpoint, Route, Scheduler, SchedulerFlag, Service, Transport

EARLIER = Path(__file__).resolve().parents[1] / "data" / "version-0.1.0-f76dd97.tar.xz"
OLD = Service(
    "demo/web", "web.test", (Route("web.test", 80, Transport.TCP, 80),), flags=frozenset({SchedulerFlag.PORT})
)
NEW = replace(OLD, scheduler=Scheduler.LC, probe=Probe(ProbeKind.TCP, 80))
READ = """
import base64, json, sys
from mesh.store.reader import Reader
view, problems = Reader().view({key: base64.b64decode(value) for key, value in json.load(sys.stdin).items()})
services = {service.owner: service.scheduler.value for service in view.services}
endpoints = [endpoint.id for endpoint in view.endpoints]
print(json.dumps([services, endpoints, dict(view.claims.vips), list(map(str, problems))]))
"""
WRITE = """
import base64, json
from mesh.model import Endpoint, Route, Service, Transport
from mesh.store.records import registration
service = Service("demo/web", "web.test", (Route("web.test", 80, Transport.TCP, 80),))
records = registration("a", [service], [Endpoint("demo/web/1", "demo/web", "a", "10.2.0.1")])
print(json.dumps({key: base64.b64encode(value).decode() for key, value in records.items()}))
"""


def run_earlier(directory: Path, program: str, given: str = "") -> str:
    """The output of a program that imports the earlier version."""
    with tarfile.open(EARLIER) as archive:
        archive.extractall(directory, filter="data")
    environment = {**os.environ, "PYTHONPATH": f"{directory}:{directory}/dns"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=directory,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def encoded(records: Mapping[str, bytes]) -> str:
    return json.dumps({key: base64.b64encode(value).decode() for key, value in records.items()})


def test_the_earlier_version_reads_records_of_endpoints_that_declare_different_things(tmp_path: Path) -> None:
    ends = [
        Endpoint("demo/web/1", "demo/web", "w2", "10.2.0.1"),
        Endpoint("demo/web/2", "demo/web", "w2", "10.2.0.2", declared=NEW),
    ]
    records = encode_registration("w2", [OLD], ends) | encode_declaration_claim(OLD) | encode_daemon("w2", "1", "s")
    records |= encode_service_claim("web.test", "10.112.0.9") | encode_name_claim("web.test", "demo/web")
    found = json.loads(run_earlier(tmp_path, READ, encoded(records)))
    assert found == [{"demo/web": "wrr"}, ["demo/web/1", "demo/web/2"], {"web.test": "10.112.0.9"}, []]


def test_an_endpoint_of_the_earlier_version_declares_what_its_worker_does(tmp_path: Path) -> None:
    theirs = {key: base64.b64decode(value) for key, value in json.loads(run_earlier(tmp_path, WRITE)).items()}
    own = replace(OLD, flags=frozenset())
    ours = encode_registration("w2", [NEW], [Endpoint("demo/web/2", "demo/web", "w2", "10.2.0.2")])
    seen, _ = build_view(theirs | ours | encode_declaration_claim(NEW.shared))
    assert [service.shared for service in seen.services] == [own], "theirs serves, ours has no result of its probe yet"
    assert [(e.worker, e.declared) for e in seen.endpoints] == [("a", None), ("w2", NEW)]
