"""What an endpoint weighs. Pure."""


def effective_weight(label: int, asked: int | None) -> int:
    """Return the weight that counts, before shares of releases.

    `asked` is the weight that an operator requested in place of the label's, or None.
    """
    return label if asked is None else asked
