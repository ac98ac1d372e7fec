"""What operators do to endpoints of this worker: drain, maintenance, undrain, stop, weight."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from mesh.control.graceful_stop import GracefulStopper
from mesh.control.last_serving import service_left_empty
from mesh.control.weight_requests import WeightRequests
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.service import EndpointKey
from mesh.model.view import ClusterView


@dataclass(frozen=True, slots=True)
class EndpointAction:
    """One request to do something to an endpoint."""

    name: str
    """The name or ID of a container of this worker, or the ID of an endpoint."""
    force: bool = False
    """Whether a service may lose its last serving endpoint by it."""
    together: tuple[EndpointKey, ...] = ()
    """The endpoints of any worker that are requested with it and are to go, too; own ones may have another name."""
    weight: int | None = None
    """The weight; None for that of the label. It means nothing to the other actions."""
    each_pass: Callable[[int | None], None] = lambda _: None
    """Called while it drains, with the number of connections left; None if they are not counted. What it raises ends
    the wait, and what has not begun.
    """


ActionHandler: TypeAlias = Callable[[EndpointAction], Awaitable[str]]
"""Applies an action; returns the endpoint's ID. Raises `ActionRefusedError`."""


class EndpointActions:
    """Carries out the actions that the admin API offers. Each raises `ActionRefusedError` with a remedy."""

    def __init__(
        self, worker: str, stopper: GracefulStopper, weights: WeightRequests, traffic: Callable[[], ClusterView | None]
    ) -> None:
        """`traffic` returns the view that traffic follows; None before the first pass."""
        self._worker = worker
        self._stopper = stopper
        self._weights = weights
        self._traffic = traffic

    def verbs(self) -> Mapping[str, ActionHandler]:
        """The actions by name."""

        async def undrain(action: EndpointAction) -> str:
            return self._stopper.undrain(action.name)

        async def drain(called: str, act: Callable[..., Awaitable[str]], action: EndpointAction) -> str:
            self._refuse_last(called, action)
            return await act(action.name, each_pass=action.each_pass)

        async def weight(action: EndpointAction) -> str:
            if action.weight == 0:
                self._refuse_last("weight", action)
            endpoint = self._stopper.find(action.name)
            self._weights.ask(endpoint, action.weight)
            return endpoint

        return {
            "drain": partial(drain, "drain", self._stopper.drain),
            "maintenance": partial(drain, "maintenance", self._stopper.maintain),
            "undrain": undrain,
            "stop": partial(drain, "stop", self._stopper.stop),
            "weight": weight,
        }

    def _refuse_last(self, called: str, action: EndpointAction) -> None:
        """Raise `ActionRefusedError` if a service would lose its last serving endpoint."""
        endpoint = self._stopper.find(action.name)
        view = self._traffic()
        if action.force or view is None:
            return
        going = {(self._worker, endpoint), *map(self._known, action.together)}
        service = service_left_empty(view, going)
        if service is None:
            return
        argument = " 0" if called == "weight" else ""
        raise ActionRefusedError(
            Code.LAST_SERVING_ENDPOINT,
            f"no other endpoint of {service} serves; let another one serve first, or type "
            f"`vipmesh {called} {action.name}{argument} --force`",
        )

    def _known(self, key: EndpointKey) -> EndpointKey:
        """Return the key of an endpoint that a client named; own ones may be named by their container."""
        worker, name = key
        if worker != self._worker:
            return key
        try:
            return worker, self._stopper.find(name)
        except ActionRefusedError:
            return key
