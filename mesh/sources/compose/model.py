"""The content of compose files, as values that know where they were written; and how much one file may have."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from types import MappingProxyType

from mesh.config.labels.values import LabelRefusedError, parse_port, quote_value
from mesh.config.settings import Settings
from mesh.model.codes import Code
from mesh.model.problem import Problem
from mesh.model.service import Address


@dataclass(frozen=True, slots=True)
class ComposeLimits:
    """The bounds of one compose file."""

    file_bytes: int = 4 << 20
    """The most bytes of the file, and of the `.env` beside it."""
    values: int = 20_000
    """The most YAML values in it: keys, texts, lists, mappings and aliases."""
    problems: int = 1000
    """The most problems that are kept of it, errors before warnings; the rest is counted."""

    @property
    def entries(self) -> int:
        """The most entries that are read of it, with aliases and merge keys followed."""
        return 4 * self.values

    @property
    def characters(self) -> int:
        """The most characters of the texts that are read of it, with aliases and variables replaced."""
        return 2 * self.file_bytes


DEFAULT_LIMITS = ComposeLimits()
"""The bounds of the default settings."""


def compose_limits(settings: Settings) -> ComposeLimits:
    """Return the bounds that the settings ask for."""
    return ComposeLimits(
        settings.source_compose_file_bytes, settings.source_compose_values, settings.source_compose_problems
    )


@dataclass(frozen=True, slots=True)
class ComposeEndpoint:
    """One entry of `x-endpoints`."""

    address: Address
    port: int | None
    where: str
    """`FILE:LINE`."""

    def __str__(self) -> str:
        if self.port is None:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class ComposeService:
    """One service as its file declares it."""

    name: str
    where: str
    """`FILE:LINE`."""
    labels: Mapping[str, str]
    label_where: Mapping[str, str]
    """Full label key -> `FILE:LINE`."""
    endpoints: tuple[ComposeEndpoint, ...] | None
    """None if the file has no `x-endpoints` for the service."""


@dataclass(frozen=True, slots=True)
class ComposeFile:
    """The content of one file."""

    project: str | None
    """Its top-level `name:`, or None."""
    services: Mapping[str, ComposeService]
    problems: tuple[Problem, ...]
    """Each with `where` set."""
    broken: bool = False
    """The services are not reliable: some or all of them are missing."""


def parse_endpoint(text: str) -> tuple[Address, int | None]:
    """Parse `ADDRESS`, `ADDRESS:PORT`, `[IPV6]` or `[IPV6]:PORT`. Raises `LabelRefusedError`."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text, re.DOTALL)
    if bracketed:
        host, number = bracketed[1], bracketed[2]
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
    else:
        host, number = text, None
    try:
        address = ip_address(host)
    except ValueError:
        remedy = "write ADDRESS, ADDRESS:PORT or [IPV6]:PORT; names are not resolved"
        raise LabelRefusedError(
            Code.COMPOSE_ENDPOINT_ADDRESS, f"{quote_value(host)} is not an address", remedy
        ) from None
    if address.is_unspecified or address.is_multicast or "%" in host:
        raise LabelRefusedError(
            Code.COMPOSE_ENDPOINT_ADDRESS,
            f"{quote_value(host)} is not the address of one instance",
            "write the address it listens on",
        )
    return str(address), None if number is None else parse_port(number)


def merge_files(files: Sequence[ComposeFile]) -> dict[str, ComposeService]:
    """Merge the services of several files: a later file adds and overrides labels and replaces `x-endpoints`."""
    services: dict[str, ComposeService] = {}
    for file in files:
        for name, later in file.services.items():
            services[name] = _override(services[name], later) if name in services else later
    return services


def _override(earlier: ComposeService, later: ComposeService) -> ComposeService:
    return replace(
        earlier,
        labels=MappingProxyType({**earlier.labels, **later.labels}),
        label_where=MappingProxyType({**earlier.label_where, **later.label_where}),
        endpoints=earlier.endpoints if later.endpoints is None else later.endpoints,
    )


def project_name(directory: str) -> str:
    """Return the project of a file without `name:`: the directory's name as compose normalises it."""
    return re.sub(r"[^a-z0-9_-]", "", directory.lower()).lstrip("_-") or "default"
