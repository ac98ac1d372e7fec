"""Limits how many names and published ports one container and one owner may claim. Pure.

The limits are for new claims alone: what an owner holds already stays, however much it is.
"""

from collections import Counter
from collections.abc import Iterable

from mesh.model.claims import ClaimQuotas, Claims
from mesh.model.service import Name, PortPublication, Service


class QuotaUse:
    """Counts what each owner holds while claims are decided."""

    def __init__(self, claims: Claims, quotas: ClaimQuotas) -> None:
        self._quotas = quotas
        self._names = Counter(claims.owners.values())
        self._ports = Counter(
            owner for name, _ in claims.ports.values() if (owner := claims.owners.get(name)) is not None
        )
        self._own_ports: Counter[str] = Counter()
        """The published ports of each service that are granted to its declaration in this decision or before."""

    def container_refusal(self, name: Name, held: Iterable[Name]) -> tuple[str, str] | None:
        """The reason against one more name of a container and the remedy, in words; None if it may have the name.

        `held`: the names among its labels that it has already.
        """
        most = self._quotas.container_names
        if len(frozenset(held)) < most:
            return None
        reason = f"the name {name} is one more than the {most} that a container may claim"
        return reason, "take names out of its labels, or raise [claims] container_names"

    def owner_refusal(self, owner: str, name: Name) -> tuple[str, str] | None:
        """The reason against one more name of an owner and the remedy, in words; None if it may have the name."""
        most = self._quotas.owner_names
        if self._names[owner] < most:
            return None
        reason = f"the name {name} is one more than the {most} that one owner may hold"
        return reason, "take names out of its labels, or raise [claims] owner_names"

    def port_refusal(self, service: Service, publish: PortPublication) -> tuple[str, str] | None:
        """The reason against one more published port and the remedy, in words; None if the service may have it."""
        quotas = self._quotas
        shown = f"the published {publish.transport} port {publish.port or 'auto'}"
        if self._own_ports[service.owner] >= quotas.container_ports:
            reason = f"{shown} is one more than the {quotas.container_ports} that a container may publish"
            return reason, "take ports out of its labels, or raise [claims] container_ports"
        if self._ports[service.owner] >= quotas.owner_ports:
            reason = f"{shown} is one more than the {quotas.owner_ports} that one owner may hold"
            return reason, "take ports out of its labels, or raise [claims] owner_ports"
        return None

    def name_granted(self, owner: str, former: str | None = None) -> None:
        """Count a name of this owner, which `former` held."""
        self._names[owner] += 1
        if former is not None:
            self._names[former] -= 1

    def name_given_up(self, owner: str) -> None:
        """Count a name less."""
        self._names[owner] -= 1

    def port_held(self, owner: str, *, is_new: bool) -> None:
        """Count a published port that the declaration of this owner has; `is_new`: it had it not before."""
        self._own_ports[owner] += 1
        if is_new:
            self._ports[owner] += 1
