"""Limits how many queries per second one client may send. Pure: every call takes the current time."""

from meshdns.acl import quota_key

MAX_CLIENTS = 16_384
"""Clients that are counted one by one in a second; further ones are counted together as one client."""


class ClientRate:
    """Counts the queries of each client in each second.

    The counts of a second are dropped when the next one begins, so memory is bounded by what arrives in a second.
    """

    def __init__(self, per_second: int) -> None:
        """`per_second` is the limit of one client; 0 for no limit."""
        self.per_second = per_second
        self._second = -1
        self._counts: dict[str, int] = {}

    def allows(self, host: str, now: float) -> bool:
        """Count a query from this host; returns whether it is within the limit. `now` is in seconds."""
        if not self.per_second:
            return True
        second = int(now)
        if second != self._second:
            self._second = second
            self._counts.clear()
        client = quota_key(host)
        counts = self._counts
        if len(counts) >= MAX_CLIENTS and client not in counts:
            client = ""
        count = counts[client] = counts.get(client, 0) + 1
        return count <= self.per_second
