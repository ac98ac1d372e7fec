"""How the engines refuse."""

from mesh.model.codes import Code
from mesh.model.errors import MeshError


class FleetError(MeshError):
    """The engine did not do what was asked."""


class FleetUnavailableError(FleetError):
    """The engine does not answer, or is no manager."""

    def __init__(self, message: str, code: Code = Code.FLEET_UNAVAILABLE) -> None:
        super().__init__(code, message)


class FleetNoQuorumError(FleetUnavailableError):
    """The engine answers, and its swarm has no leader: instances run on, and nothing about them can be changed."""

    def __init__(self, reason: str) -> None:
        """`reason`: what the engine says, or that it says nothing."""
        super().__init__(
            f"the swarm has no leader: {reason}; containers and routing go on as they are; start managers, and "
            "connect them, until more than half of them reach each other",
            Code.FLEET_NO_QUORUM,
        )


class FleetRefusedError(FleetError):
    """The engine refuses; the message has its reason."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.FLEET_REFUSED, message)


class FleetConflictError(FleetError):
    """Somebody else was faster: the version is old, the object gone, or the name taken."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.FLEET_CONFLICT, message)
