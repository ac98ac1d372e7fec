"""Reads a stack from compose files, labels and environment entries. Pure."""

from collections.abc import Mapping

from mesh.platform.stacks.model import Stack
from mesh.sources.compose.model import ComposeFile


def read_stack(content: ComposeFile, project: str, environments: Mapping[str, Mapping[str, str]], domain: str) -> Stack:
    """Return the stack of one project, with every problem of its services.

    `environments` has the variables of each service, as `EnvironmentReader` reads them. `domain` is the cluster domain.
    """
    raise NotImplementedError
