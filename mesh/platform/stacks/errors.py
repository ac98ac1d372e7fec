"""How requests about stacks are refused."""

from mesh.model.errors import MeshError


class StackRequestError(MeshError):
    """This stack does not have what a request names, or cannot be asked. The text ends with the remedy."""
