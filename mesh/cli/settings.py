"""Loads the settings of the command line: from the given file or the default one, and the environment."""

import os
import socket
from dataclasses import fields
from pathlib import Path

from mesh.config.settings import Settings, environment_variable, parse_settings
from mesh.model.errors import CodedText, SettingsError
from mesh.util.regular_file import read_regular_file

DEFAULT_FILE = Path("/etc/vipmesh.toml")
"""The settings file that is read if it exists and none is given."""


def load_settings(path: Path | None) -> Settings:
    """Return the settings of a file, None for the default one. Raises `SettingsError`.

    If the password is from the file, they are `SettingsWithPassword`, so that its mode can be checked.
    """
    file = path or DEFAULT_FILE
    try:
        text = read_regular_file(file).decode() if path is not None or file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        from mesh.model.codes import Code

        problem = CodedText(f"{file}: cannot be read: {error}; name a TOML file with -c", Code.SETTINGS_FILE_UNUSABLE)
        raise SettingsError([problem]) from error
    known = parse_settings(text, os.environ, hostname=socket.gethostname(), file=str(file))
    if known.store_password is None or environment_variable("store.password") in os.environ:
        return known
    from mesh.config.secrets import SettingsWithPassword

    return SettingsWithPassword(**{each.name: getattr(known, each.name) for each in fields(known)}, file=file)
