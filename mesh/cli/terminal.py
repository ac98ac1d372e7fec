"""What standard output is: a terminal with a width and colours, or something else, which gets plain lines."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mesh.cli.status_view import Line

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"error": "bold red", "warning": "yellow", "good": "green", "head": "bold", "quiet": "dim"}
_INSTANCE_STYLES = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")


@dataclass(frozen=True, slots=True)
class OutputTerminal:
    """The width and the colours of standard output."""

    width: int | None = None
    """Its columns; None if it is no terminal."""
    colours: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What begins and ends each style; empty without colours."""
    measure: Callable[[str], int] = len
    """Returns how many columns a text takes."""

    def print(self, lines: Iterable[Line]) -> None:
        """Print lines, each word in the colour of its style."""
        none, colours = ("", ""), self.colours
        parts: list[str] = []
        for line in lines:
            if colours:
                for text, style in line:
                    begin, end = colours.get(style, none)
                    parts += (begin, text, end) if text.strip() else (text,)
            else:
                parts += (text for text, _ in line)
            parts.append("\n")
        sys.stdout.write("".join(parts))


def output_terminal() -> OutputTerminal:
    """Return what standard output is. NO_COLOR, TERM and COLUMNS count, as `rich` reads them."""
    if not sys.stdout.isatty():
        return OutputTerminal()
    # Imported on terminals only: it takes as long as everything else that a status needs.
    from rich.cells import cell_len
    from rich.console import Console

    console = Console(highlight=False)
    colours = dict(zip(_STYLES, _rendered(console, list(_STYLES.values())), strict=False))
    return OutputTerminal(console.width, colours, cell_len)


def instance_colours() -> Sequence[tuple[str, str]]:
    """Return what begins and ends each colour that tells instances apart; empty without colours."""
    if not sys.stdout.isatty():
        return ()
    from rich.console import Console

    return _rendered(Console(highlight=False), _INSTANCE_STYLES)


def _rendered(console: "Console", styles: Sequence[str]) -> Sequence[tuple[str, str]]:
    """Return what begins and ends each style; empty on a console without colours."""
    system = console.color_system
    if system is None or console.no_color:
        return ()
    from rich.color import ColorSystem
    from rich.style import Style

    kind = ColorSystem[{"256": "EIGHT_BIT"}.get(system, system.upper())]
    rendered = [Style.parse(style).render("\0", color_system=kind) for style in styles]
    return [(begin, end) for text in rendered for begin, _, end in (text.partition("\0"),)]
