"""Writes docs/limits.md: every bound on what comes from outside, with the value that the code has.

python -m tests.docs.limits
"""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from mesh.config.settings import SETTINGS
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "limits.md"

_NAME = re.compile(r"MAX|MOST|LIMIT|TIMEOUT|PATIENCE|LENGTH|DEPTH|_CHAIN$|PER_SECOND|_DIGITS|_BYTES$|BACKLOG|_LONGEST")
"""How a constant is called that may be a bound."""
_PLACE = re.compile(r"\{([\w.]+):([\w.]+)(?:\|(\w+))?\}")
_SETTING = re.compile(r"`\[([\w.]+)\] (\w+)`")


@dataclass(frozen=True)
class Bound:
    """A row: what is bounded, the bound, the setting or why there is none, and what is said or done beyond it."""

    what: str
    bound: str
    """Text with a place `{module:CONSTANT}` for each value, `|B` for bytes and `|s` for seconds."""
    differs: str
    """The setting, or `fixed: ` and the reason."""
    beyond: str
    also: tuple[str, ...] = ()
    """Further constants for the same, with values that are shown already."""

    @property
    def constants(self) -> list[str]:
        """The places in the bound, and the further ones, as `module:CONSTANT`."""
        return [*(f"{module}:{name}" for module, name, _ in _PLACE.findall(self.bound)), *self.also]

    @property
    def settings(self) -> list[str]:
        """The settings that change the bound, as `section.key`."""
        found = [] if self.differs.startswith("fixed: ") else _SETTING.findall(self.differs)
        return [f"{section}.{key}" for section, key in found]


_L = "fixed: nothing that works needs more"
_SAME = "fixed: all workers must read the same"
_HERE = "fixed: it bounds a cache, and only costs time"

