"""Weights that operators requested in place of those of the labels.

They are part of the endpoints that this worker registers, so that a restart of its daemon finds them there.
"""

from collections.abc import Callable, Iterable, Mapping

from mesh.control.drain_requests import REQUESTER
from mesh.model.service import Endpoint, Instance


class WeightRequests:
    """Keeps the requested weights. All methods must be called in the event loop's thread."""

    def __init__(self, on_change: Callable[[], None] = lambda: None, adopted: Iterable[Endpoint] = ()) -> None:
        """`on_change` is called after each request. `adopted`: endpoints as an earlier process registered them; weights
        that operators requested from that process stay in force.
        """
        self.asked: Mapping[str, int] = {e.id: e.asked_weight for e in adopted if e.asked_weight is not None}
        """The requested weights by endpoint ID. Replaced as a whole."""
        self.requesters: Mapping[str, str] = {}
        """Who requested the last change, a reset included, by endpoint ID, as far as it is known. Replaced as a whole.
        """
        self._on_change = on_change

    def ask(self, endpoint: str, weight: int | None) -> None:
        """Give the endpoint this weight in place of its label's; None for that of the label."""
        asked = {id: before for id, before in self.asked.items() if id != endpoint}
        self.asked = asked if weight is None else {**asked, endpoint: weight}
        if (requester := REQUESTER.get()) is not None:
            self.requesters = {**self.requesters, endpoint: requester}
        self._on_change()

    def marked(self, instances: Iterable[Instance]) -> list[Instance]:
        """The instances with the requested weights."""
        return [self._marked(instance) for instance in instances]

    def _marked(self, instance: Instance) -> Instance:
        asked = self.asked.get(instance.id)
        return instance if asked == instance.asked_weight else instance.with_asked_weight(asked)
