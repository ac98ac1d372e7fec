"""Decides where the demo's instances listen, so that a service has as many as it wants without an engine. Pure."""

import ipaddress
import json
from collections.abc import Iterator, Mapping

from mesh.config.labels.parse import ParsedLabels, parse_labels
from mesh.model.eligibility import first_container_port
from mesh.sources.compose.merge import plain_text
from mesh.sources.compose.model import ComposeFile, ComposeService
from mesh.sources.compose.tree import ComposeMapping

MAX_DEMO_INSTANCES = 200
"""Instances of the demo, each with an HTTP server of its own."""
_FIRST_ADDRESS = ipaddress.IPv4Address("127.0.0.11")
_FIRST_UNPRIVILEGED_PORT = 1024
_PORT_OFFSET = 18000
"""A container port that only root may listen on is reached at this number above: 80 at 18080."""


def demo_endpoints(content: ComposeFile) -> dict[str, list[str]]:
    """Return the `x-endpoints` of each service for which the file lists another number than it wants.

    A service that is neither routed nor published needs no instance. There are at most `MAX_DEMO_INSTANCES` in all.
    """
    used = {endpoint.address for service in content.services.values() for endpoint in service.endpoints or ()}
    free = _free_addresses(used)
    left = MAX_DEMO_INSTANCES
    found: dict[str, list[str]] = {}
    for name, service in content.services.items():
        parsed = parse_labels(service.labels, owner=name, subject=name, domain="mesh.internal", commands=False)
        if not service.is_active or parsed.service is None:
            continue
        listed = service.endpoints or ()
        wanted = min(wanted_instances(service, parsed), left)
        left -= wanted
        if wanted != len(listed):
            container_port = first_container_port(parsed.service)
            port = container_port if container_port >= _FIRST_UNPRIVILEGED_PORT else _PORT_OFFSET + container_port
            if listed and listed[0].port is not None:
                port = listed[0].port
            kept = [str(endpoint) for endpoint in listed[:wanted]]
            found[name] = kept + [f"{next(free)}:{port}" for _ in range(wanted - len(kept))]
    return found


def demo_override(endpoints: Mapping[str, list[str]]) -> str:
    """Return the text of a compose file with these endpoints, for use after the file of the stack."""
    return json.dumps({"services": {name: {"x-endpoints": listed} for name, listed in endpoints.items()}})


def wanted_instances(service: ComposeService, parsed: ParsedLabels) -> int:
    """Return how many instances a service wants: the label `scale`, else `scale:`, `deploy.replicas`, its list, one."""
    if parsed.scale is not None:
        return parsed.scale
    deploy = service.keys["deploy"].value if "deploy" in service.keys else None
    entries = deploy.entries if isinstance(deploy, ComposeMapping) else {}
    for entry in (service.keys.get("scale"), entries.get("replicas")):
        text = plain_text(entry.value) if entry is not None else ""
        if text.isascii() and text.isdecimal() and len(text) < 5:  # digits, as in the label
            return int(text)
    return len(service.endpoints or ()) or 1


def _free_addresses(used: set[str]) -> Iterator[str]:
    """Yield loopback addresses that no service lists."""
    address = _FIRST_ADDRESS
    while True:
        if str(address) not in used:
            yield str(address)
        address += 1