SECTIONS: dict[str, tuple[Bound, ...]] = {
    "Labels and containers": (
        Bound(
            "labels of the mesh on one container",
            "{mesh.sources.docker.instances:MAX_LABELS}",
            "`[source.docker] labels`",
            "VM251, the container is left out",
        ),
        Bound(
            "a label of the mesh with its value, characters",
            "{mesh.sources.docker.instances:MAX_LABEL_LENGTH}",
            "`[source.docker] label_length`",
            "VM251, the container is left out",
        ),
        Bound(
            "labels of any kind on one instance; characters of those of the mesh",
            "{mesh.cluster.registration:MAX_LABELS}; {mesh.cluster.registration:MAX_LABEL_CHARACTERS}",
            _L,
            "VM251, the instance is left out",
        ),
        Bound(
            "routing names of one container",
            "{mesh.config.labels.values:MAX_NAMES}",
            "fixed: `[claims] container_names` is far below",
            "VM117",
        ),
        Bound(
            "routes, published and mapped ports of one service",
            "{mesh.model.validation:MAX_ROUTES}",
            _SAME,
            "VM251, or VM407 for a record",
        ),
        Bound(
            "an ID, an owner, the name of a worker or a container; a run: characters",
            "{mesh.model.validation:MAX_TEXT}; {mesh.model.validation:MAX_RUN}",
            _SAME,
            "VM251, or VM407 for a record",
        ),
        Bound(
            "the name of a release, characters",
            "{mesh.config.labels.values:_RELEASE_MAX}",
            _SAME,
            "VM118",
        ),
        Bound(
            "releases of one service that have shares",
            "{mesh.model.release_shares:MAX_SHARED_RELEASES}",
            _SAME,
            "VM980, or VM407 for a record",
        ),
        Bound(
            "client affinity",
            "{mesh.config.labels.values:_STICKY_MAX|s}",
            "fixed: ipvsadm(8) accepts no more",
            "VM117",
            ("mesh.model.validation:MAX_STICKY_SECONDS",),
        ),
        Bound(
            "slow start of an endpoint",
            "from 1 s to {mesh.model.service:MAX_SLOW_START|s}",
            _SAME,
            "VM117",
        ),
        Bound(
            "interval and timeout of a probe",
            "from {mesh.config.labels.values:_SECONDS_MIN|s} to {mesh.config.labels.values:_SECONDS_MAX|s}",
            "fixed: below is a busy loop, above is no probe",
            "VM117",
            ("mesh.model.validation:MIN_SECONDS", "mesh.model.validation:MAX_SECONDS"),
        ),
        Bound(
            "checks in a row of a threshold; ranges of statuses; headers of a probe",
            "{mesh.model.validation:MAX_COUNT}; {mesh.model.validation:MAX_STATUS_RANGES}; "
            "{mesh.model.validation:MAX_HEADERS}",
            _SAME,
            "VM117, VM125",
        ),
        Bound(
            "path, command, header value and expected body of a probe, characters",
            "{mesh.config.labels.probe_values:_PATH_MAX}, {mesh.config.labels.probe_values:_COMMAND_MAX}, "
            "{mesh.config.labels.probe_values:_HEADER_MAX}, {mesh.config.labels.probe_values:_BODY_MAX}",
            _SAME,
            "VM120, VM125",
            tuple(f"mesh.model.validation:MAX_{name}" for name in ("PATH", "COMMAND", "HEADER_VALUE", "BODY_TEXT")),
        ),
        Bound(
            "the datagram of a UDP probe and its answer",
            "{mesh.config.labels.probe_values:_DATAGRAM_MAX|B}",
            "fixed: what fits into one packet on any path (RFC 8200)",
            "VM125",
            ("mesh.model.validation:MAX_DATAGRAM",),
        ),
    ),
    "Compose files": (
        Bound(
            "one file, and each that it names (`.env`, `env_file`, `label_file`, `extends`, `include`)",
            "{mesh.sources.compose.limits:ComposeLimits.file_bytes|B}",
            "`[source.compose] file_bytes`",
            "VM150, the last list stays in force",
        ),
        Bound(
            "keys, texts, lists and mappings of one file; variables of a `.env`, `env_file` or `label_file`",
            "{mesh.sources.compose.limits:ComposeLimits.values}",
            "`[source.compose] values`",
            "VM150, the last list stays in force",
        ),
        Bound(
            "instances that the `x-endpoints` of all files of a project list",
            "{mesh.sources.compose.limits:ComposeLimits.endpoints}",
            "`[source.compose] endpoints`",
            "VM150, the last list stays in force",
        ),
        Bound(
            "entries of a project with aliases and `<<` followed, for each of its files and once for those that they "
            "name; entries that `extends` and several files merge, for each file",
            "4 times the values; 4 x {mesh.sources.compose.limits:_MERGED_MAX} times the values",
            "`[source.compose] values`",
            "VM150, the last list stays in force",
        ),
        Bound(
            "characters of all texts of a project and of the variables that it reads, with aliases and variables "
            "replaced, for each of its files; of one text elsewhere",
            "2 times the bytes; {mesh.sources.compose.interpolate:MAX_CHARACTERS}",
            "`[source.compose] file_bytes`",
            "VM150, the last list stays in force",
        ),
        Bound(
            "problems that are kept of a project, errors before warnings",
            "{mesh.sources.compose.limits:ComposeLimits.problems}",
            "`[source.compose] problems`",
            "VM772 counts the others",
        ),
        Bound(
            "nesting of YAML, and of `<<`; with aliases followed; nesting of `${`",
            "{mesh.sources.compose.yaml_nodes:_DEPTH_MAX}; {mesh.sources.compose.tree:_DEPTH_MAX}; "
            "{mesh.sources.compose.interpolate:_NEST_MAX}",
            "fixed: the parser uses the C stack",
            "VM150; VM150; VM154",
        ),
        Bound(
            "files that the files of a project name; their bytes together",
            "{mesh.sources.compose.files:MAX_REFERENCED_FILES}; {mesh.sources.compose.files:MAX_REFERENCED_TIMES} "
            "times `[source.compose] file_bytes`",
            _L,
            "VM152",
        ),
        Bound(
            "services that extend one another, and files that include one another; files that are included",
            "{mesh.sources.compose.references:_MAX_CHAIN}; {mesh.sources.compose.references:_MAX_INCLUDES}",
            _L,
            "VM152",
        ),
        Bound(
            "characters of a path in a message",
            "{mesh.sources.compose.references:_MAX_PATH}",
            "fixed: it names what is meant",
            "it is cut",
        ),
        Bound(
            "unknown keys that are reported of a project",
            "{mesh.sources.compose.parse:_MAX_UNKNOWN}",
            _L,
            "VM772 counts the others",
        ),
        Bound(
            "instances that `vipmesh demo` starts",
            "{mesh.cli.demo_stack:MAX_DEMO_INSTANCES}",
            "fixed: each is a server of this process",
            "the others are left out",
        ),
        Bound(
            "instances of a service that `vipmesh deploy` reads in a file; zones that it must have; ports of one range",
            "{mesh.platform.stacks.stack:_MOST_INSTANCES}; {mesh.platform.stacks.entries:_MOST_ZONES}; "
            "{mesh.platform.stacks.ports:_MOST_PORTS}",
            _L,
            "VM912 or VM914, and the service stays as it is",
        ),
        Bound(
            "sizes in bytes and times in nanoseconds that `vipmesh deploy` reads in a file",
            "{mesh.platform.stacks.values:_MOST}",
            "fixed: the engine keeps them in 64 bits",
            "VM912, and the service stays as it is",
        ),
        Bound(
            "characters of the name of an engine's service",
            "{mesh.platform.stacks.translate:_MOST_NAME}",
            "fixed: the engine takes no more",
            "the name is cut and gets a digest of the whole",
        ),
        Bound(
            "how long a program has that writes a compose file into a pipe for `vipmesh check`",
            "{mesh.sources.compose.files:PIPE_PATIENCE|s}",
            _L,
            "VM150",
        ),
        Bound(
            "looks at a file that changes on and on",
            "{mesh.sources.compose.source:_RESTS_AT_MOST}",
            _L,
            "it is read as it is",
        ),
        Bound(
            "any other file that a setting names",
            "{mesh.util.regular_file:MAX_FILE_BYTES|B}",
            _L,
            "the message of the setting",
        ),
    ),
    "The container engine": (
        Bound(
            "a connection that shows whether an engine is ending",
            "{mesh.sources.docker.client:_KNOCK_TIMEOUT|s}",
            _L,
            "it counts as not ending",
        ),
        Bound(
            "processes that are looked at while the engine is away; bytes of a file of one; its interfaces",
            "{mesh.sources.docker.processes:_MAX_PROCESSES}; {mesh.sources.docker.processes:_MAX_TEXT|B}; "
            "{mesh.sources.docker.process_facts:_MAX_INTERFACES}",
            _L,
            "it waits for the engine",
        ),
        Bound(
            "bytes that are read of the table of a container's connections, while it is stopped",
            "{mesh.sources.docker.served_connections:_MAX_TABLE_BYTES|B}",
            _L,
            "the connections beyond are not counted",
        ),
        Bound(
            "containers that ended while the engine is away and are remembered",
            "{mesh.sources.docker.absence:MAX_REMEMBERED}",
            _L,
            "the oldest ones wait for the engine",
        ),
        Bound(
            "time for an answer; for a request of past events",
            "{mesh.sources.docker.client:REQUEST_TIMEOUT|s}; {mesh.sources.docker.client:HISTORY_PATIENCE|s}",
            _L,
            "VM250, the last list stays in force",
        ),
        Bound(
            "one event; events that wait",
            "{mesh.sources.docker.gate:MAX_EVENT_BYTES|B}; {mesh.sources.docker.client:MAX_QUEUED_EVENTS}",
            _L,
            "VM268, and the list is read again; the engine waits",
        ),
        Bound(
            "an answer about the engine itself; a list of containers, or an inspection",
            "{mesh.sources.docker.client:MAX_RESPONSE_BYTES|B}; {mesh.util.bounded_response:MAX_RESPONSE_BYTES|B}",
            _L,
            "VM250, the last list stays in force",
        ),
        Bound(
            "the engine's own words in a message, characters",
            "{mesh.sources.docker.client:MAX_QUOTED_LENGTH}",
            _L,
            "the text is cut",
        ),
        Bound(
            "networks, address pools and containers of the engine's facts",
            "{mesh.sources.docker.engine_facts:_MOST}",
            _L,
            "the others are left out of the checks of the host",
        ),
        Bound(
            "inspections, and images read, at a time",
            "{mesh.sources.docker.source:MAX_INSPECTIONS}; {mesh.sources.docker.label_origins:MAX_CONCURRENT_READS}",
            "fixed: it spares the engine",
            "the others wait",
        ),
        Bound(
            "containers in a chain of which each uses the network of the next",
            "{mesh.sources.docker.instances:_CHAIN}",
            _L,
            "VM251",
        ),
        Bound(
            "digits of an exit code",
            "{mesh.sources.docker.events:_EXIT_CODE_DIGITS}",
            _L,
            "it counts as not known",
        ),
        Bound(
            "a test container: output; time to start",
            "{mesh.sources.docker.networks:MAX_OUTPUT_BYTES|B}; {mesh.sources.docker.networks:_START_PATIENCE|s}",
            _L,
            "the test says so",
        ),
    ),
    "The store": (
        Bound(
            "one record; its key, characters",
            "{mesh.cluster.records.decode:MAX_RECORD_BYTES|B}; {mesh.cluster.records.decode:MAX_KEY_LENGTH}",
            "fixed: all workers must read the same, and the largest service takes less",
            "VM407, the record is skipped",
            ("mesh.store.etcd.mirror:MAX_VALUE_BYTES",),
        ),
        Bound(
            "keys below the prefix",
            "{mesh.store.etcd.mirror:MAX_KEYS}",
            "fixed: far above 10,000 services",
            "VM402, the last view stays in force",
        ),
        Bound(
            "the answer of a probe in a record, characters",
            "{mesh.cluster.records.decode:MAX_REASON_LENGTH}",
            _SAME,
            "it is cut",
        ),
        Bound(
            "time for a connection, a request, and a request with all its retries",
            "{mesh.store.etcd.client:CONNECT_TIMEOUT|s}, {mesh.store.etcd.client:REQUEST_TIMEOUT|s}, "
            "{mesh.store.etcd.client:CALL_TIMEOUT|s}",
            "fixed: `[store] lease_ttl` is counted in it",
            "VM401, the last view stays in force",
        ),
        Bound(
            "etcd's own words in a message, characters",
            "{mesh.store.etcd.errors:MAX_QUOTED_LENGTH}",
            _L,
            "the text is cut",
        ),
        Bound(
            "changes in one transaction; bytes of one batch",
            "{mesh.store:MAX_CHANGES}; {mesh.store.etcd.registrations:_BATCH_BYTES|B}",
            "fixed: below the limits of etcd",
            "several transactions follow one another",
        ),
        Bound(
            "the saved view; time for the store before it is used",
            "{mesh.store.cached:MAX_SAVED_BYTES|B}; {mesh.store.cached:STORE_TIMEOUT|s}",
            _L,
            "VM408, the worker starts without it",
        ),
        Bound(
            "names that are remembered as older than the rule of allowed names",
            "{mesh.config.name_policy:MAX_OLDER_NAMES}",
            "fixed: below what a store takes in one value",
            "VM207 for the others",
        ),
    ),
    "Claims": (
        Bound(
            "names and published ports of one container",
            "{mesh.model.claims:ClaimQuotas.container_names}; {mesh.model.claims:ClaimQuotas.container_ports}",
            "`[claims] container_names`; `[claims] container_ports`",
            "VM230",
        ),
        Bound(
            "names and published ports of one owner",
            "{mesh.model.claims:ClaimQuotas.owner_names}; {mesh.model.claims:ClaimQuotas.owner_ports}",
            "`[claims] owner_names`; `[claims] owner_ports`",
            "VM230",
        ),
        Bound(
            "new names, published ports and moves of VIPs of all services of a worker: at once; a minute",
            "{mesh.model.claims:ClaimPace.at_once}; {mesh.model.claims:ClaimPace.per_minute}",
            "`[claims] new_at_once`; `[claims] new_per_minute`",
            "VM773, the others wait",
        ),
        Bound(
            "claims that are written at a time",
            "{mesh.cluster.claim_transactions:MAX_CONCURRENT}",
            "fixed: it spares the store",
            "the others wait",
        ),
        Bound(
            "a time in a record",
            "{mesh.cluster.claim_usage:_MAX_SECONDS|s}",
            _SAME,
            "the record counts as none",
        ),
    ),
    "Probes": (
        Bound(
            "checks that run at a time",
            "{mesh.health.prober:MAX_IN_FLIGHT}",
            "`[probes] concurrent`",
            "the others wait, which is no failure",
        ),
        Bound(
            "the body of an answer in which `probe.expect_body` is looked for",
            "{mesh.health.checks.http_response:MAX_BODY_BYTES|B}",
            "`[probes] body_bytes`",
            "the text counts as missing",
        ),
        Bound(
            "the head of an answer; the framing of its chunks",
            "{mesh.health.checks.http_response:MAX_HEAD_BYTES|B}; "
            "{mesh.health.checks.http_response:_MAX_FRAMING_BYTES|B}",
            "fixed: the same as curl",
            "the check fails: `no final status in 307200 bytes`",
        ),
        Bound(
            "digits of a length; redirects that are followed",
            "{mesh.health.checks.http_response:_MAX_LENGTH_DIGITS}; {mesh.health.checks.http_body:MAX_REDIRECTS}",
            _L,
            "the check fails and says so",
        ),
        Bound(
            "an answer of gRPC; digits of its status",
            "{mesh.health.checks.grpc:_LIMIT|B}; {mesh.health.checks.grpc:MAX_STATUS_DIGITS}",
            "fixed: a health answer has some tens of bytes",
            "the check fails: `no answer in 16384 bytes`",
        ),
        Bound(
            "commands that run at a time, and slow ones beside them; that start in a second",
            "{mesh.health.checks.command:MAX_CONCURRENT_COMMANDS}, {mesh.health.checks.command_places:SLOW_PLACES}; "
            "{mesh.health.checks.command:COMMANDS_PER_SECOND}",
            "`[probes] commands`; `[probes] commands_per_second`",
            "the others wait, which is no failure; each service has a share",
        ),
        Bound(
            "output of a command that is kept; that is read",
            "{mesh.sources.docker.exec:MAX_OUTPUT_BYTES|B}; {mesh.sources.docker.exec:MAX_READ_BYTES|B}",
            "fixed: one line of it is shown",
            "it is cut; the command is killed, and the check fails",
        ),
        Bound(
            "time that the engine has to start a command",
            "{mesh.sources.docker.exec:START_TIMEOUT|s}",
            "fixed: it is not the endpoint's time",
            "no verdict",
        ),
        Bound(
            "the answer in a reason, characters",
            "{mesh.health.prober:MAX_REASON}",
            _L,
            "it is cut",
        ),
    ),
    "The name server": (
        Bound(
            "TCP connections at one address",
            "{meshdns.tcp:MAX_CONNECTIONS}",
            "`[dns] tcp_connections`",
            "the client with the most connections loses the one that is idle for longest",
        ),
        Bound(
            "a TCP connection without a question; its questions to upstreams under way",
            "{meshdns.tcp:IDLE_TIMEOUT|s}; {meshdns.tcp:MAX_PIPELINED}",
            "fixed: RFC 7766, section 6.2.3",
            "it is closed; further ones wait in the socket",
        ),
        Bound(
            "questions about other names under way",
            "{meshdns.forwarder:MAX_OUTSTANDING}",
            "`[dns] outstanding`",
            "SERVFAIL, or a stale answer",
        ),
        Bound(
            "answers of upstreams that are cached: bytes; entries; bytes of one",
            "{meshdns.cache:MAX_CACHE_BYTES|B}; {meshdns.cache:MAX_ENTRIES}; {meshdns.cache:MAX_ANSWER_BYTES|B}",
            "`[dns] cache_bytes`",
            "the least recently used entry is dropped",
        ),
        Bound(
            "seconds that an answer of an upstream is kept; one that says that there is no such name",
            "{meshdns.message:MAX_TTL|s}; {meshdns.message:MAX_NEGATIVE_TTL|s}",
            "fixed: RFC 8767 and RFC 2308",
            "it is asked again",
        ),
        Bound(
            "failures that are remembered",
            "{meshdns.cache:MAX_FAILURES}",
            _HERE,
            "the oldest one is forgotten",
        ),
        Bound(
            "CNAME records in a row",
            "{meshdns.aliases:MAX_ALIASES}",
            _L,
            "SERVFAIL",
        ),
        Bound(
            "a question over UDP; a batch's answer; a datagram of an upstream",
            "{meshdns.udp_batch:MAX_QUERY_BYTES|B}; {meshdns.udp_batch:MAX_ANSWER_BYTES|B}; "
            "{meshdns.udp_burst:MAX_DATAGRAM_BYTES|B}",
            "fixed: the protocol",
            "FORMERR; the client is sent to TCP",
        ),
        Bound(
            "unwanted replies at one socket of an upstream",
            "{meshdns.upstream_sockets:MAX_UNWANTED}",
            "fixed: against forged answers",
            "the port is given up; VM606",
        ),
        Bound(
            "tries to find a free port; time of the search for loops",
            "{meshdns.upstream_ports:MAX_BIND_TRIES}; {meshdns.loop_detection:LOOP_TIMEOUT|s}",
            _L,
            "the upstream counts as failed; no loop",
        ),
        Bound(
            "clients that are counted one by one in a second; that are remembered as allowed",
            "{meshdns.rate_limit:MAX_CLIENTS}; {meshdns.udp:MAX_KNOWN_CLIENTS}",
            _HERE,
            "further ones are counted as one; all are checked again",
        ),
        Bound(
            "prepared answers",
            "{meshdns.packet_cache:MAX_QUESTIONS}, {meshdns.packet_cache:MAX_ODD_QUESTIONS}, "
            "{meshdns.forward_fastpath:MAX_QUESTIONS}, {meshdns.forward_fastpath:MAX_FOREIGN}, "
            "{meshdns.nxdomain:MAX_FRAMES}, {meshdns.nxdomain:MAX_PARENTS}, {meshdns.rdata:MAX_CACHED_ADDRESSES}, of "
            "at most {meshdns.packet_cache:MAX_ANSWER_BYTES|B}",
            _HERE,
            "the answer is computed each time",
            ("meshdns.forward_fastpath:MAX_ANSWER_BYTES",),
        ),
        Bound(
            "how long an upstream that fails is asked last",
            "{meshdns.upstreams:MAX_PENALTY_SECONDS|s}",
            _L,
            "it has its turn again",
        ),
    ),
    "The admin API": (
        Bound(
            "endpoints that are requested at once; the weight of an endpoint",
            "{mesh.api.http.actions:MAX_TOGETHER}; {mesh.model.validation:MAX_WEIGHT}",
            "fixed: IPVS has no larger weights",
            "the request is refused",
        ),
        Bound(
            "services with a history of their traffic; the name of one in a request, characters",
            "{mesh.api.traffic_history:MAX_SERVICES}; {mesh.api.http.history:MAX_OWNER_LENGTH}",
            "fixed: the history has at most 4 MiB",
            "the one without traffic for the longest time has none; the request is refused",
        ),
        Bound(
            "time of the data plane to count connections for a status",
            "{mesh.api.http.status:CONNECTIONS_TIMEOUT|s}",
            _L,
            "the status is without them",
        ),
        Bound(
            "connections whose clients have not authenticated; of one address",
            "{mesh.api.http.connections:MAX_UNAUTHENTICATED}; "
            "{mesh.api.http.connections:MAX_UNAUTHENTICATED_PER_CLIENT}",
            "`[admin] connections`",
            "VM660, the connection is closed",
        ),
        Bound(
            "time for the head of a request, for its body, and without a request",
            "{mesh.api.http.connections:HEAD_TIMEOUT|s}, {mesh.api.http.connections:BODY_TIMEOUT|s}, "
            "{mesh.api.http.connections:IDLE_TIMEOUT|s}",
            _L,
            "the connection is closed",
        ),
        Bound(
            "connections that wait to be accepted",
            "{mesh.api.http.connections:_BACKLOG}",
            _L,
            "the kernel refuses them",
        ),
        Bound(
            "the body of a request",
            "{mesh.api.http.server:MAX_BODY_BYTES|B}",
            _L,
            "status 413",
        ),
        Bound(
            "a name, an address or a filter in a question; `Host`: characters",
            "{mesh.api.http.handlers:MAX_QUESTION_LENGTH}, {mesh.api.http.past_events:MAX_NAME_LENGTH}; "
            "{mesh.api.http.host_names:_MAX_LENGTH}",
            _L,
            "status 400; status 421",
        ),
        Bound(
            "watchers of events; bytes that wait for one; time for it to read",
            "{mesh.api.http.broadcaster:MAX_WATCHERS}; {mesh.api.http.broadcaster:MAX_PENDING_BYTES|B}; "
            "{mesh.api.http.event_stream:WRITE_TIMEOUT|s}",
            "fixed: all of them may take 256 MiB",
            "status 503; VM655",
        ),
        Bound(
            "a token's file; time to write the audit file",
            "{mesh.api.http.auth:MAX_TOKEN_FILE_BYTES|B}; {mesh.api.http.audit:WRITE_TIMEOUT|s}",
            _L,
            "VM653; VM664",
        ),
        Bound(
            "endpoints that are gone in an explanation",
            "{mesh.api.explain.past:MAX_GONE}",
            _L,
            "`vipmesh events` has them",
        ),
    ),
    "The user-space proxy": (
        Bound(
            "TCP connections of all services; UDP sessions of all services",
            "{mesh.dataplane.userspace.tcp_proxy:MAX_CONNECTIONS}; "
            "{mesh.host.rlimits:DescriptorShares.proxied_sessions}",
            "`[dataplane] proxy_connections`; `[dataplane] proxy_sessions`",
            "a client with many is refused; the session that is idle for longest ends",
        ),
        Bound(
            "UDP sessions of one service",
            "{mesh.dataplane.userspace.udp_proxy:MAX_SESSIONS}",
            "fixed: half of all sessions by default",
            "the session that is idle for longest ends",
        ),
        Bound(
            "a TCP connection without data; a UDP session without a datagram",
            "{mesh.dataplane.userspace.tcp_proxy:IDLE_TIMEOUT|s}; {mesh.dataplane.userspace.udp_proxy:IDLE_TIMEOUT|s}",
            "`[dataplane] tcp_idle`; `[dataplane] udp_idle`",
            "it is reset; it ends",
        ),
        Bound(
            "time for an endpoint to accept",
            "{mesh.dataplane.userspace.tcp_proxy:CONNECT_TIMEOUT|s}",
            _L,
            "another endpoint is tried",
        ),
        Bound(
            "connections that wait to be accepted; datagrams that wait for a socket",
            "{mesh.dataplane.userspace.tcp_proxy:MAX_BACKLOG}; "
            "{mesh.dataplane.userspace.udp_proxy:MAX_PENDING_DATAGRAMS}",
            _L,
            "the kernel refuses them; they are lost, as UDP permits",
        ),
    ),
    "Problems, events and the log": (
        Bound(
            "a text of a problem, characters",
            "{mesh.model.problem:MAX_PROBLEM_TEXT}",
            _L,
            "it is cut",
        ),
        Bound(
            "problems of one part; internal errors that are kept",
            "{mesh.util.conditions:MAX_PROBLEMS}; {mesh.util.bulkhead:MAX_PROBLEMS}",
            "fixed: nobody reads more",
            "one problem counts the others",
        ),
        Bound(
            "suggestions for unknown labels of one container; a quoted value, characters",
            "{mesh.config.labels.reader:MAX_SUGGESTIONS}; {mesh.config.labels.values:_SHOWN_MAX}",
            _L,
            "the problem comes without one; the value is cut",
        ),
        Bound(
            "values of differing declarations in a problem, characters",
            "{mesh.cluster.records.declarations:MAX_VALUE_LENGTH}",
            _L,
            "the value is cut",
        ),
        Bound(
            "past events: the text, characters; names and ports of one service",
            "{mesh.model.past_event:MAX_EVENT_TEXT}; {mesh.model.past_event:MAX_EVENT_NAMES}",
            "fixed: older versions read them",
            "it is cut; the others are left out",
        ),
        Bound(
            "past events that wait for the disk; lines in the log for one look; lost workers",
            "{mesh.control.event_recorder:MAX_WAITING}; {mesh.control.event_recorder:MAX_LINES}; "
            "{mesh.control.past_events:MAX_LOST_WORKERS}",
            _L,
            "an event counts the lost ones; a line counts the others",
        ),
        Bound(
            "repairs that are logged at once",
            "{mesh.control.conditions:MAX_REPAIR_LINES}",
            _L,
            "a line counts the others",
        ),
        Bound(
            "lines of the log that wait to be written",
            "{mesh.util.logging.handler:MAX_QUEUED_LINES}",
            _L,
            "VM701",
        ),
        Bound(
            "frames and characters of a traceback",
            "{mesh.util.logging.formats:MAX_FRAMES}; {mesh.util.logging.formats:MAX_TRACE}",
            _L,
            "it is cut",
        ),
    ),
    "Other workers": (
        Bound(
            "an answer of a worker that is asked over the channel; its events; an error of it",
            "{mesh.api.channel.worker_channel:MAX_ANSWER_BYTES|B}; {mesh.api.http.workers:MAX_EVENT_BYTES|B}; "
            "{mesh.api.channel.https:MAX_REFUSAL_BYTES|B}",
            _L,
            "VM676",
        ),
        Bound(
            "workers that are asked at one time; an unused connection to one",
            "{mesh.api.channel.https:MAX_ASKED}; {mesh.api.channel.https:IDLE_TIMEOUT|s}",
            _L,
            "the others have their turn later; it is closed",
        ),
        Bound(
            "events of all workers in one answer",
            "{mesh.api.cluster_events:MAX_MERGED_EVENTS}",
            _L,
            "the newest ones are kept, and the others counted",
        ),
        Bound(
            "a query that is passed on, characters; an address that a worker says of itself",
            "{mesh.api.http.workers:MAX_QUERY_LENGTH}; {mesh.cluster.membership:MAX_PLACE_LENGTH}",
            _L,
            "it is refused; it counts as none",
        ),
        Bound(
            "time for the answer to a ping; connections that wait for one",
            "{mesh.cluster.ping:PING_TIMEOUT|s}; {mesh.cluster.ping:BACKLOG}",
            "fixed: all workers must judge alike",
            "the worker counts as out of reach after several",
        ),
        Bound(
            "pings in a second; of doubtful workers at a time",
            "{mesh.cluster.ping_schedule:PINGS_PER_SECOND}; {mesh.cluster.ping_schedule:MAX_DOUBTFUL_PINGS}",
            "fixed: several hundred workers fit",
            "the others have their turn later",
        ),
        Bound(
            "time to resolve the address of this worker towards the store",
            "{mesh.daemon.peer_endpoint:RESOLVE_TIMEOUT|s}",
            _L,
            "VM454",
        ),
    ),
    "The host and tests of connections": (
        Bound(
            "a listing of the firewall, characters; time of one program; of nft",
            "{mesh.host.firewall.programs:_MOST}; {mesh.host.firewall.programs:PATIENCE|s}; "
            "{mesh.util.nft:_PATIENCE|s}",
            _L,
            "the rest is left out; VM563; VM504",
        ),
        Bound(
            "chains of the firewall that lead to one another",
            "{mesh.host.firewall.rule_walk:_DEPTH}",
            "fixed: the kernel has the same",
            "the packet counts as not accepted",
        ),
        Bound(
            "an explanation of another worker, bytes; findings of it that are shown; characters of each",
            "{mesh.api.http.cluster_explanation:MAX_EXPLANATION_BYTES}; {mesh.api.explain.elsewhere:MAX_FINDINGS}; "
            "{mesh.api.explain.elsewhere:MAX_TEXT}",
            "fixed: ask that worker itself for all",
            "no answer of it; the rest is left out; the text is cut",
        ),
        Bound(
            "problems of its firewall that a worker tells the others; workers whose requests are tried",
            "{mesh.cluster.worker_directory:MAX_TOLD}; {mesh.host.firewall.peer_access:_MOST_SENDERS}",
            "fixed: the worker itself has them all; a rule for more senders has a network",
            "the rest is left out",
        ),
        Bound(
            "connections of clients that are looked at; addresses; time for netfilter",
            "{mesh.dataplane.flow_reader:MOST_ENTRIES}; {mesh.dataplane.flow_reader:MOST_ADDRESSES}; "
            "{mesh.dataplane.flow_reader:_PATIENCE|s}",
            "fixed: a sample is enough",
            "the others are left out; VM503",
        ),
        Bound(
            "time for netfilter to forget connections",
            "{mesh.dataplane.conntrack.socket:_PATIENCE|s}",
            _L,
            "VM503",
        ),
        Bound(
            "PEM files",
            "{mesh.host.certificates:MAX_PEM_BYTES|B}",
            _L,
            "VM656",
            ("mesh.cli.certs:MAX_PEM_BYTES",),
        ),
        Bound(
            "`resolv.conf` of a container; its name servers",
            "{mesh.host.namespaces:_MAX_RESOLV_CONF|B}; {mesh.host.namespaces:_MAX_NAMESERVERS}",
            "fixed: resolv.conf(5)",
            "the rest is left out",
        ),
        Bound(
            "test requests at a time; time for an answer; lines of a trace; clients that are traced",
            "{mesh.host.requests:MAX_AT_ONCE}; {mesh.daemon.connectivity:PATIENCE|s}; "
            "{mesh.host.packet_trace:MAX_LINES}; {mesh.daemon.loss_finder:MAX_TRACED_CLIENTS}",
            _L,
            "they have their turn later; `no answer`; the rest is left out",
        ),
        Bound(
            "time of a traced request; for nft to match ports; for nft to show packets",
            "{mesh.daemon.loss_finder:TRACE_PATIENCE|s}; {mesh.daemon.loss_finder:_WATCH_PATIENCE|s}; "
            "{mesh.host.packet_trace:_PATIENCE|s}",
            _L,
            "VM504, and the loss has no rule",
        ),
        Bound(
            "networks of a check whether requests arrive; requests from each",
            "{mesh.daemon.arrival_monitor:MAX_NETWORKS}; {mesh.daemon.arrival_monitor:MAX_REQUESTS}",
            "fixed: it spares the host",
            "the others have their turn in the next rounds",
        ),
        Bound(
            "a name in a question for an address",
            "{mesh.util.dns_query:_MAX_NAME}",
            "fixed: RFC 1035",
            "the address is left out",
        ),
    ),
    "The command line": (
        Bound(
            "a line of the progress of an action; names for completion; a part of the archive for support",
            "{mesh.cli.client:MAX_LINE_BYTES|B}; {mesh.cli.completion:_MOST}; "
            "{mesh.cli.support_parts:MAX_PART_BYTES|B}",
            _L,
            "the rest is left out",
        ),
        Bound(
            "time to collect a part of the archive; to remove a worker; to ask all workers for events",
            "{mesh.cli.support_parts:_PATIENCE|s}; {mesh.cli.worker_removal:_PATIENCE|s}; "
            "{mesh.cli.events:ALL_TIMEOUT|s}",
            _L,
            "it is missing, and the output says so",
        ),
        Bound(
            "time for an answer of the daemon; without a sign of life of a stream",
            "{mesh.cli.client:REQUEST_TIMEOUT|s}; {mesh.cli.client:STREAM_TIMEOUT|s}",
            _L,
            "VM651",
        ),
        Bound(
            "an answer over the unix socket without `http.client`: header fields; a line; digits of a length",
            "{mesh.cli.socket_request:_MAX_HEADERS}; {mesh.cli.socket_request:_MAX_LINE|B}; "
            "{mesh.cli.socket_request:_LENGTH_DIGITS}",
            _L,
            "`http.client` asks again",
        ),
        Bound(
            "an answer of the daemon; the reason of a refusal, characters; a token's file",
            "{mesh.cli.client:MAX_RESPONSE_BYTES|B}; {mesh.cli.client:MAX_REASON}; "
            "{mesh.cli.access:MAX_TOKEN_FILE_BYTES|B}",
            _L,
            "VM651; it is cut; VM663",
        ),
        Bound(
            "`--wait`; digits of an age; days of a certificate",
            "{mesh.cli.parser:_MAX_WAIT|s}; {mesh.cli.parser:_AGE_DIGITS}; {mesh.cli.parser:_MOST_DAYS}",
            _L,
            "exit status 2",
        ),
        Bound(
            "time for `claims`, `rollout`, `drain`, `test` of a worker; a question of `doctor`; all of it about logs",
            "{mesh.cli.claims:_PATIENCE|s}; {mesh.cli.rollout:_PATIENCE|s}; {mesh.cli.drain:PATIENCE|s}; "
            "{mesh.cli.test:_PEER_PATIENCE|s}; {mesh.cli.doctor.collect:_PATIENCE|s}; "
            "{mesh.cli.doctor.log_facts:PATIENCE|s}",
            _L,
            "VM651; the check of `doctor` says so",
        ),
    ),
    "Stacks": (
        Bound(
            "what another worker says of stacks: bytes; rows; workers of a row; reasons; characters; a number",
            "{mesh.api.http.stacks:MAX_STACKS_BYTES|B}; {mesh.platform.stacks.listing:MOST_ROWS}; "
            "{mesh.platform.stacks.listing:_MOST_WORKERS}; {mesh.platform.stacks.listing:_MOST_REASONS}; "
            "{mesh.platform.stacks.listing:_MOST_CHARACTERS}; {mesh.platform.stacks.listing:_MOST_INSTANCES}",
            _L,
            "the answer is refused; the rest is left out or cut",
        ),
        Bound(
            "the last deploys in the store: of a project; projects; services of a deploy; bytes; characters",
            "{mesh.platform.stacks.kept_deploys:MOST_DEPLOYS}; {mesh.platform.stacks.kept_deploys:MOST_PROJECTS}; "
            "{mesh.platform.stacks.kept_deploys:MOST_SERVICES}; {mesh.platform.stacks.kept_deploys:MOST_BYTES|B}; "
            "{mesh.platform.stacks.kept_deploys:_MOST_CHARACTERS}",
            _L,
            "the oldest go; a larger record is refused as a whole, and written again",
        ),
        Bound(
            "workers that `ps`, `scale` and `history` ask; time for an answer; instances of a service",
            "{mesh.cli.remote_stacks:_MOST_WORKERS}; {mesh.cli.remote_stacks:_TIMEOUT|s}; "
            "{mesh.platform.stacks.scaling:MOST_INSTANCES}",
            _L,
            "VM935; exit status 2",
        ),
        Bound(
            "time for an answer of the engine; where it asks a registry, or makes a swarm",
            "{mesh.platform.fleet.swarm:REQUEST_TIMEOUT|s}; {mesh.platform.fleet.swarm:REGISTRY_TIMEOUT|s}",
            _L,
            "VM901, nothing is changed",
        ),
        Bound(
            "one text, characters; entries of one list or object of an engine's service",
            "{mesh.platform.fleet.json_fields:MAX_TEXT}; {mesh.platform.fleet.json_fields:MAX_ENTRIES}",
            _L,
            "the field counts as set by others, and is named as such",
        ),
        Bound(
            "fields of one service that others set and that are named; characters of one; objects looked into",
            "{mesh.platform.fleet.json_fields:MAX_NOTES}; {mesh.platform.fleet.json_fields:_MAX_PATH}; "
            "{mesh.platform.fleet.json_fields:_MAX_DEPTH}",
            _L,
            "the others are not named; the name is cut",
        ),
        Bound(
            "the engine's reason for a refusal, characters",
            "{mesh.platform.fleet.refusals:_MAX_REASON}",
            _L,
            "the text is cut",
        ),
        Bound(
            "the status of the daemon, for verbs that wait for instances",
            "{mesh.cli.stack_access:_STATUS_TIMEOUT|s}",
            _L,
            "it is asked again; before the first step the command ends",
        ),
        Bound(
            "deploys that a service remembers; characters of each text of one; of the label that holds them",
            "{mesh.platform.stacks.records:MOST_RECORDS}; {mesh.platform.stacks.records:_MOST_CHARACTERS}; "
            "{mesh.platform.stacks.records:_MOST_LABEL}",
            _L,
            "the oldest one goes; the text is cut; the label counts as empty",
        ),
        Bound(
            "what says in the store who acts for the swarm, bytes",
            "{mesh.platform.stacks.acting:_MAX_VALUE}",
            _L,
            "nobody is named",
        ),
        Bound(
            "characters of the name of an engine service",
            "{mesh.platform.stacks.rollout:_NAME_LENGTH}",
            "fixed: the engine takes no longer ones",
            "the name is cut",
        ),
    ),
    "Autoscaling": (
        Bound(
            "per cent, instances, connections and seconds that labels may say",
            "{mesh.config.labels.auto_scaling:_MAX_PERCENT}; {mesh.config.labels.auto_scaling:_MAX_INSTANCES}; "
            "{mesh.config.labels.auto_scaling:_MAX_CONNECTIONS}; {mesh.config.labels.auto_scaling:_MAX_COOLDOWN}",
            _L,
            "VM987",
        ),
        Bound(
            "entries of a schedule; characters of its cron expression and of its time zone",
            "{mesh.config.labels.auto_scaling:MAX_ENTRIES}; "
            "{mesh.util.cron:MAX_EXPRESSION}; {mesh.util.cron:_MAX_ZONE}",
            _L,
            "VM989",
        ),
        Bound(
            "a file of a cgroup; of a process in /proc",
            "{mesh.platform.autoscaling.cgroup_reader:_MAX_FILE|B}; "
            "{mesh.platform.autoscaling.cgroup_reader:_MAX_PROC|B}",
            "fixed: the kernel writes shorter ones",
            "the container has no sample",
        ),
        Bound(
            "lines and digits of such a file; the largest number",
            "{mesh.platform.autoscaling.cgroup_files:_MAX_LINES}; {mesh.platform.autoscaling.cgroup_files:_DIGITS}; "
            "{mesh.platform.autoscaling.cgroup_files:MAX_NUMBER}",
            "fixed: the kernel writes no more",
            "the rest is not read; the number counts as the largest one",
        ),
        Bound(
            "the usage that one worker tells; services in it; instances of each",
            "{mesh.platform.autoscaling.usage_records:MAX_USAGE_RECORD|B}; "
            "{mesh.platform.autoscaling.usage_records:MAX_MEASURED_SERVICES}; "
            "{mesh.platform.autoscaling.usage_records:MAX_MEASURED_INSTANCES}",
            _SAME,
            "the record is not read, and nothing is removed from its services",
        ),
        Bound(
            "services that are scaled",
            "{mesh.platform.autoscaling.scaled_services:MAX_SCALED_SERVICES}",
            _SAME,
            "the others keep their number of instances",
        ),
        Bound(
            "characters of an owner, of the ID of a container and of the name of a worker in it",
            "{mesh.platform.autoscaling.usage_records:_MAX_OWNER}; {mesh.platform.autoscaling.usage_records:_MAX_ID}; "
            "{mesh.platform.autoscaling.usage_records:_MAX_WORKER}",
            _SAME,
            "the record is not read",
        ),
        Bound(
            "the evidence of releases that one worker tells; services in it; releases of each; endpoints of each",
            "{mesh.platform.rollouts.evidence_records:MAX_EVIDENCE_RECORD|B}; "
            "{mesh.platform.rollouts.evidence_records:MAX_JUDGED_SERVICES}; "
            "{mesh.platform.rollouts.evidence_records:MAX_JUDGED_RELEASES}; "
            "{mesh.platform.rollouts.evidence_records:MAX_JUDGED_ENDPOINTS}",
            _SAME,
            "the record is not read, and no release is good by it",
        ),
        Bound(
            "characters of an owner, a release, an endpoint, a worker and the reason of a check in it",
            "{mesh.platform.rollouts.evidence_records:_MAX_OWNER}; "
            "{mesh.platform.rollouts.evidence_records:_MAX_RELEASE}; "
            "{mesh.platform.rollouts.evidence_records:_MAX_ID}; "
            "{mesh.platform.rollouts.evidence_records:_MAX_WORKER}; "
            "{mesh.platform.rollouts.evidence_records:MAX_CHECK_REASON}",
            _SAME,
            "the record is not read",
        ),
        Bound(
            "`release.min_connections`; characters of `release.check.url`",
            "{mesh.config.labels.release_checks:MOST_CONNECTIONS}; {mesh.config.labels.release_checks:_URL_MAX}",
            _L,
            "VM117, VM918",
        ),
        Bound(
            "steps of a rollout; characters of `release.steps`; time of a step and `release.deadline_seconds`",
            "{mesh.model.release_rules:MAX_STEPS}; {mesh.config.labels.release_rules:_LONGEST}; "
            "{mesh.model.release_rules:MAX_STEP_SECONDS|s}",
            _L,
            "VM940, or VM407 for a record",
        ),
        Bound(
            "characters of a text in the record of a rollout; seconds that count between two looks at it",
            "{mesh.model.release_rollout:MAX_ROLLOUT_TEXT}; {mesh.platform.rollouts.rollout_steps:MAX_PASSED}",
            "fixed: a suspended daemon or a clock that jumps must shorten no step",
            "it is cut; the rest does not count",
        ),
        Bound(
            "seconds of a check of a release; of the look-up of its host; releases that one round checks",
            "{mesh.platform.rollouts.release_checker:CHECK_TIMEOUT}; "
            "{mesh.platform.rollouts.release_checker:_RESOLVE_TIMEOUT}; "
            "{mesh.platform.rollouts.release_checker:_MOST_RELEASES}",
            "fixed: a rollout waits for the result",
            "the check failed; it has no result; the others are checked in no round",
        ),
        Bound(
            "instances and places of connections that a worker remembers after they are gone; workers that are heard",
            "{mesh.platform.rollouts.release_evidence:MAX_REMEMBERED}; "
            "{mesh.platform.rollouts.evidence_history:MAX_SEEN_WORKERS}",
            "fixed: a rollout has fewer",
            "the oldest are forgotten; later ones are not heard",
        ),
    ),
    "Logs": (
        Bound(
            "days and lines per second that labels may say",
            "{mesh.config.labels.logs:MAX_TTL_DAYS}; {mesh.config.labels.logs:MAX_LINES_PER_SECOND}",
            _L,
            "VM950",
        ),
        Bound(
            "characters of one document; of the name of a release in it",
            "{mesh.platform.logs.json_file:MAX_TEXT}; {mesh.platform.logs.targets:_MAX_RELEASE}",
            "fixed: stores refuse longer ones",
            "a longer line becomes several documents; the name is cut",
        ),
        Bound(
            "documents of one request to the store, bytes",
            "{mesh.platform.logs.shipper:MAX_BATCH|B}",
            "fixed: stores answer larger requests no faster",
            "the rest has its turn in the next one",
        ),
        Bound(
            "paths of one label; bytes of one; bytes of a name in it",
            "{mesh.config.labels.log_files:MAX_PATHS}; {mesh.config.labels.log_files:MAX_PATH}; "
            "{mesh.config.labels.log_files:MAX_NAME}",
            _L,
            "VM950",
        ),
        Bound(
            "characters of `log.multiline`; steps of it, as RE2 compiles it",
            "{mesh.config.labels.log_files:MAX_PATTERN}; {mesh.config.labels.log_files:MAX_INSTRUCTIONS}",
            _L,
            "VM950",
        ),
        Bound(
            "bytes of a line of a file or of an event; lines of an event",
            "{mesh.platform.logs.file_lines:MAX_EVENT}; {mesh.platform.logs.file_lines:MAX_EVENT_LINES}",
            "fixed: stores refuse longer ones",
            "it becomes several documents: VM963",
        ),
        Bound(
            "files of a container that are open; names of one directory; directories of a container",
            "{mesh.platform.logs.file_set:MAX_FILES}; {mesh.platform.logs.file_scan:MAX_ENTRIES}; "
            "{mesh.platform.logs.file_scan:MAX_DIRECTORIES}",
            _L,
            "VM962",
        ),
        Bound(
            "positions of files that are kept",
            "{mesh.platform.logs.file_positions:MAX_POSITIONS}",
            _L,
            "the oldest one that no container has goes",
        ),
        Bound(
            "zeros before a line; bytes of a compressed file before its position",
            "{mesh.platform.logs.file_tail:MAX_ZEROS|B}; {mesh.platform.logs.file_set:MAX_UNPACKED|B}",
            _L,
            "nothing is read behind them; VM952",
        ),
        Bound(
            "until an event without a next one is complete; until a copy of a cut file appears; such copies at once",
            "{mesh.platform.logs.followed_files:EVENT_PATIENCE|s}; {mesh.platform.logs.file_set:COPY_PATIENCE|s}; "
            "{mesh.platform.logs.file_set:MAX_SOUGHT}",
            _L,
            "it is delivered, and what follows is another one; VM952",
        ),
        Bound(
            "files of one rotation; removed files that are held open for one log",
            "{mesh.platform.logs.generations:MAX_GENERATIONS}; {mesh.platform.logs.tail:MAX_REMOVED}",
            _L,
            "VM952",
        ),
        Bound(
            "the file of positions; the file of refused documents",
            "{mesh.platform.logs.positions:MAX_BYTES|B}; {mesh.platform.logs.refused_documents:MAX_BYTES|B}",
            _L,
            "VM955; it becomes the generation before it, and the oldest one goes",
            also=(),
        ),
        Bound(
            "a connection to the store; its whole answer",
            "{mesh.platform.logs.sinks.http_client:CONNECT_TIMEOUT|s}; "
            "{mesh.platform.logs.sinks.http_client:ANSWER_TIMEOUT|s}",
            _L,
            "VM953, and the next store has its turn",
        ),
        Bound(
            "lines of an answer; characters of all of them; of one",
            "{mesh.platform.logs.reading.query:MAX_LINES}; {mesh.platform.logs.reading.document:MAX_TEXT_CHARACTERS}; "
            "{mesh.api.service_logs:MAX_LINE}",
            "fixed: the newest ones; a store of logs has the others",
            "VM975; a longer line becomes several",
            also=(
                "mesh.cli.logs:MAX_LINES",
                "mesh.cli.parser:_MAX_LINES",
                "mesh.sources.docker.container_lines:MAX_LINE",
            ),
        ),
        Bound(
            "instances of a service on one worker whose lines are read; services that a name means which are told",
            "{mesh.platform.logs.reading.cursors:MAX_INSTANCES}; {mesh.api.service_logs:MAX_SERVICES}",
            "fixed: the next question has the place of each",
            "VM975",
        ),
        Bound(
            "characters of a service that is asked for; of a pattern; of a cursor",
            "{mesh.platform.logs.reading.query:MAX_SERVICE}; {mesh.platform.logs.reading.query:MAX_PATTERN}; "
            "{mesh.platform.logs.reading.cursors:_MAX_LENGTH}",
            _L,
            "status 400",
            also=("mesh.api.service_logs:MAX_NAME",),
        ),
        Bound(
            "bytes of files read for an answer with lines; for one that follows it; of one log at least",
            "{mesh.platform.logs.reading.reader:READ_BYTES|B}; {mesh.platform.logs.reading.reader:FOLLOW_BYTES|B}; "
            "{mesh.platform.logs.reading.file_lines:LEAST_BYTES|B}",
            "fixed: shipping goes on meanwhile",
            "VM975",
        ),
        Bound(
            "what the engine sends for an answer with lines; what `vipmesh ship` or another worker does",
            "{mesh.platform.logs.reading.engine_reader:MAX_BYTES|B}; "
            "{mesh.platform.logs.reading.worker_reader:MAX_ANSWER_BYTES|B}",
            "fixed: as much as the lines of an answer can have",
            "VM975; no answer of it",
        ),
        Bound(
            "questions for lines at one time; streams of lines; time to read what was written",
            "{mesh.api.http.service_logs:MAX_QUESTIONS}; {mesh.api.http.service_logs:MAX_FOLLOWERS}; "
            "{mesh.api.http.log_stream:WRITE_TIMEOUT|s}",
            _L,
            "status 503; VM655",
        ),
        Bound(
            "connections to the socket of `vipmesh ship`; the body of a request there",
            "{mesh.platform.logs.ship_server:MAX_CONNECTIONS}; {mesh.platform.logs.ship_server:MAX_BODY_BYTES|B}",
            _L,
            "the connection is closed; status 413",
        ),
        Bound(
            "the state of `vipmesh ship`, bytes; services with losses in it; characters of a text; services named",
            "{mesh.platform.logs.ship_state:MAX_STATE_BYTES}; {mesh.platform.logs.ship_state:_MAX_LOSSES}; "
            "{mesh.platform.logs.ship_state:_MAX_TEXT}; {mesh.platform.logs.ship_health:MAX_NAMED}",
            _L,
            "VM976; the rest is left out",
        ),
        Bound(
            "notes of another worker on its lines; characters of each",
            "{mesh.api.service_logs:MAX_NOTES}; {mesh.api.service_logs:_MAX_NOTE}",
            _L,
            "the rest is left out",
        ),
        Bound(
            "characters of the store's reason; the file of a password",
            "{mesh.platform.logs.sinks.bulk:_MAX_REASON}; {mesh.platform.logs.sinks.credentials:_MAX_SECRET|B}",
            _L,
            "the text is cut; VM958",
            also=("mesh.platform.logs.sinks.http_client:_MAX_REASON",),
        ),
        Bound(
            "the pause that a store asks for; how often a delivery is divided to find refused lines",
            "{mesh.platform.logs.sinks.http_client:LONGEST_PAUSE|s}; {mesh.platform.logs.sinks.halves:MAX_DIVISIONS}",
            _L,
            "it is asked again earlier; a whole part is refused",
        ),
        Bound(
            "days of the past for which an index is made",
            "{mesh.platform.logs.sinks.log_lifecycle:_OLDEST}",
            "fixed: no time to live is longer",
            "the line is in the oldest one",
        ),
    ),
}

