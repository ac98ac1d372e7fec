"""How far the rollout of a service is, as the store has it. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from mesh.model.release_shares import WHOLE, ReleaseShares, share_text

MAX_ROLLOUT_TEXT = 200
"""Characters of each text of a record."""


class RolloutPhase(StrEnum):
    """What a rollout does. The values are stable: programs may compare them."""

    START = "start"
    """The new release is there, with a share of 0."""
    WARM = "warm"
    """It waits until every instance of the new release serves."""
    STEP = "step"
    """The new release has the share of a step, and is judged."""
    HOLD = "hold"
    """A step waits for an operator."""
    CONFIRM = "confirm"
    """The new release has everything, and the old one drains."""
    DONE = "done"
    """The new release is the one in force."""
    ABORTED = "aborted"
    """The old release is the one in force, and the new one gets nothing."""


RUNNING_PHASES = frozenset({*RolloutPhase}) - {RolloutPhase.DONE, RolloutPhase.ABORTED}
"""The phases in which a release is judged."""


@dataclass(frozen=True, slots=True)
class ReleaseRollout:
    """The rollout of one service, or the last one; before the first, the release that is in force."""

    # 14 fields: all that another daemon needs to go on in the middle of a step.

    owner: str
    """The `Service.owner` that it is about."""
    new: str
    """The new release; empty for endpoints without one."""
    old: str | None = None
    """The release before; None if there was none yet."""
    phase: RolloutPhase = RolloutPhase.DONE
    step: int = 0
    """The index of its step."""
    steps: int = 0
    """The number of its steps."""
    points: int = 0
    """The share of the new release in hundredths of a per cent."""
    elapsed: float = 0.0
    """Seconds since the step or phase began, without pauses."""
    undecided: float = 0.0
    """Seconds of these for which the new release has been neither good nor bad at the end."""
    absent: float = 0.0
    """Seconds for which no instance of a release that it needs was seen, at the end."""
    is_paused: bool = False
    reason: str = ""
    """Why it is where it is: what the judge saw, or who asked for it."""
    actor: str = ""
    """The worker that wrote it last."""
    beat: int = 0
    """Another one after each write of the worker that acts, so that the others know that it does."""

    @property
    def is_running(self) -> bool:
        """Whether it goes on by itself or waits for an operator."""
        return self.phase in RUNNING_PHASES

    @property
    def current(self) -> str:
        """The release that is in force: the one that an abort goes back to, while it runs."""
        return self.new if self.phase is RolloutPhase.DONE or self.old is None else self.old

    @property
    def words(self) -> str:
        """What it does, in words."""
        paused = ", paused" if self.is_paused else ""
        match self.phase:
            case RolloutPhase.STEP | RolloutPhase.HOLD:
                held = ", which waits for promote" if self.phase is RolloutPhase.HOLD else ""
                return f"step {self.step + 1} of {self.steps}: {share_text(self.points)} for {self.new}{held}{paused}"
            case RolloutPhase.START | RolloutPhase.WARM:
                return f"waits until {self.new or 'the release without a name'} serves{paused}"
            case RolloutPhase.CONFIRM:
                return f"all for {self.new}, {self.old or 'the old release'} drains{paused}"
            case RolloutPhase.ABORTED:
                return f"{self.new} was aborted, all for {self.old}"
            case _:
                return f"{self.new} is in force"


def rollout_given(rollout: ReleaseRollout) -> Mapping[str, int]:
    """Return the shares that a rollout gives, in hundredths of a per cent; the other releases have the rest."""
    if rollout.phase in (RolloutPhase.CONFIRM, RolloutPhase.DONE):
        return {rollout.new: WHOLE}
    if rollout.phase in (RolloutPhase.STEP, RolloutPhase.HOLD):
        return {rollout.new: rollout.points}
    return {rollout.new: 0}


def guarded_shares(
    rollout: ReleaseRollout | None, shares: ReleaseShares | None, releases: Collection[str]
) -> ReleaseShares | None:
    """Return the shares that count for a service with endpoints of these releases.

    A release that its rollout does not know yet gets nothing, so that no release has more than its step even before the
    first pass of the daemon that acts. Without a rollout, the shares count as they are.
    """
    if rollout is None or rollout.current not in releases:
        return shares
    known = {rollout.new, rollout.old, *(shares.given if shares is not None else ())}
    held = sorted(set(releases) - known)
    if not held:
        return shares
    in_force = shares is not None and shares.are_in_force(releases)
    given = dict(shares.given) if shares is not None and in_force else {}
    return ReleaseShares(
        rollout.owner,
        {**given, **dict.fromkeys(held, 0)},
        tuple(sorted(releases)),
        "the rollout, which has not begun with every release yet",
    )
