"""The bounds of rollouts, and what counts where labels say nothing (`mesh.model.service.ReleaseRules`)."""

from mesh.model.release_shares import WHOLE
from mesh.model.service import ReleaseStep, ReleaseStrategy

MAX_STEPS = 20
"""The most steps of a rollout."""
MAX_STEP_SECONDS = 7 * 86_400
"""The longest time of one step in seconds."""
DEADLINE = 3600
"""Seconds for which a new release may be neither good nor bad in one step, unless a label says otherwise."""


DEFAULT_STEPS = {
    ReleaseStrategy.CANARY: (ReleaseStep(WHOLE // 10, is_held=True),),
    ReleaseStrategy.PROGRESSIVE: (
        ReleaseStep(WHOLE // 100, 300),
        ReleaseStep(WHOLE // 10, 600),
        ReleaseStep(WHOLE // 2, 600),
    ),
    ReleaseStrategy.BLUE_GREEN: (ReleaseStep(0, is_held=True),),
}
"""The steps of each strategy unless a label names others."""
