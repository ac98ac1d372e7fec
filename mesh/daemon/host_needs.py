"""What a daemon with given settings needs of its host, for the daemon itself and for `vipmesh doctor`. Pure."""

from collections.abc import Mapping
from pathlib import Path

from mesh.config.secrets import secret_files, secrets_in_clear
from mesh.config.settings import EndpointAddress, Settings
from mesh.host.host_problems import HostNeeds
from mesh.model.service import Name, Transport


def host_needs(
    settings: Settings, data_plane: str, published: Mapping[tuple[Transport, int], Name] | None = None
) -> HostNeeds:
    """Return the needs with this data plane (`ipvs`, `nftables`, `userspace`) and these published ports of services."""
    in_cluster = not settings.store_url.startswith("sqlite:")
    direct = settings.source_docker_endpoint_address is EndpointAddress.CONTAINER
    return HostNeeds(
        pool=settings.vip_pool,
        data_plane=data_plane,
        publish=settings.publish_ports,
        published=published or {},
        routes_to_containers=in_cluster and direct,
        secrets_in_clear=secrets_in_clear(settings),
        secret_files=secret_files(settings),
    )


def own_certificates(settings: Settings) -> tuple[Path, ...]:
    """Return the files of the certificates that the daemon shows its clients."""
    return () if settings.admin_cert is None else (settings.admin_cert,)
