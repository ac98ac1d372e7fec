"""The settings: TOML text and environment -> frozen values, or every problem at once.

Each setting is also an environment variable, `VIPMESH_<SECTION>_<KEY>` (`[source.compose] files` is
`VIPMESH_SOURCE_COMPOSE_FILES`, lists separated by commas), which wins over the file. A key that does not exist is
an error that names the nearest one, never silence. How a single value is read is in `mesh.config.values`.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mesh.config import etcd_url, values
from mesh.config.values import Network
from mesh.model.errors import CodedText, SettingsError
from mesh.util.logging.log_format import LogFormat


class Driver(StrEnum):
    """Which data plane forwards the traffic."""

    AUTO = "auto"
    """IPVS where the kernel has it and permits it, else nftables, else the proxy in user space."""
    IPVS = "ipvs"
    NFTABLES = "nftables"
    USERSPACE = "userspace"


class PrivateAnswers(StrEnum):
    """What becomes of answers of upstreams with private addresses."""

    ALLOW = "allow"
    REFUSE = "refuse"


class EndpointAddress(StrEnum):
    """At which address the endpoints of a container engine are reached."""

    AUTO = "auto"
    """The container's where all workers can reach it, else the worker's."""
    CONTAINER = "container"
    HOST = "host"
    """The worker's, at the port that it publishes for the container's."""


class LogLifecycle(StrEnum):
    """Who deletes collected lines after their time to live."""

    OFF = "off"
    """The operator; it is only written into the documents."""
    ILM = "ilm"
    """Index lifecycle management of Elasticsearch."""
    ISM = "ism"
    """Index state management of OpenSearch."""


class FirewallMode(StrEnum):
    """Who opens the firewall of this host."""

    MANAGE = "manage"
    """The daemon, where the firewall leaves a place for it."""
    REPORT = "report"
    """The operator: `status` and `doctor` say what to type."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How one setting is read, and what `docs/settings.md` says of it."""

    parse: Callable[[object], object]
    """Takes the value of TOML or the text of a variable. Raises `ValueError` with the reason alone."""
    default: object
    """The default as a user writes it; None or an empty tuple if there is none, see `unset`."""
    example: str
    """A valid value, shown after a refusal."""
    meaning: str
    """Markdown, with links relative to `docs/`."""
    unset: str = "none"
    """What a missing value means where `default` is None or empty, in Markdown."""


