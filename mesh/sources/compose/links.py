"""Finds services that others name in `links` or `external_links`, and that have no routing label. Pure.

Containers of compose reach one another by service names in a network of their own. The mesh answers routing names, on
every worker.
"""

from collections.abc import Iterator, Mapping

from mesh.config.labels.reader import PORT_PLACEHOLDER, ROUTE
from mesh.config.labels.values import escape_unprintable
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Name
from mesh.sources.compose.merge import plain_text
from mesh.sources.compose.model import ComposeService
from mesh.sources.compose.tree import ComposeList, ComposeMapping, ComposeNode

_PLATFORM_PREFIX, _PREFIX = "aliyun.", "mesh."


def link_problems(services: Mapping[str, ComposeService], served: Mapping[str, tuple[Name, ...]]) -> Iterator[Problem]:
    """Yield one warning for each service that others name and that has no routing name.

    `served` has the names of each service that has any. A link to another project is none of these.
    """
    told = set()
    for service in services.values():
        for link in service.links:
            target = services.get(link.target)
            if target is None or link.target in served or link.target in told:
                continue
            told.add(link.target)
            prefix = next((_PLATFORM_PREFIX for key in service.labels if key.startswith(_PLATFORM_PREFIX)), _PREFIX)
            label = f"{prefix}{ROUTE}{_container_port(target) or PORT_PLACEHOLDER}: {escape_unprintable(link.alias)}"
            yield Problem(
                Code.COMPOSE_LINK_WITHOUT_ROUTE,
                Severity.WARNING,
                f"service {escape_unprintable(target.name)}",
                f"service {escape_unprintable(service.name)} names it in {link.key} ({link.where}), "
                "but it has no routing name",
                f"add the label {label}",
                where=target.where,
            )


def _container_port(service: ComposeService) -> str | None:
    """Return the first port that a service says it listens on, or None."""
    for key in ("expose", "ports"):
        entry = service.keys.get(key)
        for item in entry.value.items if entry is not None and isinstance(entry.value, ComposeList) else ():
            number = _target(item)
            if number.isdecimal() and number.isascii():
                return number
    return None


def _target(item: ComposeNode) -> str:
    if isinstance(item, ComposeMapping):
        return plain_text(item.entries["target"].value) if "target" in item.entries else ""
    return plain_text(item).partition("/")[0].rpartition(":")[2]
