"""Which logs are collected: what the labels of containers ask for, and what stands in the way. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.config.labels.logs import LogLabels, parse_log_labels
from mesh.config.labels.values import escape_unprintable
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.platform.logs.documents import LogOrigin
from mesh.platform.logs.locate import LogFileSource, locate_sources
from mesh.sources.docker.identity import LabelOrigins, LabelRules, counting_labels, identify_container
from mesh.sources.docker.instances import MAX_LABEL_LENGTH, MAX_LABELS, container_name
from mesh.sources.docker.log_files import READABLE_DRIVER, ContainerLog
from mesh.sources.docker.messages import ContainerSummary

_MAX_RELEASE = 64


@dataclass(frozen=True, slots=True)
class LogTarget:
    """A log that is collected."""

    origin: LogOrigin
    labels: LogLabels
    path: str
    """The file that the engine writes to; empty if standard output is not collected, or not there yet."""
    runs: bool
    """Whether the container runs; if it does not, a last line without line feed is complete."""
    sources: tuple[LogFileSource, ...] = ()
    """Where its files are on the host."""
    problems: tuple[Problem, ...] = ()
    """What of its labels cannot be collected."""


def wanted_logs(
    container: ContainerSummary, origins: LabelOrigins, rules: LabelRules
) -> tuple[LogLabels | None, tuple[Problem, ...]]:
    """Return what is collected of a container, None for nothing, and the problems of its labels about logs."""
    labels = counting_labels(container.labels or {}, origins, rules)
    if len(labels) > MAX_LABELS or any(len(key) + len(value) > MAX_LABEL_LENGTH for key, value in labels.items()):
        return None, ()  # the daemon reports it
    return parse_log_labels(labels, f"container {escape_unprintable(container_name(container))}")


def log_target(
    container: ContainerSummary, labels: LogLabels, log: ContainerLog, origins: LabelOrigins, worker: str
) -> LogTarget:
    """Return the target, with the problems of what cannot be read of it."""
    name = container_name(container)
    subject = f"container {escape_unprintable(name)}"
    problems: list[Problem] = []
    path = log.path if labels.store else ""
    if labels.store and log.driver != READABLE_DRIVER:
        path = ""
        driver = escape_unprintable(log.driver or "of another engine")
        reason = f"it logs by the driver {driver}, whose files are not read"
        remedy = "set logging: {driver: json-file} and create it again"
        problems.append(Problem(Code.LOG_DRIVER, Severity.ERROR, subject, reason, remedy))
    sources, unreachable = locate_sources(labels.paths, log.filesystem)
    for each in unreachable:
        text = f"the files {escape_unprintable(each.path)} cannot be read: {escape_unprintable(each.reason)}"
        problems.append(
            Problem(Code.LOG_PATH_UNREACHABLE, Severity.ERROR, subject, text, escape_unprintable(each.remedy))
        )
    release = next((v for k, v in (container.labels or {}).items() if k.endswith(".routing.release")), None)
    origin = LogOrigin(
        container.id,
        name,
        service_of(container, origins),
        worker,
        log.image,
        None if release is None else release[:_MAX_RELEASE],
    )
    runs = container.state in ("running", "paused", "restarting")
    return LogTarget(origin, labels, path, runs, sources, tuple(problems))


def service_of(container: ContainerSummary, origins: LabelOrigins) -> str:
    """Return the service that a container is of, `project/service`; its own name if it is of none."""
    try:
        owner = identify_container(container.labels or {}, origins).owner
    except ValueError:
        owner = None  # the daemon reports it
    return container_name(container) if owner is None else "/".join(owner)


def problems_in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return problems in an order that does not depend on that of the containers."""
    return tuple(sorted(problems, key=lambda each: (each.subject, each.code.value, each.reason)))
