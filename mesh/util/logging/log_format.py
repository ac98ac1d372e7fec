"""The format of log lines, as the settings name it. Apart from what formats them, which takes longer to import."""

from enum import StrEnum


class LogFormat(StrEnum):
    """The format of log lines."""

    TEXT = "text"
    LOGFMT = "logfmt"
    JSON = "json"
