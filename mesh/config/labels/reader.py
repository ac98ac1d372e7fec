"""Reads the labels of one container: which labels exist, which mean the same, which are unknown.

The grammar of the values is in `mesh.config.labels.values`; what the labels mean together is in
`mesh.config.labels.parse`.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from mesh.config.labels import values
from mesh.config.labels.values import LabelRefusedError, escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Transport

LABEL_PREFIXES = ("aliyun.", "mesh.")
"""The compatibility prefix and the neutral one. They mean the same."""

ROUTE, PUBLISH = "routing.port_", "routing.publish.port_"
SERVICE_LABELS = (
    "routing.vip",
    "routing.scheduler",
    "routing.scheduler_flags",
    "routing.session_sticky",
    "routing.weight",
    "routing.max_connections",
    "routing.min_connections",
    "routing.forwarding",
    "routing.slow_start_seconds",
    "routing.release",
)
PROBE_LABELS = ("probe.url", "probe.cmd")
TUNING_LABELS = (
    "probe.initial_delay_seconds",
    "probe.timeout_seconds",
    "probe.interval_seconds",
    "probe.healthy_threshold",
    "probe.unhealthy_threshold",
    "probe.startup_seconds",
    "probe.startup_interval_seconds",
    "probe.floor",
    "probe.expect_status",
    "probe.expect_body",
    "probe.method",
    "probe.host",
    "probe.follow_redirects",
    "probe.tls_verify",
    "probe.send",
    "probe.expect_reply",
)
HEADER_LABEL_PREFIX = "probe.header."
"""The header's name follows. The value may be a password and is shown nowhere."""
LOG_STORE, LOG_TTL = "log_store_", "log_ttl_"
"""The name of a store of logs follows."""
LOG_LABELS = ("log.timestamp", "log.rate_limit", "log.multiline")
RELEASE_CHECK_LABELS = ("release.check.cmd", "release.check.url")
"""Labels by which the worker of a container checks its release while a rollout runs."""
STACK_LABELS = (
    "scale",
    "global",
    "depends",
    "latest_image",
    "release.strategy",
    "release.steps",
    "release.deadline_seconds",
    "release.max_failures",
    "release.min_connections",
    "rolling_updates",
    "rolling_updates.parallelism",
)
"""Labels about all instances of a service, also of one that nothing routes to. `vipmesh deploy` acts on them."""
AUTO_SCALING_LABELS = tuple(
    f"auto_scaling.{name}"
    for name in (
        "max_cpu",
        "min_cpu",
        "target_cpu",
        "max_memory",
        "min_memory",
        "max_connections",
        "max_connection_rate",
        "step",
        "min_instances",
        "max_instances",
        "cooldown_seconds",
        "schedule",
        "timezone",
    )
)
"""Labels about how many instances a service has by its load."""
SCALED_LABEL = "io.vipmesh.scaled"
"""Label of containers that `vipmesh deploy` has made: their service is scaled. How is in labels of the engine service,
so that other thresholds make no other containers.
"""
RESERVED_LABELS = ("service", "stack", "digest", "runs.*")
"""Labels that vipmesh writes to what it creates, and no file may."""
UNSUPPORTED_LABELS = {
    "probe.restart": "restart what stays unhealthy yourself",
}
"""Labels that are recognised but not handled -> what the user does instead."""
FOREIGN_LABELS = {
    "lb.port_*": ("no load balancer of a cloud is set up for it", "publish the port with routing.publish.port_<port>"),
    "custom_addon": ("the mesh routes connections, not requests", "run a proxy as a service of its own"),
    "proxy.*": ("the mesh routes connections, not requests", "run a proxy as a service of its own"),
}
"""Labels for parts of another platform -> why they have no effect, and what the user does instead."""

PORT_PLACEHOLDER = "<container port>"
TRANSPORT_SUFFIX = "[/<transport>]"
KNOWN_LABELS = (
    f"{ROUTE}{PORT_PLACEHOLDER}{TRANSPORT_SUFFIX}",
    f"{PUBLISH}{PORT_PLACEHOLDER}{TRANSPORT_SUFFIX}",
    *SERVICE_LABELS,
    *PROBE_LABELS,
    *TUNING_LABELS,
    f"{HEADER_LABEL_PREFIX}<name>",
    *STACK_LABELS,
    *RELEASE_CHECK_LABELS,
    *AUTO_SCALING_LABELS,
    f"{LOG_STORE}<name>",
    f"{LOG_TTL}<name>",
    *LOG_LABELS,
    *UNSUPPORTED_LABELS,
    *FOREIGN_LABELS,
)
"""All labels of the reference, without prefix."""

