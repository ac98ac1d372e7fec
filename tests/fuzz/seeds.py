"""Ordinary input of each boundary, which the targets change."""

from typing import Any

from mesh.model.service import Endpoint, PortPublication, Route, Service, Transport
from tests.model.test_gate import ENDPOINT, SERVICE, as_json

GOOD_LABELS = {
    "mesh.routing.port_80": "web.test",
    "mesh.routing.session_sticky": "true",
    "mesh.publish.port_80": "auto",
    "mesh.probe.url": "http://container:80/ready",
    "mesh.probe.timeout_seconds": "2",
    "mesh.weight": "5",
}

CONTAINER: dict[str, Any] = {
    "Id": "f" * 64,
    "Names": ["/shop-web-1"],
    "State": "running",
    "Status": "Up 3 seconds (healthy)",
    "Labels": {**GOOD_LABELS, "com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
    "Ports": [{"PrivatePort": 80, "Type": "tcp", "IP": "0.0.0.0", "PublicPort": 8080}],
    "HostConfig": {"NetworkMode": "default"},
    "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.29.0.2", "GlobalIPv6Address": ""}}},
}
INSPECTION: dict[str, Any] = {
    "Id": "f" * 64,
    "Image": "sha256:" + "a" * 64,
    "Config": {"StopSignal": "SIGTERM", "StopTimeout": 10},
    "State": {"StartedAt": "2026-11-30T11:59:16.358097495Z", "Health": {"Status": "healthy"}, "Pid": 7},
    "HostConfig": {"NetworkMode": "default"},
}
ENGINE_EVENT: dict[str, Any] = {
    "Type": "container",
    "Action": "kill",
    "Actor": {"ID": "f" * 64, "Attributes": {**GOOD_LABELS, "name": "shop-web-1", "signal": "15"}},
    "timeNano": 1_796_040_000_000_000_000,
}
NETWORKS: list[Any] = [{"Name": "bridge", "Driver": "bridge"}]

LOG_LINES: dict[str, Any] = {
    "worker": "w2",
    "source": "ship",
    "services": ["shop/web"],
    "lines": [
        {
            "text": "ready for connections",
            "container": "web-1",
            "worker": "w2",
            "service": "shop/web",
            "stream": "stderr",
            "time": "2026-11-30T11:59:16.358097495Z",
        }
    ],
    "cursor": "4f1c00000000.0123456789abcdef.154.1796040000000000001",
    "more": False,
    "notes": [{"text": "lines come from the engine", "code": "VM973"}],
}
"""An answer of another worker with lines of a service."""
PAST_EVENTS: dict[str, Any] = {
    "worker": "w2",
    "now": 1_796_040_000.5,
    "events": [
        {
            "number": 7,
            "event": {
                "at": 1_796_040_000.0,
                "kind": "endpoint-failed",
                "code": "VM781",
                "text": "endpoint web-2 of web.local failed: status 503",
                "owner": "shop/web",
                "names": ["web.local"],
                "ports": [80],
                "exit_code": 137,
            },
        }
    ],
}

HEADER: dict[str, Any] = {"cluster_id": "14841639068965178418", "revision": "7"}
KEY_VALUE: dict[str, Any] = {"key": "YQ==", "value": "e30=", "mod_revision": "7", "lease": "0"}
ETCD_ANSWERS: tuple[dict[str, Any], ...] = (
    {"header": HEADER, "kvs": [KEY_VALUE], "more": False},
    {"header": HEADER, "succeeded": True, "responses": [{"response_range": {"header": HEADER, "kvs": [KEY_VALUE]}}]},
    {"header": HEADER, "ID": "7587", "TTL": "5"},
    {"result": {"header": HEADER, "ID": "7587", "TTL": "5"}},
    {"header": HEADER, "token": "abc.7"},
    {"result": {"header": HEADER, "created": True, "events": [{"kv": KEY_VALUE, "type": "DELETE"}]}},
    {"result": {"header": HEADER, "canceled": True, "compact_revision": "5", "cancel_reason": "x"}},
    {"error": {"message": "etcdserver: permission denied", "code": 7}},
)

