"""Takes secrets out of texts that leave the host. Pure.

A known secret is taken out wherever it appears. What looks like a secret is taken out, too, since labels and answers of
programs may hold some that nobody knows of.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

WITHHELD = "[withheld]"
"""The text that replaces a secret."""
_LEAST = 4
"""The fewest characters of a known secret: a shorter one would take half of a text along."""
_LEAST_WORD = 6
"""The fewest characters of a word of a label that counts as a secret by itself."""
_SHOWN = 60
"""Characters of a label's value that messages show (`mesh.config.labels.values`)."""
_SECRET_LABEL = re.compile(r"(?:mesh|aliyun)\.probe\.(?:header\.|cmd$|send$|expect_body$)")
"""Labels whose values may be secrets."""
_SECRET_KEY = re.compile(
    r".*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|authorization|cookie|credential)(?!.*_file$).*",
    re.IGNORECASE,
)
"""Names of members of JSON objects whose values are secrets, unless they name a file."""
_PATTERNS = (
    # The user and the password of a URL, and its query.
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@", re.IGNORECASE), rf"\1{WITHHELD}@"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?\"'<>]*\?)[^\s\"'<>]+", re.IGNORECASE), rf"\1{WITHHELD}"),
    (re.compile(r"\b(bearer|basic|digest)\s+(?!\[)[A-Za-z0-9+/=._~-]{6,}", re.IGNORECASE), rf"\1 {WITHHELD}"),
    (
        re.compile(
            r"([\w-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|authorization|cookie|credential)[\w-]*)"
            r"(\\?[\"']?\s*[:=]\s*\\?[\"']?)(?!\[withheld)[^\s\"',;\\\]})]+",
            re.IGNORECASE,
        ),
        rf"\1\2{WITHHELD}",
    ),
    (re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|\Z)", re.DOTALL), WITHHELD),
)
# The rest of a line that quotes what somebody wrote into a label of a probe.
_PROBE_LABEL = re.compile(r'(probe\.(?:header\.[\w-]+|cmd|send|expect_body|url)\b[^"\n]{0,200}")[^\n]*"')


def redact(text: str, secrets: Collection[str]) -> str:
    """Return the text without secrets; `secrets` are those that are known."""
    known = sorted({secret for secret in secrets if len(secret) >= _LEAST}, key=len, reverse=True)
    if known:
        text = re.sub("|".join(map(re.escape, known)), WITHHELD, text)
    text = _PROBE_LABEL.sub(rf'\1{WITHHELD}"', text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_json(text: str, secrets: Collection[str]) -> str:
    """Return a JSON document without secrets, still a JSON document. Raises `ValueError` if it is none."""
    return json.dumps(_redact_value(json.loads(text), secrets), indent=1, ensure_ascii=False) + "\n"


def _redact_value(value: Any, secrets: Collection[str]) -> Any:
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, list):
        return [_redact_value(each, secrets) for each in value]
    if isinstance(value, dict):
        return {
            redact(key, secrets): WITHHELD
            if isinstance(each, str) and each and _SECRET_KEY.fullmatch(key)
            else _redact_value(each, secrets)
            for key, each in value.items()
        }
    return value


def label_secrets(labels: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """Return the values of labels that may be secrets, also as messages and JSON show them."""
    found = {value for each in labels for label, value in each.items() if _SECRET_LABEL.match(label)}
    return frozenset(part for value in found for part in _forms(value))


def _forms(value: str) -> Iterator[str]:
    """Yield a value as it may appear: whole, cut, escaped, and its words that look random."""
    escaped = value.encode("unicode_escape").decode()
    yield from (value, value[:_SHOWN], escaped, escaped[:_SHOWN], json.dumps(value)[1:-1])
    words = re.split(r"[\s'\"=:]+", value)
    yield from (word for word in words if len(word) >= _LEAST_WORD and re.search(r"\d", word) and "/" not in word)
