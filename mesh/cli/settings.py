"""The settings of the command line: the file that it names, or the usual one, and the environment."""

import os
import socket
from pathlib import Path

from mesh.config.errors import SettingsError
from mesh.config.settings import Settings, load

DEFAULT_FILE = Path("/etc/vipmesh.toml")


def settings(path: Path | None) -> Settings:
    """Raises `SettingsError`."""
    file = path or DEFAULT_FILE
    try:
        text = file.read_text() if path is not None or file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError((f"{file}: cannot be read: {error}; name a TOML file with -c",)) from error
    return load(text, os.environ, hostname=socket.gethostname(), file=str(file))
