"""How much one compose file may be: whoever writes it must not choose how much memory and time the daemon spends."""

from dataclasses import dataclass

from mesh.config.settings import Settings


@dataclass(frozen=True, slots=True)
class ComposeLimits:
    """The bounds of one compose file."""

    file_bytes: int = 4 << 20
    """The most bytes of the file, and of the `.env` beside it."""
    values: int = 15_000
    """The most YAML values in it: keys, texts, lists, mappings and aliases."""
    problems: int = 1000
    """The most problems that are kept of it, errors before warnings; the rest is counted."""

    @property
    def entries(self) -> int:
        """The most entries that are read of it, with aliases and merge keys followed."""
        return 4 * self.values

    @property
    def characters(self) -> int:
        """The most characters of the texts that are read of it, with aliases and variables replaced."""
        return 2 * self.file_bytes


DEFAULT_LIMITS = ComposeLimits()
"""The bounds of the default settings."""


def compose_limits(settings: Settings) -> ComposeLimits:
    """Return the bounds that the settings ask for."""
    return ComposeLimits(
        settings.source_compose_file_bytes, settings.source_compose_values, settings.source_compose_problems
    )
