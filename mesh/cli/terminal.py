"""What standard output is: a terminal with a width and colours, or something else, which gets plain lines."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mesh.cli.status_view import Line

_STYLES = {"error": "bold red", "warning": "yellow", "good": "green", "head": "bold", "quiet": "dim"}


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
    from rich.style import Style

    console = Console(highlight=False)
    system = console.color_system
    if system is None or console.no_color:
        return OutputTerminal(console.width, {}, cell_len)
    from rich.color import ColorSystem

    kind = ColorSystem[{"256": "EIGHT_BIT"}.get(system, system.upper())]
    rendered = {name: Style.parse(style).render("\0", color_system=kind) for name, style in _STYLES.items()}
    colours = {name: (begin, end) for name, text in rendered.items() for begin, _, end in (text.partition("\0"),)}
    return OutputTerminal(console.width, colours, cell_len)