_WIDE = Service(
    "shop/dns",
    "dns.test",
    (Route("dns.test", 53, Transport.UDP, 53), Route("d.test", 80, Transport.TCP, 80)),
    (PortPublication(53, Transport.UDP, 30_000),),
)
RECORDS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("workers", "w1", "services", SERVICE.owner), as_json(SERVICE)),
    (("workers", "w1", "services", _WIDE.owner), as_json(_WIDE)),
    (("workers", "w1", "endpoints", ENDPOINT.id), as_json(ENDPOINT)),
    (("workers", "w2", "endpoints", "shop/dns/2"), as_json(Endpoint("shop/dns/2", "shop/dns", "w2", "10.1.0.2"))),
    (("workers", "w2", "daemon"), {"version": "1", "session": "x", "listens": "192.0.2.12:7946"}),
    (("health", "w1", ENDPOINT.id), {"health": "healthy", "kept": True}),
    (("claims", "names", "web.test"), {"owner": "shop/web"}),
    (("claims", "services", "web.test"), {"vip": "10.112.0.7"}),
    (("claims", "vips", "10.112.0.7"), {"name": "web.test"}),
    (("claims", "ports", "tcp", "30000"), {"name": "web.test", "container_port": 8080}),
    (("claims", "older-names"), {"names": ["web.example"]}),
)

COMPOSE_FILES = (
    (
        'name: shop\nservices:\n  web:\n    image: a\n    x-endpoints: ["127.0.0.11:18080"]\n    labels:\n'
        '      mesh.routing.port_80: web.test\n      mesh.probe.url: "http://container:${PORT:-80}"\n'
    ),
    'services:\n  web:\n    labels: ["mesh.routing.port_80=web.test", "mesh.weight=5"]\n    deploy: {replicas: 2}\n',
    "services:\n  a: &a\n    labels: &l\n      mesh.routing.port_80: a.test\n  b:\n    <<: *a\n    labels: *l\n",
    (
        "include: [base.yaml, {path: inc.yaml, env_file: x.env}]\n"
        "services:\n  a:\n    extends: {file: base.yaml, service: b}\n"
        "    label_file: [l.labels]\n    env_file: x.env\n    environment: [A, B=$C]\n"
        "    profiles: [p]\n    links: [b:c]\n  c: {extends: a}\n"
    ),
    (
        "services: {a: {ports: ['1:1'], labels: [mesh.scale=2]}}\n---\nservices:\n  a:\n    ports: !override ['2:2']\n"
        "    labels: {mesh.scale: !reset null, mesh.service: x}\n    deploy: {labels: {mesh.routing.port_1: x}}\n"
    ),
    "",
    "- x\n",
    (
        "services:\n  web:\n    image: a\n    ports: ['80-81:80-81/udp', {target: 1, published: 2}]\n"
        "    volumes: ['d:/d:ro', {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0o755}}]\n"
        "    environment: ['constraint:a==b', 'affinity:service!=db', 'availability:az==2', A=1]\n"
        "    deploy: {replicas: 2, resources: {limits: {cpus: '0.5'}}, placement: {constraints: [node.id==a]}}\n"
        "    depends_on: {db: {condition: service_started}}\n    healthcheck: {test: [CMD, a], interval: 1m30s}\n"
        "    ulimits: {nofile: {soft: 1, hard: 2}}\n    extra_hosts: [a=1.1.1.1]\n    command: a 'b c'\n"
        "  db: {image: b, restart: on-failure:3, configs: [c], mem_limit: 1g}\n"
        "volumes: {d: {driver_opts: {o: x}}}\nconfigs: {c: {external: true}}\n"
    ),
)
ENV_FILES = {
    "l.labels": "mesh.routing.port_80=web.test\nexport A: '$B'\n",
    "x.env": 'A="${B:-x}\\n" # c\nC=$A$A\n',
}
SETTINGS_FILES = (
    '[node]\nname = "w1"\n[pool]\ncidr = "10.112.0.0/16"\n',
    '[store]\nurl = "etcd://127.0.0.1:2379"\n[dns]\nupstream = ["192.0.2.53"]\n',
    "",
)