MAX_SUGGESTIONS = 20
"""Unknown labels for which the nearest known one is looked for, which takes half a millisecond each."""
_ORDINARY = 200
"""Characters of a label and its value that are parsed in no time."""
_ENTRIES = 33
"""Entries of a schedule that are parsed: one more than are allowed."""
_PORT_LABEL = re.compile(rf"({ROUTE}|{PUBLISH})([^/]*)(?:/(.*))?", re.DOTALL)
_SCALING_KEYS = tuple(f"{prefix}auto_scaling." for prefix in LABEL_PREFIXES)
_OF_ALL_INSTANCES = frozenset({*STACK_LABELS, *AUTO_SCALING_LABELS})
_SCALAR = frozenset({*SERVICE_LABELS, *PROBE_LABELS, *TUNING_LABELS, *RELEASE_CHECK_LABELS})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PortLabel:
    """A label that contains a container port. Sorted by port, then TCP, UDP, SCTP."""

    number: int
    transport: Transport
    name: str
    """Without prefix."""

    def __lt__(self, other: "PortLabel") -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[int, int, str]:
        return self.number, list(Transport).index(self.transport), self.name


def label_name(key: str) -> str | None:
    """Return the label without its prefix, with one spelling for each meaning; None if it has another prefix."""
    for prefix in LABEL_PREFIXES:
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            return name.removesuffix("/tcp") if _PORT_LABEL.fullmatch(name) else name
    return None


def is_secret_label(key: str) -> bool:
    """Return whether the value of a label, given by its full key, may be a password and must not be shown."""
    return (label_name(key) or "").startswith(HEADER_LABEL_PREFIX)


def is_reserved_label(key: str) -> bool:
    """Return whether no file may set a label, given by its full key."""
    name = label_name(key)
    return name is not None and any(fnmatchcase(name, pattern) for pattern in RESERVED_LABELS)


def is_stack_label(key: str) -> bool:
    """Return whether a label, given by its full key, is about how many instances there are and how they change.

    No container needs it, and another value must not make another container.
    """
    name = label_name(key)
    return name is not None and (name in STACK_LABELS or name in AUTO_SCALING_LABELS)


def is_scaled(labels: Iterable[str]) -> bool:
    """Return whether these full keys of labels say that a service is scaled."""
    return any(key == SCALED_LABEL or key.startswith(_SCALING_KEYS) for key in labels)


def label_key(labels: Mapping[str, str], name: str) -> str | None:
    """Return the full key of the label `name` (`routing.vip`); None if it is not set."""
    return next((key for key in labels if label_name(key) == name), None)


def parse_cost(labels: Mapping[str, str]) -> int:
    """Return about how many microseconds it takes to parse these labels beyond what ordinary ones take.

    It is the search for the label that an unknown one may mean, long values, and the entries of a schedule.
    """
    unknown, characters, entries = 0, 0, 0
    for key, value in labels.items():
        if (name := label_name(key)) is not None:
            entries += value.count(";") + 1 if name == "auto_scaling.schedule" else 0
            unknown += not (_is_scalar(name) or _PORT_LABEL.fullmatch(name))
            characters += max(0, len(key) + len(value) - _ORDINARY)
    return min(unknown, MAX_SUGGESTIONS) * 500 + unknown * 10 + characters // 20 + min(entries, _ENTRIES) * 150


