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
    POOL = "pool"
    """VIPs that are not bound, since they are in a network of this host."""
    HOST = "host"
    """Facts of the host that keep packets from arriving."""
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
    ARRIVAL = "arrival"
    """Networks whose requests to a service are not answered."""
    EVENTS = "events"
    """Past events that cannot be kept."""
    LOGS = "logs"
    """What is wrong with the collection of logs."""
    INTERNAL = "internal"
    """Errors of vipmesh itself, as long as they last."""


class FrozenPart(StrEnum):
    """A part whose last good state stays in force while it does not answer: the `part` label of `vipmesh_frozen`."""

    STORE = "store"
    SOURCE = "source"
    """There may be several: their parts are `source 0`, `source 1`, ..."""
    DATA_PLANE = "data plane"
    PROBES = "probes"
    """What this worker lacks to probe: the last health stays."""
    HOST = "host"
    """Settings of the host. There may be several: their parts are `host 0`, `host 1`, ..."""


class ShipPart(StrEnum):
    """A part of `vipmesh ship` that waits for something else: it goes on as soon as that answers again."""

    CONTAINERS = "containers"
    """The container engine."""
    STORE = "store of logs"
    STATE = "state"
    """The disk with the positions."""


class DaemonPart(StrEnum):
    """A part of the daemon that handles input: the `part` label of `vipmesh_internal_errors_total`."""

    SOURCES = "sources"
    """Engines and compose files."""
    STORE = "store"
    """The store and its saved view."""
    CLUSTER = "cluster"
    """Registration, claims and the view of all workers."""
    PEERS = "peers"
    """Pings between workers."""
    PROBES = "probes"
    CONTROL_LOOP = "control loop"
    """The passes from the view to the data plane."""
    HOST = "host"
    """Addresses and settings of the host."""
    DATA_PLANE = "data plane"
    """The data plane, with the connections of the user-space proxy."""
    NAMES = "names"
    """The name server."""
    ADMIN = "admin"
    """The admin API and its event stream."""
    LOGS = "logs"
    """What `vipmesh ship` collects."""
    DAEMON = "daemon"
    """Everything else."""
