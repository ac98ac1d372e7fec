"""The parts of a worker that report conditions, under the names that log, status and metrics use."""

from enum import StrEnum


class ProblemPart(StrEnum):
    """A part that finds problems: the `part` label of `vipmesh_problems`."""

    LABELS = "labels"
    """Labels that are refused or unknown."""
    CLAIMS = "claims"
    """Conflicts over names, VIPs and published ports."""
    PORTS = "ports"
    """Published ports that another program of the worker listens on."""
    SOURCE = "source"
    """Files of a source. There may be several: their parts are `source 0`, `source 1`, ..."""
    STORE = "store"
    """Records that cannot be read."""
    NAME = "name"
    """Another daemon that runs with the name of this worker."""
    FIREWALL = "firewall"
    """What a firewall of this host drops."""
    PEERS = "peers"
    """Workers that do not answer, and this worker if it may be cut off."""


class FrozenPart(StrEnum):
    """A part whose last good state stays in force while it does not answer: the `part` label of `vipmesh_frozen`."""

    STORE = "store"
    SOURCE = "source"
    """There may be several: their parts are `source 0`, `source 1`, ..."""
    DATA_PLANE = "data plane"
    HOST = "host"
    """Settings of the host. There may be several: their parts are `host 0`, `host 1`, ..."""