class LabelReader:
    """Holds the labels that can be used, and collects the problems."""

    def __init__(self, labels: Mapping[str, str], subject: str) -> None:
        self.problems: list[Problem] = []
        self.has_port_labels = False
        """Whether any label contains a container port, even if it is refused."""
        self._subject = subject
        self._unknown = 0
        """How many labels of the mesh are unknown."""
        self._keys: dict[str, str] = {}
        self._values: dict[str, str] = {}
        clashing = self._gather(labels)
        ports = [port for name, key in self._keys.items() if (port := self._classify(name, key))]
        for name in clashing:
            del self._values[name]
        self._ports = sorted(port for port in ports if port.name in self._values)

    def _gather(self, labels: Mapping[str, str]) -> set[str]:
        clashing = set()
        for key, raw in labels.items():
            name, value = label_name(key), raw.strip()
            if name is None:
                continue
            if not _is_unicode(key) or not _is_unicode(raw):
                self._refuse_surrogate(key)
                continue
            if name not in self._keys:
                self._keys[name], self._values[name] = key, value
            elif self._values[name] != value:
                clashing.add(name)
                other = escape_unprintable(self._keys[name])
                if is_secret_label(key):
                    reason = f"its value differs from that of {other}; both are the same label"
                else:
                    here, there = quote_value(value), quote_value(self._values[name])
                    reason = f"it is {here}, but {other} is {there}; both are the same label"
                self._add(Code.LABEL_DIFFERS_BY_PREFIX, Severity.ERROR, key, reason, "keep one of them")
        return clashing

    def _refuse_surrogate(self, key: str) -> None:
        """Refuse a label that cannot be written as UTF-8: an engine's JSON may have half of a surrogate pair."""
        shown = escape_unprintable(key)
        reason, remedy = "it has half of a surrogate pair, which is no character", "write characters alone"
        self.problems.append(
            Problem(
                Code.VALUE_OUT_OF_RANGE, Severity.ERROR, f"{self._subject}, label {shown}", reason, remedy, label=shown
            )
        )

    def _classify(self, name: str, key: str) -> PortLabel | None:
        if match := _PORT_LABEL.fullmatch(name):
            self.has_port_labels = True
            try:
                return PortLabel(values.parse_port(match[2]), _transport(match[3]), name)
            except LabelRefusedError as refused:
                self._add(refused.code, Severity.ERROR, key, refused.reason, f"{refused.remedy} after port_")
        elif pattern := next((pattern for pattern in UNSUPPORTED_LABELS if fnmatchcase(name, pattern)), None):
            self._add(
                Code.LABEL_NOT_SUPPORTED, Severity.WARNING, key, "it is not handled yet", UNSUPPORTED_LABELS[pattern]
            )
        elif pattern := next((pattern for pattern in FOREIGN_LABELS if fnmatchcase(name, pattern)), None):
            self._add(Code.LABEL_NOT_SUPPORTED, Severity.WARNING, key, *FOREIGN_LABELS[pattern])
        elif not _is_scalar(name):
            self._unknown += 1
            remedy = _nearest(name, key) if self._unknown <= MAX_SUGGESTIONS else "remove it"
            self._add(Code.UNKNOWN_LABEL, Severity.WARNING, key, "there is no such label", remedy)
        return None

    def ports(self, prefix: str) -> list[PortLabel]:
        """Return the labels of one kind (`ROUTE`, `PUBLISH`) that contain a container port, in order."""
        return [port for port in self._ports if port.name.startswith(prefix)]

    def starting_with(self, prefix: str) -> list[str]:
        """Return the labels whose name continues after this prefix, in order, refused ones included."""
        return sorted(name for name in self._keys if name.startswith(prefix) and name != prefix)

    def take(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Return the value of a label, or the default if it is absent or refused. A refusal adds a problem; what is not
        handled yet is a warning.
        """
        if name not in self._values:
            return default
        try:
            return parse(self._values[name])
        except LabelRefusedError as refused:
            report = self.warn if refused.code is Code.LABEL_NOT_SUPPORTED else self.refuse
            report(refused.code, name, refused.reason, refused.remedy)
            return default

    def has(self, name: str) -> bool:
        """Return whether the label is set, even if it is refused."""
        return name in self._keys

    def refuse(self, code: Code, name: str | None, reason: str, remedy: str) -> None:
        """Add an error about a label, or about all labels if `name` is None."""
        self._add(code, Severity.ERROR, self._keys[name] if name else None, reason, remedy)

    def warn(self, code: Code, name: str, reason: str, remedy: str) -> None:
        """Add a warning about a label."""
        self._add(code, Severity.WARNING, self._keys[name], reason, remedy)

    def warn_without_service(self) -> None:
        """Add a warning for each label that describes a service, because there is no service."""
        for name, key in self._keys.items():
            if _is_scalar(name) and name not in _OF_ALL_INSTANCES and not _is_about_logs(name):
                remedy = f"add a label {_prefix(key)}{ROUTE}{PORT_PLACEHOLDER} or remove this one"
                reason = "it has no effect, because nothing routes to the service"
                self.warn(Code.LABEL_WITHOUT_EFFECT, name, reason, remedy)

    def _add(self, code: Code, severity: Severity, key: str | None, reason: str, remedy: str) -> None:
        subject = self._subject if key is None else f"{self._subject}, label {escape_unprintable(key)}"
        self.problems.append(Problem(code, severity, subject, reason, remedy, label=key))


def _is_unicode(text: str) -> bool:
    """Return whether the text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_scalar(name: str) -> bool:
    return (
        name in _SCALAR
        or name in _OF_ALL_INSTANCES
        or _is_about_logs(name)
        or (name.startswith(HEADER_LABEL_PREFIX) and name != HEADER_LABEL_PREFIX)
    )


def _is_about_logs(name: str) -> bool:
    return name in LOG_LABELS or any(name.startswith(prefix) and name != prefix for prefix in (LOG_STORE, LOG_TTL))


def _prefix(key: str) -> str:
    return next(prefix for prefix in LABEL_PREFIXES if key.startswith(prefix))


def _transport(suffix: str | None) -> Transport:
    if suffix is None:
        return Transport.TCP
    if suffix not in (Transport.UDP, Transport.SCTP):
        raise LabelRefusedError(
            Code.LABEL_PORT,
            f"{quote_value('/' + suffix)} is not a transport",
            "write the number alone or with /udp or /sctp",
        )
    return Transport(suffix)


def _nearest(name: str, key: str) -> str:
    """Return the remedy for an unknown label: the known label with the most similar spelling."""
    number = re.search(r"[1-9][0-9]{0,4}", name, re.ASCII)
    suffix = next((f"/{t}" for t in (Transport.UDP, Transport.SCTP) if name.endswith(f"/{t}")), "")
    port = f"{number[0] if number else PORT_PLACEHOLDER}{suffix}"
    candidates = [
        known.replace(f"{PORT_PLACEHOLDER}{TRANSPORT_SUFFIX}", port) for known in KNOWN_LABELS if "*" not in known
    ]
    near = difflib.get_close_matches(name[:100], candidates, n=1)
    if near:
        return f"write {_prefix(key)}{near[0]} if that is meant"
    return "remove it, or look up its name in the label reference"
