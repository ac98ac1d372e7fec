"""Which names and published ports of compose files are more than `[claims]` permits one container and one owner."""

from collections.abc import Iterator

from mesh.cluster.claim_quotas import QuotaUse
from mesh.model.claims import ClaimQuotas, Claims
from mesh.model.service import Name, PortPublication, Service


class QuotaLint:
    """Claims what services declare as an empty cluster would, and says what it would refuse."""

    def __init__(self, quotas: ClaimQuotas) -> None:
        self._use = QuotaUse(Claims(), quotas)

    def refusals(self, service: Service) -> Iterator[tuple[Name | PortPublication, str, str]]:
        """Yield each name and published port that is refused, with the reason and the remedy."""
        held: list[Name] = []
        for name in service.names:
            refusal = self._use.container_refusal(name, held) or self._use.owner_refusal(service.owner, name)
            if refusal is not None:
                yield name, *refusal
            else:
                held.append(name)
                self._use.name_granted(service.owner)
        for publish in service.publishes:
            refusal = self._use.port_refusal(service, publish)
            if refusal is not None:
                yield publish, *refusal
            else:
                self._use.port_held(service.owner, is_new=True)
