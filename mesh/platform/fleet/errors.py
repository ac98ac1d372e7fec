"""How the engines refuse."""

from mesh.model.codes import Code
from mesh.model.errors import MeshError


class FleetError(MeshError):
    """The engine did not do what was asked."""


class FleetUnavailableError(FleetError):
    """The engine does not answer, is no manager, or has no quorum."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.FLEET_UNAVAILABLE, message)


class FleetRefusedError(FleetError):
    """The engine refuses; the message has its reason."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.FLEET_REFUSED, message)


class FleetConflictError(FleetError):
    """Somebody else was faster: the version is old, the object gone, or the name taken."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.FLEET_CONFLICT, message)
