"""What an endpoint weighs. Pure."""

from mesh.model.validation import MAX_WEIGHT


def effective_weight(label: int, asked: int | None, share: float = 1.0) -> int:
    """Return the weight that is programmed.

    `asked` is the weight that an operator requested in place of the label's, or None. `share` multiplies either of
    them, from 0 to 1. An endpoint keeps weight 1 however small its share: only a weight or a share of 0 takes it out of
    traffic.
    """
    weight = label if asked is None else asked
    if weight <= 0 or share <= 0:
        return 0
    return min(MAX_WEIGHT, max(1, round(weight * share)))
