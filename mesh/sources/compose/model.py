"""The content of compose files, as values that know where they were written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from mesh.config.labels.values import LabelRefusedError, parse_port, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem
from mesh.model.service import Address
from mesh.sources.compose.tree import ComposeEntry


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
class ComposeLink:
    """A name by which a service reaches another one."""

    key: str
    """`links` or `external_links`."""
    target: str
    alias: str
    """The name that the service uses."""
    where: str
    """`FILE:LINE`."""


@dataclass(frozen=True, slots=True)
class ComposeService:
    """One service as its files declare it."""

    name: str
    where: str
    """`FILE:LINE`."""
    labels: Mapping[str, str]
    label_where: Mapping[str, str]
    """Full label key -> `FILE:LINE`."""
    endpoints: tuple[ComposeEndpoint, ...] | None
    """None if the file has no `x-endpoints` for the service."""
    is_active: bool = True
    """Whether one of its profiles is active. A service without profiles always is."""
    links: tuple[ComposeLink, ...] = ()
    keys: Mapping[str, ComposeEntry] = field(default_factory=dict, repr=False)
    """Its keys, merged."""


@dataclass(frozen=True, slots=True)
class ComposeFile:
    """The content of one file, or of several that are one project."""

    project: str | None
    """The last top-level `name:`, or None."""
    services: Mapping[str, ComposeService]
    problems: tuple[Problem, ...]
    """Each with `where` set."""
    broken: bool = False
    """The services are not reliable: some or all of them are missing."""
    refused: frozenset[str] = frozenset()
    """Services that cannot be read as they were meant. What is in `services` of them is a part of it."""
    resources: Mapping[str, ComposeEntry] = field(default_factory=dict, repr=False)
    """The top-level keys `volumes`, `configs` and `secrets`, merged."""


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


def project_name(directory: str) -> str:
    """Return the project of a file without `name:`: the directory's name as compose normalises it."""
    return re.sub(r"[^a-z0-9_-]", "", directory.lower()).lstrip("_-") or "default"
