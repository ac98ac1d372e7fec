"""What a worker knows of the process that collects the logs of its containers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CollectedLogs:
    """How far `vipmesh ship` on this worker is, by what it said last. The counts are those since its start."""

    answers: bool
    """Whether it answers; if not, containers ask for it, and all figures are 0."""
    logs: int = 0
    """Logs that are collected now."""
    lag_seconds: float = 0.0
    """The age of the last line that was delivered of the log furthest behind; 0 if none is behind."""
    unread_bytes: int = 0
    lines: int = 0
    """Lines that the store of logs has."""
    bytes: int = 0
    lost: int = 0
    """Occasions on which rotation removed lines before they were read."""
    refused: int = 0
    """Lines that the store of logs refused for good."""
