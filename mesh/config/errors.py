"""Errors that the command line must know before it knows anything else: this imports nothing."""


class SettingsError(Exception):
    """The settings cannot be used. `problems` has one line for each: where, what, and what to write instead."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
