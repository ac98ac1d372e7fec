"""Answers `POST /v1/rollouts/share` and the verbs of rollouts beside it, which leave two audit lines each."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

import msgspec
from aiohttp import web

from mesh.api.http.actions import ActionsHandler
from mesh.api.http.auth import describe_client, quote_untrusted, refusal_response
from mesh.api.http.connections import read_body
from mesh.model.release_rollout import ReleaseRollout
from mesh.model.release_shares import MAX_SHARED_RELEASES, ReleaseShares
from mesh.platform.rollouts.rollout_steps import RolloutWish

_EXAMPLE = '{"service": "...", "shares": {"v2": 10}}'


class ReleaseShareService(Protocol):
    """Gives shares to releases. Its refusals are `ActionRefusedError`."""

    async def give(self, service: str, given: Mapping[str, int], by: str) -> ReleaseShares:
        """Give the releases of a service these shares, in hundredths of a per cent; return them."""
        ...

    async def reset(self, service: str) -> ReleaseShares:
        """Take all shares of a service back; return what is left."""
        ...

    async def wish(self, service: str, wish: RolloutWish, by: str) -> ReleaseRollout:
        """Do this to the rollout of a service; return how far it is."""
        ...


class _RolloutRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service: str


class _SharesRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service: str
    shares: dict[str, int | float] | None


class ReleaseSharesHandler:
    """Answers the requests to give shares, and to take them back."""

    def __init__(self, service: ReleaseShareService | None, actions: ActionsHandler) -> None:
        """`service` is None on a worker that offers none: every request is refused."""
        self._service = service
        self._actions = actions

    async def post(self, request: web.Request) -> web.Response:
        """Give the service that the body names the shares that it has, or take them back."""
        if (service := self._service) is None:
            return refusal_response(409, "this worker gives no shares; ask a daemon that `vipmesh run` started")
        try:
            asked = msgspec.json.decode(await read_body(request), type=_SharesRequest)
            given = None if asked.shares is None else points_of(asked.shares)
        except (ValueError, RecursionError) as error:
            return self._actions.refuse("rollout share", request, error, _EXAMPLE)
        who = describe_client(request)

        async def act() -> tuple[web.Response, str]:
            now = await (service.reset(asked.service) if given is None else service.give(asked.service, given, who))
            given_now = {release: points / 100 for release, points in now.given.items()}
            return web.json_response({"service": now.owner, "shares": given_now}), quote_untrusted(now.owner)

        words = (
            "reset" if asked.shares is None else ", ".join(f"{name}={part:g}" for name, part in asked.shares.items())
        )
        what = f"rollout share {quote_untrusted(asked.service)} {quote_untrusted(words)} by {who}"
        return await self._actions.carry_out(what, act)

    async def wish(self, wish: RolloutWish, request: web.Request) -> web.Response:
        """Do this to the rollout of the service that the body names."""
        if (service := self._service) is None:
            return refusal_response(409, "this worker knows no rollouts; ask a daemon that `vipmesh run` started")
        try:
            asked = msgspec.json.decode(await read_body(request), type=_RolloutRequest)
        except (ValueError, RecursionError) as error:
            return self._actions.refuse(f"rollout {wish}", request, error, '{"service": "..."}')
        who = describe_client(request)

        async def act() -> tuple[web.Response, str]:
            now = await service.wish(asked.service, wish, who)
            answer = {"service": now.owner, "phase": now.phase, "state": now.words, "reason": now.reason}
            return web.json_response(answer), quote_untrusted(now.owner)

        return await self._actions.carry_out(f"rollout {wish} {quote_untrusted(asked.service)} by {who}", act)


def points_of(shares: Mapping[str, int | float]) -> Mapping[str, int]:
    """Return shares in per cent as hundredths of a per cent. Raises ValueError."""
    if len(shares) > MAX_SHARED_RELEASES:
        raise ValueError(f"more than {MAX_SHARED_RELEASES} releases")
    found = {}
    for release, percent in shares.items():
        if not 0 <= percent <= 100:
            raise ValueError("a share is a number from 0 to 100")
        points = Decimal(str(percent)) * 100
        if points != int(points):
            raise ValueError("a share has two decimals at most")
        found[release] = int(points)
    return found
