"""The keys of the compose specification, and what becomes of each: one table. Pure.

`docs/compose.md` is made of it (`python -m tests.docs.compose_keys`), and a test holds it complete against the
specification's schema. A key without a row of its own has the row of the key above it.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class KeyUse(StrEnum):
    """Who acts on a key."""

    READ = "read"
    """The mesh itself, wherever the containers come from."""
    ENGINE = "engine"
    """The container engine: an engine's service has a field for it."""
    REFUSED = "refused"
    """A service with several instances on several workers cannot have it."""
    IGNORED = "ignored"
    """It changes nothing, and the service works without it."""


@dataclass(frozen=True, slots=True)
class ComposeKey:
    """One row of the table."""

    path: str
    """Keys joined by dots. Below `services`, `networks` and so on `*` stands for the name."""
    use: KeyUse
    becomes: str
    """What becomes of it; for a key that is refused or ignored, why."""
    remedy: str = ""
    """For a key that is refused or ignored, what to write instead."""


_R, _E, _X, _I = KeyUse.READ, KeyUse.ENGINE, KeyUse.REFUSED, KeyUse.IGNORED
_ONE_HOST = "it belongs to one container on one host"
_NO_FIELD = "the engine's services have no field for it"
_PLAIN = "start this service with docker compose"
_LIMITS = "deploy.resources.limits"


def _service(*rows: tuple[str, KeyUse, str] | tuple[str, KeyUse, str, str]) -> tuple[ComposeKey, ...]:
    return tuple(ComposeKey(f"services.*.{row[0]}", *row[1:]) for row in rows)


