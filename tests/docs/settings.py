"""Writes the table of docs/settings.md from the settings themselves.

python -m tests.docs.settings
"""

import re

from mesh.config.settings import SETTINGS, Setting, environment_variable
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "settings.md"

_HEAD = "| setting | environment | default | meaning |\n|---|---|---|---|\n"


def page() -> str:
    """`docs/settings.md` as it must be: its text, with the table that the settings make."""
    rows = "".join(_row(key, setting) for key, setting in SETTINGS.items())
    table = re.compile(rf"^{re.escape(_HEAD)}(\|.*\n)*", re.MULTILINE)
    text, found = table.subn(lambda _: _HEAD + rows, PAGE.read_text())
    if found != 1:
        raise ValueError(f"{PAGE} has {found} tables with the head {_HEAD!r}; it needs one")
    return text


def _row(key: str, setting: Setting) -> str:
    section, _, name = key.rpartition(".")
    default = setting.unset if setting.default in (None, ()) else f"`{setting.default}`"
    return f"| `[{section}] {name}` | `{environment_variable(key)}` | {default} | {setting.meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
