"""Carries out what operators ask of rollouts: promote, pause, resume, abort, undo."""

from functools import partial

from mesh.cluster.records.encode import build_view
from mesh.cluster.share_actions import ShareActions, find_service
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.release_rollout import ReleaseRollout
from mesh.platform.rollouts.rollout_sight import release_rules
from mesh.platform.rollouts.rollout_steps import RolloutWish, RolloutWishError, ask
from mesh.platform.rollouts.rollout_writes import rollout_shares, write_rollout
from mesh.store import StoreError
from mesh.util.offload import compute

_ATTEMPTS = 5
"""How often it is tried because a step was taken at the same time."""


class RolloutActions(ShareActions):
    """Changes the record of a rollout, whichever daemon acts, and shares. Every method raises `ActionRefusedError`."""

    async def wish(self, service: str, wish: RolloutWish, by: str) -> ReleaseRollout:
        """Do this to the rollout of a service; return how far it is now. `by` says who asks, in words.

        `service` is its owner, the second part of it if that is unique, or a routing name.
        """
        try:
            for _ in range(_ATTEMPTS):
                records = (await self._store.read()).records
                view, _ = await compute(len(records), partial(build_view, records))
                owner = service if service in view.rollouts else find_service(view, service).owner
                rollout = view.rollouts.get(owner)
                if rollout is None:
                    raise _refused(f"{owner} has no rollout; see `vipmesh rollout status`, and docs/howto/rollouts.md")
                rules = release_rules(view, owner)
                after = ask(rollout, wish, by, {name: each for name, each in rules.items() if each is not None})
                shares = rollout_shares(after, rules)
                if await write_rollout(self._store, owner, records, after, shares):
                    return after
        except RolloutWishError as error:
            raise _refused(str(error)) from error
        except StoreError as error:
            raise ActionRefusedError(error.code, str(error)) from error
        raise _refused(f"the rollout of {service[:80]!r} keeps changing; try again")


def _refused(text: str) -> ActionRefusedError:
    return ActionRefusedError(Code.ROLLOUT_REFUSED, text)
