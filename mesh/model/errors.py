"""The errors that users meet: each carries the code of its message.

The command line imports this before it knows anything else, so it imports next to nothing; `mesh.model.codes` is
needed only where an error is raised.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from mesh.model.codes import Code

E = TypeVar("E", bound=BaseException)


class CodedText(NamedTuple):
    """A message and its code. `str()` gives the message alone."""

    text: str
    code: "Code"

    def __str__(self) -> str:
        return self.text

    @property
    def line(self) -> str:
        """The message as users see it, with the code at its end."""
        return f"{self.text} [{self.code}]"


class MeshError(Exception):
    """An error that users meet. `str()` gives its message, which ends with the remedy."""

    def __init__(self, code: "Code", message: str) -> None:
        super().__init__(message)
        self.code = code
        self.lines: tuple[CodedText, ...] = (CodedText(message, code),)
        """What the command line prints: one entry for each thing that is wrong."""

    @property
    def coded(self) -> CodedText:
        """The whole message and its code, for whoever keeps them."""
        return CodedText(str(self), self.code)


class SettingsError(MeshError):
    """The settings cannot be used."""

    def __init__(self, problems: Sequence[CodedText]) -> None:
        """`problems`: at least one; each says where it is, what is wrong and what to write instead."""
        super().__init__(problems[0].code, "\n".join(problem.text for problem in problems))
        self.lines = self.problems = tuple(problems)


def leaf_exceptions(group: BaseExceptionGroup[E]) -> Iterator[E]:
    """The exceptions of a group and of the groups in it, without the groups themselves."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaf_exceptions(error)
        else:
            yield error


class ActionRefusedError(MeshError):
    """A verb cannot be carried out: what, why and what to do."""