COMPOSE_KEYS: tuple[ComposeKey, ...] = (
    ComposeKey("version", _I, "the specification ignores it too", "remove it"),
    ComposeKey("name", _R, "the project: the first half of each service's owner, `project/service`"),
    ComposeKey("include", _R, "files whose services are added; those of this file win"),
    ComposeKey("services", _R, "one service of the mesh for each that has a routing or publish label"),
    ComposeKey("models", _X, "the engine's services run no models", "run the model as a service"),
    ComposeKey("networks", _I, "instances are reached over the engine's default bridge and the VIPs", "remove it"),
    ComposeKey("volumes", _E, "named volumes, local to each worker"),
    ComposeKey("secrets", _E, "secrets that are in the engine: `external: true`"),
    ComposeKey("configs", _E, "configs that are in the engine: `external: true`"),
    *_service(
        ("annotations", _X, _NO_FIELD, "write labels"),
        ("attach", _I, "it says whose output docker compose shows", "remove it"),
        ("blkio_config", _X, _NO_FIELD, _PLAIN),
        ("build", _X, "workers pull images; beside image it is ignored", "build and push the image, and write image"),
        ("cap_add", _E, "capabilities to add"),
        ("cap_drop", _E, "capabilities to drop"),
        ("cgroup", _X, _NO_FIELD, _PLAIN),
        ("cgroup_parent", _X, _NO_FIELD, _PLAIN),
        ("command", _E, "arguments of the container's process"),
        ("configs", _E, "configs mounted in the container"),
        ("container_name", _X, "several instances cannot have one name", "write a routing name"),
        ("cpu_count", _X, _NO_FIELD, f"write {_LIMITS}.cpus"),
        ("cpu_percent", _X, _NO_FIELD, f"write {_LIMITS}.cpus"),
        ("cpu_period", _X, _NO_FIELD, f"write {_LIMITS}.cpus"),
        ("cpu_quota", _X, _NO_FIELD, f"write {_LIMITS}.cpus"),
        ("cpu_rt_period", _X, _NO_FIELD, _PLAIN),
        ("cpu_rt_runtime", _X, _NO_FIELD, _PLAIN),
        ("cpu_shares", _I, _NO_FIELD, "write deploy.resources.reservations.cpus"),
        ("cpus", _E, "limit of CPU"),
        ("cpuset", _X, _NO_FIELD, "write a placement constraint"),
        ("credential_spec", _X, "it is for Windows", _PLAIN),
        ("depends_on", _E, "the order of creation: each waits until those serve, or as its condition says"),
        ("deploy", _E, "see its keys"),
        ("deploy.endpoint_mode", _I, "it is always dnsrr: the VIP is the mesh's", "remove it"),
        ("deploy.labels", _I, "they are labels of the engine's service, which no container has", "write labels"),
        ("deploy.mode", _E, "replicated or global"),
        ("deploy.placement", _E, "see its keys"),
        ("deploy.placement.constraints", _E, "constraints of placement"),
        ("deploy.placement.max_replicas_per_node", _E, "the most instances on one worker"),
        ("deploy.placement.preferences", _E, "over which node label instances are spread"),
        ("deploy.replicas", _R, "the number of instances; the label `scale` goes before it"),
        ("deploy.resources", _E, "see its keys"),
        (_LIMITS, _E, "limits of CPU, memory and processes"),
        (f"{_LIMITS}.cpus", _E, "limit of CPU"),
        (f"{_LIMITS}.memory", _E, "limit of memory"),
        (f"{_LIMITS}.pids", _E, "limit of processes"),
        ("deploy.resources.reservations", _E, "CPU and memory that a worker must have free"),
        ("deploy.resources.reservations.cpus", _E, "reserved CPU"),
        ("deploy.resources.reservations.devices", _X, _NO_FIELD, "write a placement constraint"),
        ("deploy.resources.reservations.generic_resources", _X, "it is not handed on", "write a placement constraint"),
        ("deploy.resources.reservations.memory", _E, "reserved memory"),
        ("deploy.restart_policy", _E, "when a container that has ended is replaced"),
        ("deploy.restart_policy.condition", _E, "after which ends it is replaced"),
        ("deploy.restart_policy.delay", _E, "the pause before it"),
        ("deploy.restart_policy.max_attempts", _E, "how often within the window"),
        ("deploy.restart_policy.window", _E, "the window of max_attempts"),
        ("deploy.rollback_config", _I, "the engine's rollback is not used", "remove it, and deploy the earlier files"),
        (
            "deploy.update_config",
            _I,
            "the engine's updater does not know the probes",
            "write the label rolling_updates",
        ),
        ("develop", _I, "it is for docker compose watch", "remove it"),
        ("device_cgroup_rules", _X, _NO_FIELD, _PLAIN),
        ("devices", _X, _NO_FIELD, "bind-mount the device, or start this service with docker compose"),
        ("dns", _R, "name servers of the container; the mesh's own must be among them"),
        ("dns_opt", _E, "options of the resolver"),
        ("dns_search", _E, "search domains"),
        ("domainname", _X, _NO_FIELD, "write a routing name"),
        ("entrypoint", _E, "the container's process"),
        ("env_file", _R, "environment entries from files, below those of environment"),
        ("environment", _R, "environment entries"),
        ("expose", _R, "the container port that a proposed routing label names; it opens nothing"),
        ("extends", _R, "the service that this one is merged into"),
        ("external_links", _R, "routing names: the mesh's name server answers them"),
        ("extra_hosts", _E, "lines of /etc/hosts"),
        ("gpus", _X, _NO_FIELD, "write a placement constraint"),
        ("group_add", _E, "further groups of the process"),
        ("healthcheck", _E, "the engine's health check, which counts as a probe"),
        ("healthcheck.disable", _E, "no health check of the image"),
        ("healthcheck.interval", _E, "between two checks"),
        ("healthcheck.retries", _E, "failures that make it unhealthy"),
        ("healthcheck.start_interval", _I, "the engine's services lack it", "write probe.startup_interval_seconds"),
        ("healthcheck.start_period", _E, "how long failures do not count"),
        ("healthcheck.test", _E, "the command"),
        ("healthcheck.timeout", _E, "how long one check may take"),
        ("hostname", _E, "the host name"),
        ("image", _E, "the image, pinned by its digest"),
        ("init", _E, "an init process"),
        ("ipc", _X, _ONE_HOST, _PLAIN),
        ("isolation", _E, "the isolation technology"),
        ("label_file", _R, "labels from files, below those of labels"),
        ("labels", _R, "labels of each container: services, names, probes"),
        ("links", _R, "names that a routing label must serve"),
        ("logging", _E, "the log driver and its options"),
        ("mac_address", _X, "several instances cannot have one address", "remove it"),
        ("mem_limit", _E, "limit of memory"),
        ("mem_reservation", _E, "reserved memory"),
        ("mem_swappiness", _X, _NO_FIELD, f"write {_LIMITS}.memory"),
        ("memswap_limit", _X, _NO_FIELD, f"write {_LIMITS}.memory"),
        ("models", _X, "the engine's services run no models", "run the model as a service"),
        ("network_mode", _X, "only host and bridge have a counterpart", "remove it, or write host or bridge"),
        ("networks", _I, "instances are reached over the engine's default bridge and the VIPs", "remove it"),
        ("oom_kill_disable", _X, _NO_FIELD, f"write {_LIMITS}.memory"),
        ("oom_score_adj", _X, _NO_FIELD, f"write {_LIMITS}.memory"),
        ("pid", _X, _ONE_HOST, _PLAIN),
        ("pids_limit", _E, "limit of processes"),
        ("platform", _E, "a constraint of placement"),
        ("ports", _R, "published ports: the label routing.publish.port_<container port> says the same"),
        ("post_start", _X, _NO_FIELD, "do it in the entrypoint"),
        ("pre_stop", _X, _NO_FIELD, "do it in the entrypoint, on the stop signal"),
        ("privileged", _X, _NO_FIELD, "write cap_add, or start this service with docker compose"),
        ("profiles", _R, "the service takes part only if one of them is in COMPOSE_PROFILES"),
        ("provider", _X, "it is run by a program of docker compose", _PLAIN),
        ("pull_policy", _E, "always: the digest is looked up at each deploy"),
        ("pull_refresh_after", _I, "a digest is looked up at each deploy", "remove it"),
        ("read_only", _E, "a read-only root file system"),
        ("restart", _E, "when a container that has ended is replaced; without it always"),
        ("runtime", _X, _NO_FIELD, "set the default runtime of the engine"),
        ("scale", _R, "the number of instances; the label `scale` goes before it"),
        ("secrets", _E, "secrets mounted in the container"),
        ("security_opt", _X, _NO_FIELD, _PLAIN),
        ("shm_size", _X, _NO_FIELD, "write a tmpfs at /dev/shm"),
        ("stdin_open", _E, "standard input stays open"),
        ("stop_grace_period", _E, "the time between the stop signal and KILL"),
        ("stop_signal", _E, "the stop signal"),
        ("storage_opt", _X, _NO_FIELD, _PLAIN),
        ("sysctls", _E, "kernel settings of the container"),
        ("tmpfs", _E, "a tmpfs mount"),
        ("tty", _E, "a terminal"),
        ("ulimits", _E, "resource limits of processes"),
        ("use_api_socket", _X, "it hands the engine to the container", "bind-mount the socket if you mean it"),
        ("user", _E, "the user of the process"),
        ("userns_mode", _X, _NO_FIELD, "set the user namespaces of the engine"),
        ("uts", _X, _ONE_HOST, _PLAIN),
        ("volumes", _E, "mounts; a volume is local to its worker"),
        ("volumes_from", _X, _ONE_HOST, "write volumes"),
        ("working_dir", _E, "the working directory"),
        ("x-endpoints", _R, "addresses of instances that no engine reports"),
        # Keys of the first form of compose files, which has its services at the top level.
        ("dockerfile", _X, "workers pull images", "build and push the image, and write image"),
        ("log_driver", _X, "it is a key of the first compose files", "write logging.driver"),
        ("log_opt", _X, "it is a key of the first compose files", "write logging.options"),
        ("net", _X, "it is a key of the first compose files", "write network_mode"),
        ("volume_driver", _X, "it is a key of the first compose files", "write the volume under volumes"),
    ),
)
_BY_PATH: Mapping[str, ComposeKey] = MappingProxyType({key.path: key for key in COMPOSE_KEYS})
_PREFIX = "services.*."
TOP_LEVEL_KEYS = frozenset(path for path in _BY_PATH if "." not in path)
"""The keys of a whole file."""
SERVICE_KEYS = frozenset(
    rest for path in _BY_PATH if path.startswith(_PREFIX) and "." not in (rest := path.removeprefix(_PREFIX))
)
"""The keys of a service."""


def compose_key(path: str) -> ComposeKey | None:
    """Return the row of a key, or of the nearest key above it; None if there is none."""
    while path:
        if path in _BY_PATH:
            return _BY_PATH[path]
        path = path.rpartition(".")[0]
    return None


def service_key(key: str) -> ComposeKey | None:
    """Return the row of a key of a service (`deploy.mode`), or None if no such key exists."""
    return compose_key(_PREFIX + key) if key.partition(".")[0] in SERVICE_KEYS else None


def unknown_keys(keys: Iterable[str], known: frozenset[str]) -> Iterator[str]:
    """Yield each key that is not in the specification. Keys that begin with `x-` are free."""
    return (key for key in keys if key not in known and not key.startswith("x-"))


def unknown_key_remedy(key: str, known: frozenset[str]) -> str:
    """Return what to do about a key that is not in the specification."""
    near = difflib.get_close_matches(key[:100], sorted(known), n=1)
    return f"write {near[0]} if that is meant" if near else "remove it, or begin it with x-"
