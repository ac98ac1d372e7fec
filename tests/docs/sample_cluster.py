"""A small cluster in which every label, every kind of record and every kind of DNS record occurs once.

Its records, as the encoder wrote them before the first move of issue 15, are kept in `data/records.txt`, a key and its
value a line, and in `data/view.json`, the saved view of the same records. They must stay readable: workers of two
versions share a store while one is rolled out.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from mesh.cluster.records.decode import (
    DaemonPresence,
    DaemonRecord,
    EndpointVerdict,
    NameClaim,
    PortClaim,
    ServiceDeclaration,
    ServiceVipClaim,
    VipHolderClaim,
    decode_record,
)
from mesh.cluster.records.encode import (
    build_view,
    encode_daemon,
    encode_name_claim,
    encode_port_claim,
    encode_registration,
    encode_service_claim,
    encode_verdict,
    encode_vip_claim,
)
from mesh.cluster.registration import register_instances
from mesh.model.problem import Problem
from mesh.model.service import DrainReason, Endpoint, Health, HostPort, Instance, Service, Transport
from mesh.model.view import ClusterView
from tests.builders import POOL

DATA = Path(__file__).parent / "data"
WORKER = "worker-1"
DOMAIN = "mesh.internal"

WEB = {
    "routing.port_8080": "https://web.shop.test; web",
    "routing.publish.port_8080": "30080",
    "routing.vip": "10.112.0.7",
    "routing.scheduler": "mh",
    "routing.scheduler_flags": "fallback",
    "routing.session_sticky": "300",
    "routing.weight": "3",
    "routing.max_connections": "100",
    "routing.min_connections": "50",
    "routing.release": "v2",
    "scale": "2",
    "global": "false",
    "depends": "db",
    "latest_image": "true",
    "release.strategy": "rolling",
    "release.max_failures": "2%",
    "release.min_connections": "50",
    "release.check.url": "http://container:8080/check",
    "rolling_updates": "true",
    "rolling_updates.parallelism": "2",
    "log_store_db": "stdout, /var/log/mysql/",
    "log_ttl_db": "7",
    "log.timestamp": "true",
    "log.rate_limit": "1000",
    "auto_scaling.max_cpu": "70",
    "auto_scaling.min_cpu": "30",
    "auto_scaling.max_memory": "90",
    "auto_scaling.min_memory": "20",
    "auto_scaling.max_connections": "500",
    "auto_scaling.max_connection_rate": "100",
    "auto_scaling.step": "2",
    "auto_scaling.min_instances": "2",
    "auto_scaling.max_instances": "8",
    "auto_scaling.cooldown_seconds": "120",
    "auto_scaling.schedule": "0 8 * * 1-5 min=4; 0 18 * * 1-5 min=2",
    "auto_scaling.timezone": "Europe/Berlin",
    "log.multiline": r"^\d{4}-",
    "probe.url": "https://container:8443/health?full",
    "probe.initial_delay_seconds": "1",
    "probe.timeout_seconds": "1.5",
    "probe.interval_seconds": "10",
    "probe.healthy_threshold": "3",
    "probe.unhealthy_threshold": "4",
    "probe.startup_seconds": "90",
    "probe.startup_interval_seconds": "0.5",
    "probe.floor": "40",
    "probe.expect_status": "200-299,404",
    "probe.expect_body": "well",
    "probe.method": "POST",
    "probe.host": "shop.example:8443",
    "probe.follow_redirects": "true",
    "probe.tls_verify": "false",
    "probe.header.X-Probe": "yes",
}
RESOLVER = {
    "routing.slow_start_seconds": "30",
    # Without routing.release, so that these leave its record as it was.
    "release.strategy": "canary",
    "release.steps": "1%,5m;50%,hold",
    "release.deadline_seconds": "600",
    "routing.port_53/udp": "dns.shop.test",
    "routing.publish.port_53/udp": "auto",
    "routing.forwarding": "masquerade",
    "auto_scaling.target_cpu": "60",
    "probe.url": "udp://container:53",
    "probe.send": r"\x00\xffPING",
    "probe.expect_reply": "PONG",
}
TUNNELLED = {
    "routing.port_9000/sctp": "sctp://jobs",
    "routing.forwarding": "tunnel",
    "probe.cmd": "test -f /ready",
    "release.check.cmd": "/app/selftest",
}
"""Labels of the three services, without prefix."""


def instances(prefix: str) -> tuple[Instance, ...]:
    """The instances of `WORKER`, their labels with this prefix."""

    def labels(names: Mapping[str, str]) -> dict[str, str]:
        return {prefix + name: value for name, value in names.items()}

    ports = (HostPort(Transport.TCP, 8080, 32768),)
    return (
        Instance("docker/8f2c", "shop/web", "10.2.0.1", labels(WEB), name="shop-web-1"),
        Instance("docker/9a3d", "shop/web", "10.2.0.2", labels(WEB), host_ports=ports, drain=DrainReason.ASKED),
        Instance("shop/dns/10.2.0.3", "shop/dns", "10.2.0.3", labels(RESOLVER), port=5353, health=Health.STARTING),
        Instance("docker/7b1e", "shop/jobs", "10.2.0.4", labels(TUNNELLED), runs_commands=True),
    )


def registered(prefix: str) -> tuple[Mapping[str, bytes], tuple[Problem, ...]]:
    """The records that `WORKER` registers for its instances, and the problems with their labels."""
    found = register_instances(instances(prefix), worker=WORKER, domain=DOMAIN, pool=POOL)
    return encode_registration(WORKER, found.services, found.endpoints), tuple(problem for _, problem in found.problems)


def written() -> dict[str, bytes]:
    """All records of the cluster, as the encoder of today writes them."""
    records = dict(registered("mesh.")[0])
    records |= encode_registration(
        "worker 2", [Service("api/v1", "api.mesh.internal", ())], [Endpoint("a/1", "api/v1", "worker 2", "fd00::2")]
    )
    for record in (
        encode_service_claim("web.shop.test", "10.112.0.7"),
        encode_vip_claim("10.112.0.7", "web.shop.test"),
        encode_service_claim("dns.shop.test", "10.112.0.8"),
        encode_vip_claim("10.112.0.8", "dns.shop.test"),
        encode_service_claim("jobs.mesh.internal", "10.112.0.9"),
        encode_vip_claim("10.112.0.9", "jobs.mesh.internal"),
        encode_vip_claim("fd00:112::9", "jobs.mesh.internal"),
        encode_name_claim("web.shop.test", "shop/web"),
        encode_name_claim("web.mesh.internal", "shop/web"),
        encode_name_claim("dns.shop.test", "shop/dns"),
        encode_name_claim("jobs.mesh.internal", "shop/jobs"),
        encode_port_claim(Transport.TCP, 30080, "web.shop.test", 8080),
        encode_port_claim(Transport.UDP, 30001, "dns.shop.test", 53),
        encode_daemon(WORKER, "0.1.0", "5f1c0a", "10.1.0.1:9781"),
        encode_daemon("worker 2", "0.2.0", "77aa21"),
    ):
        records |= record
    return records | dict(
        [
            encode_verdict(WORKER, (WORKER, "docker/8f2c"), Health.HEALTHY),
            encode_verdict(WORKER, (WORKER, "docker/9a3d"), Health.UNHEALTHY, kept=True),
            encode_verdict(WORKER, (WORKER, "docker/7b1e"), Health.UNHEALTHY, held_back=True),
            encode_verdict(WORKER, ("worker-3", "a/1"), Health.STARTING, kept=True, held_back=True),
        ]
    )


def stored() -> dict[str, bytes]:
    """All records of the cluster, as they were written before the first move."""
    lines = (DATA / "records.txt").read_bytes().splitlines()
    return {key.decode(): value for key, _, value in (line.partition(b" ") for line in lines)}


def encoded_again(where: str, value: bytes) -> tuple[str, bytes]:
    """Key and value of a record after decoding and encoding. Raises `AssertionError` for one that is not decoded."""
    match decode_record(where, value):
        case ServiceVipClaim(name, vip):
            return _only(encode_service_claim(name, vip))
        case VipHolderClaim(vip, name):
            return _only(encode_vip_claim(vip, name))
        case NameClaim(name, owner):
            return _only(encode_name_claim(name, owner))
        case PortClaim((transport, port), (name, container_port)):
            return _only(encode_port_claim(transport, port, name, container_port))
        case ServiceDeclaration(worker, service):
            return _only(encode_registration(worker, [service], []))
        case Endpoint() as endpoint:
            return _only(encode_registration(endpoint.worker, [], [endpoint]))
        case EndpointVerdict(worker, endpoint_key, said):
            return encode_verdict(worker, endpoint_key, said.health, kept=said.kept, held_back=said.held_back)
        case DaemonPresence(worker):
            its = msgspec.json.decode(value, type=DaemonRecord)
            return _only(
                encode_daemon(worker, its.version, its.session, its.listens, admin=its.admin, data_plane=its.data_plane)
            )
        case refused:
            raise AssertionError(f"the record {where} is not decoded: {refused}")


def cluster() -> ClusterView:
    """The view that the stored records give."""
    found, problems = build_view(stored())
    assert not problems, problems
    return found


def _only(records: Mapping[str, bytes]) -> tuple[str, bytes]:
    ((key, value),) = records.items()
    return key, value
