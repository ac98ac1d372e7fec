"""Services as the translation makes them."""

from dataclasses import replace

from mesh.platform.fleet.protocol import FleetContainer, FleetPort, FleetRestart, FleetSpec
from mesh.platform.stacks.digest import spec_digest
from mesh.platform.stacks.model import (
    DIGEST_LABEL,
    RELEASE_LABEL,
    SERVICE_LABEL,
    STACK_LABEL,
    DesiredService,
    StackNeed,
    StackStrategy,
)


def desired_service(
    name: str,
    image: str,
    instances: int | None = 2,
    *,
    project: str = "shop",
    release: str = "",
    strategy: StackStrategy = StackStrategy.ROLLING,
    parallelism: int = 1,
    needs: tuple[StackNeed, ...] = (),
    ports: tuple[FleetPort, ...] = (FleetPort(80),),
    restart: str = "any",
    constraints: tuple[str, ...] = (),
) -> DesiredService:
    """Return a service of a project; with `ports` it is routed."""
    spec = FleetSpec(
        "",
        FleetContainer(image),
        instances=instances,
        ports=ports,
        restart=FleetRestart(restart),
        constraints=constraints,
    )
    digest = spec_digest(spec)
    release = release or digest[:8]
    labels = {
        STACK_LABEL: project,
        SERVICE_LABEL: f"{project}/{name}",
        RELEASE_LABEL: release,
        DIGEST_LABEL: digest,
    }
    spec = replace(spec, name=f"{project}_{name}--{release}", labels=labels)
    return DesiredService(name, spec, release, digest, needs, strategy, "", parallelism)