OWN = frozenset(
    {
        # How often, how much at a time, or how long this program itself acts.
        "mesh.cli.drain:_MAX_NAMES",
        "mesh.cli.parser:_INSTANCE_DIGITS",
        "mesh.cli.remote_stacks:_PATIENCE",
        "mesh.cli.history:_DIGITS",
        "mesh.cli.ps:_PATIENCE",
        "mesh.platform.logs.documents:_ID_DIGITS",
        "mesh.platform.stacks.running:_MOST_REASONS",
        "mesh.cli.event_lines:_MAX_COLUMN",
        "mesh.api.http.log_stream:WRITE_BYTES",
        "mesh.cli.log_lines:_MAX_COLUMN",
        "mesh.cli.logs:ANSWER_TIMEOUT",
        "mesh.platform.logs.reading.cursors:ID_LENGTH",
        "mesh.cli.events:MAX_WINDOW",
        "mesh.cli.parser:_MAX_WEIGHT",
        "mesh.api.http.broadcaster:MAX_INTERVAL",
        "mesh.api.http.broadcaster:WRITE_BATCH_BYTES",
        "mesh.cli.doctor.rules:MAX_CLOCK_DIFFERENCE",
        "mesh.cli.doctor.rules:MAX_COMPOSE_ERRORS",
        "mesh.control.arrival_watcher:_LONGEST_REST",
        "mesh.store.etcd.client:_LONGEST_PAUSE",
        "mesh.cluster.failure_detector:MAX_MUTE_ROUNDS",
        "mesh.cluster.ping:MAX_TIMER_DELAY",
        "mesh.control.graceful_stop:SETTLE_TIMEOUT",
        "mesh.dataplane.drain:DEFAULT_DRAIN_TIMEOUT",
        "mesh.dataplane.nftables.balancer:MAX_SLOTS",
        "mesh.health.history:HISTORY_LENGTH",
        "mesh.health.prober:MAX_LATENESS",
        "mesh.health.prober:MAX_PASSIVE_FACTOR",
        "mesh.health.state_machine:MAX_THRESHOLD_FACTOR",
        "mesh.host.hairpin:_LONGEST_ALIAS",
        "mesh.store.etcd.registrations:_LONGEST_REST",
        "mesh.platform.stacks.acting_daemon:_LONGEST_PERIOD",
        "mesh.util.offload:INLINE_LIMIT",
        "meshdns.response_block:LENGTH_SIZE",
        "meshdns.tcp:WRITE_CHUNK_BYTES",
        "meshdns.upstream_query:_NOISE_BYTES",
        "meshdns.upstream_sockets:_NOISE_BYTES",
        # Caches of what was accepted already.
        "mesh.cluster.records.encode:MAX_CACHED_RECORDS",
        "mesh.cluster.records.redaction:MAX_CACHED_RECORDS",
        "mesh.cluster.registration:MAX_CACHED_INSTANCES",
        "mesh.dataplane.ipvs.fast_parse:MAX_CACHED_MESSAGES",
        "mesh.health.checks.batch:_MAX_CACHED_HEAD",
        "mesh.health.checks.batch:_MAX_CACHED_LINE",
        "mesh.health.checks.batch:_READ_BYTES",
        "mesh.health.checks.command_places:MAX_REMEMBERED",
        # A lower bound; a number of the protocol.
        "mesh.health.checks.grpc:_WIRE_LENGTH",
        "mesh.api.http.auth:MIN_TOKEN_LENGTH",
    }
)
"""Constants that are called like bounds and bound nothing that comes from outside."""

