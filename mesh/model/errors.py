"""Errors that users see. Each carries the code of its message.

The command line imports this module before all others, so it imports next to nothing; `mesh.model.codes` is needed only
where an error is raised.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from mesh.model.codes import Code

E = TypeVar("E", bound=BaseException)


class CodedText(NamedTuple):
    """A message and its code. `str()` returns the message alone."""

    text: str
    code: "Code"

    def __str__(self) -> str:
        return self.text

    @property
    def line(self) -> str:
        """The message as users see it, followed by its code."""
        return f"{self.text} [{self.code}]"


class MeshError(Exception):
    """An error that users see. `str()` returns its message, which ends with the remedy."""

    def __init__(self, code: "Code", message: str) -> None:
        super().__init__(message)
        self.code = code
        self.lines: tuple[CodedText, ...] = (CodedText(message, code),)
        """The messages that the command line prints, one for each thing that is wrong."""

    @property
    def coded(self) -> CodedText:
        """The whole message and its code, for callers that store them."""
        return CodedText(str(self), self.code)


class SettingsError(MeshError):
    """The settings cannot be used."""

    def __init__(self, problems: Sequence[CodedText]) -> None:
        """`problems`: at least one; each says where the setting is, what is wrong and what to write instead."""
        super().__init__(problems[0].code, "\n".join(problem.text for problem in problems))
        self.lines = self.problems = tuple(problems)


def leaf_exceptions(group: BaseExceptionGroup[E]) -> Iterator[E]:
    """Yield the exceptions of a group and of its nested groups, without the groups themselves."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaf_exceptions(error)
        else:
            yield error


class ActionRefusedError(MeshError):
    """An operator's action (drain, stop, ...) cannot be carried out. The message says which, why and what to do."""