def _domain_servers(raw: object) -> Mapping[str, tuple[tuple[str, int], ...]]:
    # A domain without quotes is a table in a table to TOML, and means the same to people.
    return values.parse_domain_servers(_leaves(raw, "") if isinstance(raw, dict) else values.split_domains(raw))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can set, each with its reader and its meaning.

    A field is None or empty if nothing is set and there is no default; its `unset` says what that means.
    `docs/settings.md` is generated from here by `python -m tests.docs.settings`.
    """

    node_name: str = field(
        metadata={
            "node.name": Setting(
                values.parse_host_name,
                None,
                'a host name such as "worker-1"',
                "this worker's name",
                unset="the host name",
            )
        }
    )
    node_address: str | None = field(
        metadata={
            "node.address": Setting(
                values.parse_address,
                None,
                'an address of this host such as "192.0.2.11"',
                "where published ports listen",
                unset="every address of the host, those that appear later too",
            )
        }
    )
    vip_pool: Network = field(
        metadata={
            "vip.pool": Setting(
                values.parse_vip_pool,
                "10.112.0.0/16",
                'a network such as "10.112.0.0/16"',
                "where the VIPs of services are taken from; must overlap no network of a worker",
            )
        }
    )
    publish_ports: range = field(
        metadata={
            "publish.ports": Setting(
                values.parse_port_range,
                "30000-32767",
                '"30000-32767"',
                "where published ports that ask for `auto` are taken from",
            )
        }
    )
    dataplane_driver: Driver = field(
        metadata={
            "dataplane.driver": Setting(
                values.word_parser(Driver, "a data plane driver"),
                "auto",
                '"auto", "ipvs", "nftables" or "userspace"',
                "what forwards the traffic: `ipvs`, `nftables`, `userspace`, or `auto`: the first of them that works",
            )
        }
    )
    dataplane_low_port_offset: int = field(
        metadata={
            "dataplane.low_port_offset": Setting(
                values.number_parser(0, 64000),
                0,
                "a number such as 8000, or 0",
                "added to listen ports below 1024 by the user-space proxy, which then needs no privilege",
            )
        }
    )
    dataplane_drain_timeout: int = field(
        metadata={
            "dataplane.drain_timeout": Setting(
                values.number_parser(0, 86400),
                30,
                "a number of seconds such as 30",
                "seconds that the connections of a removed endpoint get to finish",
            )
        }
    )
    dataplane_hold: int = field(
        metadata={
            "dataplane.hold": Setting(
                values.number_parser(0, 60),
                10,
                "a number of seconds such as 10, or 0",
                "seconds that new connections wait while the container engine restarts and nothing else serves; "
                "0: they are refused",
            )
        }
    )
    dataplane_local_networks: tuple[Network, ...] = field(
        metadata={
            "dataplane.local_networks": Setting(
                values.parse_networks,
                (),
                'networks such as ["10.5.0.0/24"]',
                "networks whose hosts have this worker as their default route, beside those of its "
                "containers; endpoints there see the client's address, see [Source NAT](source-nat.md)",
            )
        }
    )
    dataplane_proxy_connections: int = field(
        metadata={
            "dataplane.proxy_connections": Setting(
                values.number_parser(64, 1000000),
                16384,
                "a number such as 16384",
                "how many TCP connections the user-space proxy carries at a time; one client never gets all of them",
            )
        }
    )
    dataplane_proxy_sessions: int = field(
        metadata={
            "dataplane.proxy_sessions": Setting(
                values.number_parser(64, 1000000),
                8192,
                "a number such as 8192",
                "how many UDP sessions the user-space proxy carries at a time",
            )
        }
    )
    dataplane_tcp_idle: int = field(
        metadata={
            "dataplane.tcp_idle": Setting(
                values.number_parser(10, 604800),
                7200,
                "a number of seconds such as 7200",
                "seconds without data after which the user-space proxy resets a TCP connection",
            )
        }
    )
    dataplane_udp_idle: int = field(
        metadata={
            "dataplane.udp_idle": Setting(
                values.number_parser(1, 86400),
                60,
                "a number of seconds such as 60",
                "seconds without a datagram after which the user-space proxy ends a UDP session",
            )
        }
    )
    host_firewall: FirewallMode = field(
        metadata={
            "host.firewall": Setting(
                values.word_parser(FirewallMode, "who opens the firewall"),
                "manage",
                '"manage" or "report"',
                "`manage`: the daemon lets translated connections through the container engine's rules; `report`: "
                "`vipmesh status` and `vipmesh doctor` show the line to type; see [Firewall](firewall.md)",
            )
        }
    )
    dns_listen: tuple[tuple[str, int], ...] = field(
        metadata={
            "dns.listen": Setting(
                values.socket_addresses_parser(53),
                "127.0.0.1:53",
                'addresses such as ["127.0.0.1:53"]',
                "where the name server answers, over UDP and TCP",
            )
        }
    )
    dns_domain: str = field(
        metadata={
            "dns.domain": Setting(
                values.parse_domain_name,
                "mesh.internal",
                'a domain such as "mesh.internal"',
                "the cluster domain: where bare names live",
            )
        }
    )
    dns_ttl: int = field(
        metadata={
            "dns.ttl": Setting(
                values.number_parser(1, 3600),
                5,
                "a number of seconds such as 5",
                "seconds that clients may keep an answer",
            )
        }
    )
    dns_resolver: str = field(
        metadata={
            "dns.resolver": Setting(
                values.parse_resolver,
                "auto",
                '"auto", "off" or an address of the VIP pool',
                "where containers ask, on port 53 of every worker: `off`, or an address; `auto` is the "
                "first address of the VIP pool",
            )
        }
    )
    dns_upstream: tuple[tuple[str, int], ...] = field(
        metadata={
            "dns.upstream": Setting(
                values.socket_addresses_parser(53),
                (),
                'addresses such as ["192.0.2.53"]',
                "who answers for all other names",
                unset="the name servers of `/etc/resolv.conf`",
            )
        }
    )
    dns_forward: Mapping[str, tuple[tuple[str, int], ...]] = field(
        metadata={
            "dns.forward": Setting(
                _domain_servers,
                (),
                '"corp.example" = ["10.1.1.1"]',
                "who answers for the names in a domain, the longest domain first: a table `[dns.forward]` "
                'with a line `"corp.example" = ["10.1.1.1"]` each; in a variable '
                "`corp.example=10.1.1.1,10.1.1.2,lab.example=10.2.2.2`",
            )
        }
    )
    dns_allow: tuple[Network, ...] = field(
        metadata={
            "dns.allow": Setting(
                values.parse_networks,
                (),
                'networks such as ["192.0.2.0/24"]',
                "whose questions are answered; everybody else's are refused",
                unset="private, shared, loopback and link-local networks",
            )
        }
    )
    dns_outstanding: int = field(
        metadata={
            "dns.outstanding": Setting(
                values.number_parser(16, 65536),
                1024,
                "a number of questions such as 1024",
                "how many questions about other names may be under way at a time; one client gets a quarter of them",
            )
        }
    )
    dns_tcp_connections: int = field(
        metadata={
            "dns.tcp_connections": Setting(
                values.number_parser(16, 65536),
                256,
                "a number of connections such as 256",
                "how many TCP connections each address of the name server has open at a time; one client never gets "
                "all of them",
            )
        }
    )
    dns_cache_bytes: int = field(
        metadata={
            "dns.cache_bytes": Setting(
                values.number_parser(65536, 999999999),
                16777216,
                "a number of bytes such as 16777216",
                "how many bytes the cached answers of upstreams take at most",
            )
        }
    )
    names_allow: tuple[str, ...] = field(
        metadata={
            "names.allow": Setting(
                values.parse_name_domains,
                ", ".join(values.DEFAULT_NAME_DOMAINS),
                'domains such as ["shop.example"]',
                "the domains, beside the cluster domain, in which labels may claim names; other names are refused, "
                "see [Names that labels may claim](labels.md#names-that-labels-may-claim)",
            )
        }
    )
    dns_private_answers: PrivateAnswers = field(
        metadata={
            "dns.private_answers": Setting(
                values.word_parser(PrivateAnswers, "kind of private answers"),
                "allow",
                '"allow" or "refuse"',
                "what becomes of answers of upstreams with private, shared or link-local addresses; those of "
                "`[dns.forward]` are always allowed, and addresses of the VIP pool or of this host never are",
            )
        }
    )
    dns_forward_rate: int = field(
        metadata={
            "dns.forward_rate": Setting(
                values.number_parser(0, 1_000_000),
                2000,
                "a number of questions such as 2000, or 0 for no limit",
                "how many questions per second of one client may go to upstreams; more get SERVFAIL, or a stale answer",
            )
        }
    )
    dns_refusal_rate: int = field(
        metadata={
            "dns.refusal_rate": Setting(
                values.number_parser(0, 1_000_000),
                100,
                "a number of refusals such as 100, or 0 for no limit",
                "how many refusals per second one address gets over UDP; more questions get no answer",
            )
        }
    )
    dns_own_rate: int = field(
        metadata={
            "dns.own_rate": Setting(
                values.number_parser(0, 1_000_000),
                0,
                "a number of questions such as 50000, or 0 for no limit",
                "how many answers per second of any kind one client gets over UDP; for more it is sent to TCP; "
                "0 sets no limit",
            )
        }
    )
    probes_floor: int = field(
        metadata={
            "probes.floor": Setting(
                values.number_parser(0, 100),
                50,
                "a number from 0 to 100 such as 50, or 0 to obey every verdict",
                "per cent of a service's endpoints that stay in traffic when most fail at once, unless "
                "its label `probe.floor` says otherwise; 0 obeys every verdict; "
                "[probes.md](probes.md#when-most-fail-at-once)",
            )
        }
    )
    probes_concurrent: int = field(
        metadata={
            "probes.concurrent": Setting(
                values.number_parser(16, 65536),
                1024,
                "a number of checks such as 1024",
                "how many checks run at a time; the others wait, and none of them counts as failed for that",
            )
        }
    )
    probes_body_bytes: int = field(
        metadata={
            "probes.body_bytes": Setting(
                values.number_parser(1024, 16777216),
                65536,
                "a number of bytes such as 65536",
                "how many bytes of the body of an answer `probe.expect_body` is looked for in",
            )
        }
    )
    probes_commands: int = field(
        metadata={
            "probes.commands": Setting(
                values.number_parser(1, 256),
                4,
                "a number of commands such as 4",
                "how many commands of probes run at a time; the services share these places",
            )
        }
    )
    probes_commands_per_second: int = field(
        metadata={
            "probes.commands_per_second": Setting(
                values.number_parser(1, 1000),
                20,
                "a number of commands such as 20",
                "how many commands of probes start per second",
            )
        }
    )
    source_compose_files: tuple[Path, ...] = field(
        metadata={
            "source.compose.files": Setting(
                values.parse_paths,
                (),
                'paths such as ["compose.yaml"]',
                "compose files whose `x-endpoints` are the instances",
            )
        }
    )
    source_compose_file_bytes: int = field(
        metadata={
            "source.compose.file_bytes": Setting(
                values.number_parser(4096, 268435456),
                4194304,
                "a number of bytes such as 4194304",
                "how many bytes a compose file may have, and each file that it names, such as `.env`; the last list of "
                "a larger one stays in force",
            )
        }
    )
    source_compose_values: int = field(
        metadata={
            "source.compose.values": Setting(
                values.number_parser(100, 10000000),
                20000,
                "a number of values such as 20000",
                "how many keys, texts, lists and mappings a compose file may have, some hundred bytes of memory each; "
                "the last list of a larger one stays in force",
            )
        }
    )
    source_compose_endpoints: int = field(
        metadata={
            "source.compose.endpoints": Setting(
                values.number_parser(1, 1000000),
                2000,
                "a number of instances such as 2000",
                "how many instances `x-endpoints` of all compose files may list together, some 40 kB of memory each; "
                "the last list stays in force if there are more",
            )
        }
    )
    source_compose_problems: int = field(
        metadata={
            "source.compose.problems": Setting(
                values.number_parser(1, 100000),
                1000,
                "a number of problems such as 1000",
                "how many problems of compose files are kept, errors before warnings; the others are counted",
            )
        }
    )
    source_docker_socket: str | None = field(
        metadata={
            "source.docker.socket": Setting(
                values.parse_engine,
                None,
                '"unix:///var/run/docker.sock"',
                "the engine, Docker or Podman, whose labelled containers are the instances: "
                "`unix:///var/run/docker.sock`, `unix:///run/podman/podman.sock` or `tcp://HOST:PORT`, see "
                "[Docker](docker.md)",
            )
        }
    )
    source_docker_endpoint_address: EndpointAddress = field(
        metadata={
            "source.docker.endpoint_address": Setting(
                values.word_parser(EndpointAddress, "an address of endpoints"),
                "auto",
                '"auto", "container" or "host"',
                "where endpoints are reached: `container`: at the container's address; `host`: at the "
                "worker's and the published port; `auto`: at the container's where every worker can reach "
                "it",
            )
        }
    )
    source_docker_image_labels: bool = field(
        metadata={
            "source.docker.image_labels": Setting(
                values.parse_switch,
                False,
                "true or false",
                "whether labels count that a container has from its image: only if the authors of images may "
                "declare services, see [Which labels count](docker.md#which-labels-count)",
            )
        }
    )
    source_docker_labels: int = field(
        metadata={
            "source.docker.labels": Setting(
                values.number_parser(16, 4096),
                256,
                "a number of labels such as 256",
                "how many labels of the mesh a container may have; one with more is no instance",
            )
        }
    )
    source_docker_label_length: int = field(
        metadata={
            "source.docker.label_length": Setting(
                values.number_parser(256, 65536),
                4096,
                "a number of characters such as 4096",
                "how many characters a label of the mesh and its value may have",
            )
        }
    )
    source_docker_require: tuple[str, ...] = field(
        metadata={
            "source.docker.require": Setting(
                values.parse_label_constraints,
                (),
                'labels such as ["env=production", "com.example.mesh"]',
                "labels that a container must have to be an instance, all of them: `KEY` or `KEY=VALUE`",
            )
        }
    )
    store_url: str = field(
        metadata={
            "store.url": Setting(
                values.parse_store_url,
                "sqlite:////var/lib/vipmesh/store.db",
                f'"sqlite:////var/lib/vipmesh/store.db" (four slashes: an absolute path), or {etcd_url.EXAMPLE_URL}',
                "where claims and endpoints are kept: a file for a single worker, or etcd for a cluster, "
                "`etcd://host1:2379,host2:2379,host3:2379/vipmesh`, `etcds://` for TLS; "
                "[store.md](store.md)",
            )
        }
    )
    store_user: str | None = field(
        metadata={"store.user": Setting(values.parse_text, None, 'a name such as "vipmesh"', "the user of etcd")}
    )
    store_password: str | None = field(
        repr=False,
        metadata={"store.password": Setting(values.parse_text, None, "a text", "the password of the user of etcd")},
    )
    store_ca: Path | None = field(
        metadata={
            "store.ca": Setting(
                values.parse_path,
                None,
                'a path such as "/etc/vipmesh/etcd-ca.pem"',
                "who signed etcd's certificates, a PEM file",
                unset="what the host trusts",
            )
        }
    )
    store_cert: Path | None = field(
        metadata={
            "store.cert": Setting(
                values.parse_path,
                None,
                'a path such as "/etc/vipmesh/etcd.pem"',
                "this worker's certificate for etcd, a PEM file; its CN must be empty",
            )
        }
    )
    store_key: Path | None = field(
        metadata={
            "store.key": Setting(
                values.parse_path,
                None,
                'a path such as "/etc/vipmesh/etcd.key"',
                "its private key",
                unset="in the file of the certificate",
            )
        }
    )
    store_lease_ttl: int = field(
        metadata={
            "store.lease_ttl": Setting(
                values.number_parser(2, 600),
                5,
                "a number of seconds such as 5",
                "seconds that what a worker offers outlives its last sign of life",
            )
        }
    )
    store_saved_view: Path = field(
        metadata={
            "store.saved_view": Setting(
                values.parse_path,
                "/var/lib/vipmesh/view.json",
                '"/var/lib/vipmesh/view.json"',
                "where the last view of the cluster is kept, for a start while etcd is away",
            )
        }
    )
    host_arrival_interval: int = field(
        metadata={
            "host.arrival_interval": Setting(
                values.number_parser(0, 300),
                60,
                "a number of seconds such as 60, or 0 to turn it off",
                "seconds between two checks of whether requests from each network of containers arrive at services "
                "of others; it needs root, see [Requests that do not arrive]"
                "(connectivity.md#requests-that-do-not-arrive); 0 turns it off",
            )
        }
    )
    peers_listen: str = field(
        metadata={
            "peers.listen": Setting(
                values.parse_peers,
                "auto",
                '"auto", "off" or an address and port such as "192.0.2.11:9781"',
                "where this worker answers the others over TCP, so that its loss is noticed before its "
                "lease ends ([cluster](cluster.md)); `auto`: port 9781 of `[node] address`, else of the "
                "address from which it reaches the store; `off`, or `ADDRESS:PORT`",
            )
        }
    )
    cluster_endpoint_networks: tuple[Network, ...] = field(
        metadata={
            "cluster.endpoint_networks": Setting(
                values.parse_networks,
                (),
                'networks such as ["10.0.0.0/8"]',
                "the only networks that endpoints of other workers may be in; loopback, link-local addresses, VIPs and "
                "this host's own addresses are refused from other workers in any case, see [the cluster](cluster.md)",
                unset="every network",
            )
        }
    )
    rollouts_check_networks: tuple[Network, ...] = field(
        metadata={
            "rollouts.check_networks": Setting(
                values.parse_networks,
                (),
                'networks such as ["192.0.2.0/24"]',
                "the only networks besides the instances themselves that `release.check.url` may ask; loopback, "
                "link-local addresses, VIPs and this host's own addresses never are, see "
                "[what the judge looks at](howto/judge.md)",
                unset="none",
            )
        }
    )
    claims_grace: int = field(
        metadata={
            "claims.grace": Setting(
                values.seconds_parser(0, 86_400),
                "10m",
                'a time such as "10m", or a number of seconds',
                "how long a name stays with its owner in any case after its last instance, in seconds or with a unit "
                "(`s`, `m`, `h`, `d`); see [Who has a name, and for how long](claims.md)",
            )
        }
    )
    claims_keep: int = field(
        metadata={
            "claims.keep": Setting(
                values.seconds_parser(60, 3650 * 86_400),
                "30d",
                'a time such as "30d", or a number of seconds',
                "how long a name stays with its owner towards services of other projects, and a published port with "
                "its service, while nobody declares it; counted while the store is there; see [claims](claims.md)",
            )
        }
    )
    claims_container_names: int = field(
        metadata={
            "claims.container_names": Setting(
                values.number_parser(1, 100_000),
                32,
                "a number such as 32",
                "how many routing names one container may claim; more are refused, those that it holds already stay",
            )
        }
    )
    claims_container_ports: int = field(
        metadata={
            "claims.container_ports": Setting(
                values.number_parser(1, 100_000),
                16,
                "a number such as 16",
                "how many published ports one container may claim; more are refused, those that it holds already stay",
            )
        }
    )
    claims_owner_names: int = field(
        metadata={
            "claims.owner_names": Setting(
                values.number_parser(1, 100_000),
                256,
                "a number such as 256",
                "how many routing names one owner (`project/service`) may hold; more are refused, those that it "
                "holds already stay",
            )
        }
    )
    claims_owner_ports: int = field(
        metadata={
            "claims.owner_ports": Setting(
                values.number_parser(1, 100_000),
                64,
                "a number such as 64",
                "how many published ports one owner may hold; more are refused, those that it holds already stay",
            )
        }
    )
    claims_new_at_once: int = field(
        metadata={
            "claims.new_at_once": Setting(
                values.number_parser(10, 1000000),
                1000,
                "a number of claims such as 1000",
                "how many new names, published ports and moves of VIPs all services of this worker together may claim "
                "at once; what they hold already is not counted, see [claims](claims.md)",
            )
        }
    )
    claims_new_per_minute: int = field(
        metadata={
            "claims.new_per_minute": Setting(
                values.number_parser(1, 1000000),
                60,
                "a number of claims such as 60",
                "how many more they may claim each minute after that",
            )
        }
    )
    admin_listen: str = field(
        metadata={
            "admin.listen": Setting(
                values.parse_listen,
                "unix:///run/vipmesh/admin.sock",
                '"unix:///run/vipmesh/admin.sock" or "127.0.0.1:9780"',
                "where `vipmesh status` asks: a unix socket, which its owner and group may use, or `HOST:PORT`",
            )
        }
    )
    admin_connections: int = field(
        metadata={
            "admin.connections": Setting(
                values.number_parser(8, 65536),
                128,
                "a number of connections such as 128",
                "how many connections over TCP may be open whose clients have not shown a token or a certificate; one "
                "address gets a part of them",
            )
        }
    )
    admin_tcp: str | None = field(
        metadata={
            "admin.tcp": Setting(
                values.parse_tcp_address,
                None,
                'an address such as "192.0.2.11:9780"',
                "`HOST:PORT` where the page and Prometheus ask, beside `listen`; over TCP a client brings "
                "a token or a certificate, see [the API](api.md)",
                unset="nowhere",
            )
        }
    )
    admin_token_file: Path | None = field(
        metadata={
            "admin.token_file": Setting(
                values.parse_path,
                None,
                'a path such as "/etc/vipmesh/admin.token"',
                "a file with the token that clients over TCP bring, 16 characters or more; it may do everything; a new "
                "one counts at the next request",
            )
        }
    )
    admin_read_token_file: Path | None = field(
        metadata={
            "admin.read_token_file": Setting(
                values.parse_path,
                None,
                'a path such as "/etc/vipmesh/read.token"',
                "a file with a token, as `token_file`, for clients over TCP that only look, such as Prometheus and "
                "the page: it may read everything and change nothing",
            )
        }
    )
    admin_cert: Path | None = field(
        metadata={
            "admin.cert": Setting(
                values.parse_path,
                None,
                'a path such as "/etc/vipmesh/admin.pem"',
                "this worker's certificate for clients over TCP, a PEM file",
                unset="none: in the clear",
            )
        }
    )
    admin_key: Path | None = field(
        metadata={
            "admin.key": Setting(
                values.parse_path,
                None,
                'a path such as "/etc/vipmesh/admin.key"',
                "its private key",
                unset="in the file of the certificate",
            )
        }
    )
    admin_client_ca: Path | None = field(
        metadata={
            "admin.client_ca": Setting(
                values.parse_path,
                None,
                'a path such as "/etc/vipmesh/clients-ca.pem"',
                "who signs the certificates of clients over TCP, a PEM file; who has one needs no token",
            )
        }
    )
    admin_advertise: str | None = field(
        metadata={
            "admin.advertise": Setting(
                values.parse_reachable_address,
                None,
                'an address such as "192.0.2.11:9780"',
                "`HOST:PORT` where other workers ask this one, if that is not where it listens; it is published only "
                "with `cert` and `client_ca`, see [the channel](cluster.md#the-channel-between-workers)",
                unset="where it listens over TCP, at the worker's address",
            )
        }
    )
    admin_hosts: tuple[str, ...] = field(
        metadata={
            "admin.hosts": Setting(
                values.parse_domain_names,
                (),
                'names such as ["worker-1.example"]',
                "names, beside `[node] name`, the host name and `localhost`, that clients may use for this worker in "
                "a URL of the admin API; addresses are always allowed, see [the API](api.md#who-may-ask)",
            )
        }
    )
    admin_audit_file: Path | None = field(
        metadata={
            "admin.audit_file": Setting(
                values.parse_path,
                None,
                'a path such as "/var/lib/vipmesh/audit.log"',
                "a file that gets every audit line beside the log, see [the API](api.md#what-was-changed-and-by-whom)",
                unset="the log alone",
            )
        }
    )
    log_format: LogFormat = field(
        metadata={
            "log.format": Setting(
                values.word_parser(LogFormat, "a format of the log"),
                "text",
                '"text", "logfmt" or "json"',
                "how a line of the log looks: `text` for people, `logfmt` or `json` for programs, see "
                "[The log](cli.md#the-log)",
            )
        }
    )
    metrics_services: int = field(
        metadata={
            "metrics.services": Setting(
                values.number_parser(0, 100_000),
                1000,
                "a number of services such as 1000",
                "how many services have series of their own in the [metrics](metrics.md), the first ones by name",
            )
        }
    )
    metrics_endpoints: int = field(
        metadata={
            "metrics.endpoints": Setting(
                values.number_parser(0, 100_000),
                200,
                "a number of endpoints such as 200",
                "how many endpoints have series of their own in the [metrics](metrics.md), those of the first services "
                "by name; 0: none",
            )
        }
    )
    events_keep: int = field(
        metadata={
            "events.keep": Setting(
                values.number_parser(100, 1_000_000),
                10_000,
                "a number of events such as 10000",
                "how many [past events](cli.md#past-events) this worker keeps; the oldest ones are dropped",
            )
        }
    )
    events_days: int = field(
        metadata={
            "events.days": Setting(
                values.number_parser(1, 366),
                7,
                "a number of days such as 7",
                "days after which a past event is dropped",
            )
        }
    )
    events_file: Path | None = field(
        metadata={
            "events.file": Setting(
                values.parse_path,
                None,
                '"/var/lib/vipmesh/store.db.events"',
                "where past events are kept, on this worker alone",
                unset="beside the store's file or the saved view, with `.events` appended",
            )
        }
    )
    ship_elasticsearch: tuple[str, ...] = field(
        metadata={
            "ship.elasticsearch": Setting(
                values.parse_http_urls,
                (),
                'a list of URLs such as ["https://elastic-1:9200"]',
                "where [`vipmesh ship`](howto/ship-logs.md) sends log lines: nodes of one Elasticsearch 8 or "
                "OpenSearch, tried in this order",
                unset="no Elasticsearch",
            )
        }
    )
    ship_loki: tuple[str, ...] = field(
        metadata={
            "ship.loki": Setting(
                values.parse_http_urls,
                (),
                'a list of URLs such as ["https://loki-1:3100"]',
                "where `vipmesh ship` sends log lines instead: endpoints of one Loki, tried in this order",
                unset="no Loki",
            )
        }
    )
    ship_loki_tenant: str | None = field(
        metadata={
            "ship.loki_tenant": Setting(
                values.parse_text,
                None,
                '"shop"',
                "the tenant of Loki, sent as `X-Scope-OrgID`",
                unset="no tenant",
            )
        }
    )
    ship_otlp: tuple[str, ...] = field(
        metadata={
            "ship.otlp": Setting(
                values.parse_http_urls,
                (),
                'a list of URLs such as ["https://collector-1:4318"]',
                "where `vipmesh ship` sends log lines instead: endpoints of OTLP/HTTP, without `/v1/logs`, tried "
                "in this order",
                unset="no OTLP",
            )
        }
    )
    ship_directory: Path | None = field(
        metadata={
            "ship.directory": Setting(
                values.parse_path,
                None,
                '"/var/log/vipmesh"',
                "where `vipmesh ship` writes log lines instead: JSON lines, one file for each store",
                unset="no files",
            )
        }
    )
    ship_index: str = field(
        metadata={
            "ship.index": Setting(
                values.parse_index_prefix,
                "vipmesh",
                'a word such as "vipmesh"',
                "what the name of each index begins with: `vipmesh-<project>-<store>`",
            )
        }
    )
    ship_lifecycle: LogLifecycle = field(
        metadata={
            "ship.lifecycle": Setting(
                values.word_parser(LogLifecycle, "a lifecycle"),
                "off",
                '"off", "ilm" or "ism"',
                "who deletes lines after `log_ttl_<name>`: `ilm` and `ism` set up templates and policies of "
                "Elasticsearch or OpenSearch, see [Ship logs](howto/ship-logs.md#delete-after-log_ttl)",
            )
        }
    )
    ship_user: str | None = field(
        metadata={
            "ship.user": Setting(
                values.parse_text,
                None,
                '"elastic"',
                "the user of the store of logs",
                unset="no user",
            )
        }
    )
    ship_password_file: Path | None = field(
        metadata={
            "ship.password_file": Setting(
                values.parse_path,
                None,
                '"/etc/vipmesh/elastic.password"',
                "a file with the password of that user",
                unset="no password",
            )
        }
    )
    ship_api_key_file: Path | None = field(
        metadata={
            "ship.api_key_file": Setting(
                values.parse_path,
                None,
                '"/etc/vipmesh/elastic.key"',
                "a file with an API key of Elasticsearch, in place of user and password",
                unset="no key",
            )
        }
    )
    ship_token_file: Path | None = field(
        metadata={
            "ship.token_file": Setting(
                values.parse_path,
                None,
                '"/etc/vipmesh/store.token"',
                "a file with a bearer token for the store of logs",
                unset="no token",
            )
        }
    )
    ship_header_file: Path | None = field(
        metadata={
            "ship.header_file": Setting(
                values.parse_path,
                None,
                '"/etc/vipmesh/store.headers"',
                "a file with lines `Name: value`, sent to the store of logs as headers",
                unset="no further headers",
            )
        }
    )
    ship_ca: Path | None = field(
        metadata={
            "ship.ca": Setting(
                values.parse_path,
                None,
                '"/etc/vipmesh/elastic-ca.pem"',
                "who signed the certificates of the store of logs",
                unset="the system's authorities",
            )
        }
    )
    ship_certificate: Path | None = field(
        metadata={
            "ship.certificate": Setting(
                values.parse_path,
                None,
                '"/etc/vipmesh/ship.pem"',
                "the certificate that `vipmesh ship` shows to the store of logs",
                unset="none is shown",
            )
        }
    )
    ship_key: Path | None = field(
        metadata={
            "ship.key": Setting(
                values.parse_path,
                None,
                '"/etc/vipmesh/ship.key"',
                "the private key of that certificate",
                unset="in the file of the certificate",
            )
        }
    )
    ship_state: Path = field(
        metadata={
            "ship.state": Setting(
                values.parse_path,
                "/var/lib/vipmesh-ship",
                '"/var/lib/vipmesh-ship"',
                "the directory of `vipmesh ship`: positions, refused lines and metrics",
            )
        }
    )
    ship_socket: Path = field(
        metadata={
            "ship.socket": Setting(
                values.parse_path,
                "/run/vipmesh-ship/ship.sock",
                '"/run/vipmesh-ship/ship.sock"',
                "the socket of `vipmesh ship`, where the daemon gets lines for `vipmesh logs`; for its owner alone",
            )
        }
    )
    ship_socket_group: str | None = field(
        metadata={
            "ship.socket_group": Setting(
                values.parse_text,
                None,
                '"vipmesh-ship"',
                "a group that may use that socket, too, and read the lines of all services: that of the daemon's user",
                unset="no group",
            )
        }
    )
    ship_metrics: str | None = field(
        metadata={
            "ship.metrics": Setting(
                values.parse_tcp_address,
                None,
                '"127.0.0.1:9781"',
                "where `vipmesh ship` answers `/metrics` for Prometheus, without a token",
                unset="on its socket alone",
            )
        }
    )


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {key: setting for each in fields(Settings) for key, setting in each.metadata.items()}
)
"""All settings by their key, such as `dns.listen`, in the order of the fields."""


CLIENT_VARIABLES = (
    "VIPMESH_ADMIN",
    "VIPMESH_TOKEN_FILE",
    "VIPMESH_CA",
    "VIPMESH_CERT",
    "VIPMESH_KEY",
    "VIPMESH_CONTEXT",
    "VIPMESH_CONTEXT_FILE",
)
"""The variables that say which worker the command line asks (`mesh.cli.access`). They are no settings."""


_TABLES = frozenset(key[:at] for key in SETTINGS for at, letter in enumerate(key) if letter == ".")
"""The tables that have settings."""
_FORWARD = "dns.forward"
"""The one setting that is a table itself."""


def parse_settings(text: str, environment: Mapping[str, str], *, hostname: str, file: str = "settings") -> Settings:
    """Read the settings from TOML text and the environment; `hostname` is the default of `[node] name`.

    Raises `SettingsError` with every problem found.
    """
    try:
        tree = tomllib.loads(text)
        given = dict(_leaves(tree, ""))
    except (ValueError, RecursionError) as error:  # `TOMLDecodeError` is a `ValueError`
        from mesh.model.codes import Code

        raise SettingsError([CodedText(f"{file}: not TOML: {error}", Code.SETTINGS_FILE_UNUSABLE)]) from error
    unknown = [f"{file}: {text}" for text in (*_unknown_tables(tree, ""), *_unknown(given))]
    unknown += _unknown_variables(environment)
    refused: list[str] = []
    read: dict[str, Any] = {"node_name": hostname}
    for key, setting in SETTINGS.items():
        variable, example = environment_variable(key), setting.example
        raw: object
        if variable in environment:
            where, raw = f"environment variable {variable}:", environment[variable]
            example = re.sub(r'[]["]', "", example)  # a variable holds the bare text
        else:
            raw = given.get(key, setting.default)
            where = f"{file}: [{key}]" if isinstance(raw, dict) else f"{file}: {_shown(key)}:"
        if raw is None:
            read.setdefault(_attribute(key), None)
            continue
        try:
            read[_attribute(key)] = setting.parse(raw)
        except ValueError as error:
            refused.append(f"{where} {error}; write {example}")
    if unknown or refused:
        from mesh.model.codes import Code

        problems = [CodedText(text, Code.UNKNOWN_SETTING) for text in unknown]
        raise SettingsError([*problems, *(CodedText(text, Code.SETTING_VALUE) for text in refused)])
    settings = Settings(**read)
    _refuse_contradictions(settings, file)
    return settings


def environment_variable(key: str) -> str:
    """The environment variable of a setting: `dns.listen` -> `VIPMESH_DNS_LISTEN`."""
    return "VIPMESH_" + key.replace(".", "_").upper()


def _refuse_contradictions(settings: Settings, file: str) -> None:
    contradictions, doors = list(_contradictions(settings)), list(_open_doors(settings))
    if contradictions or doors:
        from mesh.model.codes import Code

        problems = [CodedText(f"{file}: {text}", Code.SETTINGS_CONTRADICT) for text in contradictions]
        raise SettingsError([*problems, *(CodedText(f"{file}: {text}", Code.ADMIN_API_UNPROTECTED) for text in doors)])


def _contradictions(settings: Settings) -> Iterator[str]:
    """Find settings that are valid by themselves and contradict one another."""
    places = [("[dns] upstream", settings.dns_upstream)]
    for domain, servers in settings.dns_forward.items():
        if f".{domain}".endswith(f".{settings.dns_domain}"):
            yield (
                f'[dns.forward] "{domain}": names in the cluster domain {settings.dns_domain} are answered here and '
                "never forwarded; take it out, or choose another [dns] domain"
            )
        places.append((f'[dns.forward] "{domain}"', servers))
    for place, servers in places:
        for host, port in set(servers) & set(settings.dns_listen):
            yield (
                f"{place}: {host}:{port} is this name server itself, see [dns] listen; write the address of another one"
            )
    for allowed in settings.names_allow:
        forwarded = next((d for d in settings.dns_forward if f".{allowed}".endswith(f".{d}")), None)
        if forwarded is not None:
            yield (
                f'[names] allow: names in {allowed} are left to the servers of [dns.forward] "{forwarded}"; '
                "take one of the two out"
            )


def _open_doors(settings: Settings) -> Iterator[str]:
    """Find an admin API over TCP that does not authenticate its clients: it can drain and stop containers."""
    over_tcp = settings.admin_tcp or (None if settings.admin_listen.startswith("unix:") else settings.admin_listen)
    tokens = [file for file in (settings.admin_token_file, settings.admin_read_token_file) if file is not None]
    if len(tokens) > len(set(tokens)):
        text = "[admin] read_token_file: it is token_file, whose token may do everything; name another file"
        yield text
    if over_tcp and not tokens and settings.admin_client_ca is None:
        yield (
            f"[admin] {'tcp' if settings.admin_tcp else 'listen'}: whoever reaches {over_tcp} could drain and stop "
            "containers; set [admin] token_file, or client_ca and cert, or listen on a unix socket alone"
        )
    if settings.admin_client_ca is not None and settings.admin_cert is None:
        text = "[admin] client_ca: certificates of clients need one of this worker; set [admin] cert"
        yield text


# ------------------------------------------------------------------------------------------------- unknown keys


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield every setting with its value, those in unknown tables included."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in SETTINGS:
            yield from _leaves(value, path + ".")
        else:
            yield path, value


def _unknown_tables(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Yield what is wrong with each empty table that does not exist; in others, each setting is reported."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in SETTINGS:
            if not value and path not in _TABLES:
                yield f"[{path}]: no such table; {_nearest(path, sorted({*_TABLES, _FORWARD}), '[{}]'.format)}"
            yield from _unknown_tables(value, path + ".")


def _unknown(given: Mapping[str, Any]) -> Iterator[str]:
    for key in given:
        if key not in SETTINGS:
            yield f"{_shown(key)}: no such setting; {_nearest(key, list(SETTINGS), _shown)}"


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    known = [*(environment_variable(key) for key in SETTINGS), *CLIENT_VARIABLES]
    for variable in environment:
        if variable.startswith("VIPMESH_") and variable not in known:
            yield f"environment variable {variable}: no such setting; {_nearest(variable, known, str)}"


def _nearest(word: str, words: list[str], shown: Callable[[str], str]) -> str:
    import difflib  # what is right needs none

    near = difflib.get_close_matches(word, words, n=1, cutoff=0)
    return f"did you mean {shown(near[0])}?"


def _shown(key: str) -> str:
    section, _, name = key.rpartition(".")
    return f"[{section}] {name}" if section else name


def _attribute(key: str) -> str:
    return key.replace(".", "_")