_HEAD = """# Limits

Whatever comes from outside is bounded: bytes, counts, depth, seconds. Beyond a bound the input is refused or cut, what
is in force stays in force, and a message says so. The settings are for those who need more, or have less memory. The
bounds without a setting protect the cluster, or nothing that works comes near them. Connections and checks are fewer if
the limit of open files (`LimitNOFILE`) does not hold them all. `python -m tests.docs.limits` writes the tables from the
code.
"""
_TABLE = "\n| what | bound | setting | beyond it |\n|---|---|---|---|\n"


def page() -> str:
    """`docs/limits.md` as it must be."""
    parts = [_HEAD]
    for title, rows in SECTIONS.items():
        parts += [f"\n## {title}\n", _TABLE]
        parts += [f"| {row.what} | {shown_bound(row)} | {row.differs} | {row.beyond} |\n" for row in rows]
    return "".join(parts)


def shown_bound(row: Bound) -> str:
    """The bound with the values of the constants."""
    return _PLACE.sub(lambda place: _shown(value_of(f"{place[1]}:{place[2]}"), place[3]), row.bound)


def value_of(constant: str) -> float:
    """The value of `module:CONSTANT`, or of `module:Class.field`: the default of a field."""
    module, _, name = constant.partition(":")
    owner, _, attribute = name.rpartition(".")
    if not owner:
        return float(getattr(importlib.import_module(module), name))
    values = getattr(importlib.import_module(module), owner)
    if not is_dataclass(values):
        raise TypeError(f"{constant}: not a dataclass")
    defaults: dict[str, Any] = {each.name: each.default for each in fields(values)}
    return float(defaults[attribute])


def default_of(setting: str) -> float:
    """The default of a setting that is a number."""
    parsed = SETTINGS[setting].parse(SETTINGS[setting].default)
    if not isinstance(parsed, int):
        raise TypeError(f"[{setting}] is no number")
    return float(parsed)


def bounds_in_the_code() -> Iterator[str]:
    """Every constant of `mesh` and `meshdns` that is called like a bound, as `module:CONSTANT`."""
    for package in (ROOT / "mesh", ROOT / "dns" / "meshdns"):
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            for name in _constants(ast.parse(path.read_text())):
                if _NAME.search(name) and _is_number(getattr(importlib.import_module(module), name)):
                    yield f"{module}:{name}"


def _constants(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (each.id for each in names if isinstance(each, ast.Name) and each.id.upper() == each.id)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: float, unit: str) -> str:
    if unit == "B":
        for size, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= size and value % size == 0:
                return f"{value / size:g} {name}"
        return f"{value:,.0f} bytes"
    return f"{value:,.10g}" + (" s" if unit == "s" else "")


if __name__ == "__main__":
    PAGE.write_text(page())
