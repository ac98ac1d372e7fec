"""The quotas of names and published ports that the settings ask for."""

from mesh.config.settings import Settings
from mesh.model.claims import ClaimQuotas


def claim_quotas(settings: Settings) -> ClaimQuotas:
    """Return the quotas for a container and for an owner."""
    return ClaimQuotas(
        settings.claims_container_names,
        settings.claims_container_ports,
        settings.claims_owner_names,
        settings.claims_owner_ports,
    )
