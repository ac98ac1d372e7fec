"""Lists the claims of a store as rows of a table. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mesh.cluster.claim_usage import stored_ages, undeclared_keys
from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import build_view
from mesh.model.view import ClusterView

ClaimKind: TypeAlias = Literal["name", "port", "vip"]


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One claim."""

    kind: ClaimKind
    claim: str
    """The routing name, the port as `tcp/8080`, or the address."""
    holder: str
    """The owner of a name (`project/service`); the service name of a port or a VIP."""
    used: bool
    """Whether the holder declares it now."""
    unused_seconds: int | None
    """For how long no worker has seen it declared, as the store has it; None if it is used or that is not known."""


def claim_rows(records: Mapping[str, bytes]) -> tuple[ClaimRow, ...]:
    """The claims among these records: names, then ports, then VIPs, each in their order."""
    view = build_view(records)[0]
    return tuple(_rows(view, records))


def _rows(view: ClusterView, records: Mapping[str, bytes]) -> Iterator[ClaimRow]:
    claims = view.claims
    undeclared, ages = undeclared_keys(view.services, claims), stored_ages(records)
    for name, owner in sorted(claims.owners.items()):
        key = record_key("claims", "idle", "names", name)
        is_used = key not in undeclared
        yield ClaimRow("name", name, owner, is_used, None if is_used else ages.get((key, owner)))
    for (transport, port), (name, target) in sorted(claims.ports.items()):
        key = record_key("claims", "idle", "ports", transport, str(port))
        is_used = key not in undeclared
        age = None if is_used else ages.get((key, f"{name}:{target}"))
        yield ClaimRow("port", f"{transport}/{port}", name, is_used, age)
    named = {service.name for service in view.services if claims.owners.get(service.name) == service.owner}
    vips = {vip: name for name, vip in claims.vips.items()} | dict(claims.holders)
    for vip, name in sorted(vips.items()):
        is_used = name in named and claims.vips.get(name) == vip
        key = record_key("claims", "idle", "names", name)
        age = None if is_used else ages.get((key, claims.owners.get(name, "")))
        yield ClaimRow("vip", vip, name, is_used, age)
