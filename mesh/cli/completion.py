"""`vipmesh completion SHELL`: prints a static script that completes verbs, options, files and names.

For the names of services, endpoints and workers the script runs itself with `--names KIND... : WORD...`, which asks
the running daemon. Without one that answers quickly it prints nothing: a shell must not wait, nor show errors.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_DEADLINE = 1.0
"""Seconds that the daemon has to answer: a person waits for the next letter."""
_MOST = 5000
"""The most names that a shell is given."""
# A shell may expand what it is given as words, so nothing of its syntax may be in a name.
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,252}")
_OPTIONS = {
    "-c": "config",
    "--config": "config",
    "--admin": "admin",
    "--context": "context",
    "--token-file": "token_file",
    "--ca": "ca",
    "--cert": "cert",
    "--key": "key",
}
"""The options on the line that say which daemon to ask, with their attributes."""
_KINDS = {
    "status": ("services", "endpoints", "workers"),
    "explain": ("services", "endpoints"),
    "events": ("services", "endpoints", "workers"),
    "logs": ("services",),
    "test": ("services",),
    "drain": ("endpoints",),
    "maintenance": ("endpoints",),
    "undrain": ("endpoints",),
    "stop": ("endpoints",),
    "weight": ("endpoints",),
    "ps": ("services",),
    "rebalance": ("services",),
    "autoscaling": ("services",),
    "rollout": ("services",),
    "claims": ("services",),
    "roles": ("workers",),
    "workers remove": ("workers",),
    "cluster certs": ("workers",),
    "cluster revoke": ("workers",),
}
"""The kinds of names that the positional arguments of a verb take."""
_OTHERS = frozenset({"weight", "action", "shares"})
"""Positional arguments of these verbs that are no names."""


def completion(options: argparse.Namespace) -> int:
    """Run `vipmesh completion`: print the script, or names. Exit status 0."""
    if options.names is not None:
        for name in _names(options.names):
            print(name)
        return 0
    import shtab

    from mesh.cli.parser import build_parser

    whole = build_parser()
    _mark(whole)
    print(shtab.complete(whole, options.shell))
    return 0


def names_in(status: Mapping[str, Any], kinds: Sequence[str]) -> list[str]:
    """Return the names of these kinds in a status document, sorted, without any that a shell could take for syntax."""
    names: dict[str, Callable[[], Iterator[Any]]] = {
        "services": lambda: (name for service in status["services"] for name in (service["name"], *service["names"])),
        "endpoints": lambda: (
            each["name"] or each["id"] for service in status["services"] for each in service["endpoints"]
        ),
        "workers": lambda: (worker["name"] for worker in status["workers"]),
    }
    found = {str(name) for kind in kinds if kind in names for name in names[kind]()}
    return sorted(name for name in found if _SAFE.fullmatch(name))[:_MOST]


def _names(words: Sequence[str]) -> list[str]:
    """Return the names of the kinds before `:`, from the daemon that the words behind it name; empty without one."""
    from mesh.cli.client import AdminClient
    from mesh.model.errors import MeshError, SettingsError

    kinds, _, line = " ".join(words).partition(" : ")
    try:
        daemon = AdminClient(_asked(line.split(" ")))
        document = json.loads(daemon.ask("/v1/status", timeout=_DEADLINE).body)
        if "workers" in kinds.split():
            # A status lacks workers without endpoints, and a daemon of an earlier version has no list of all.
            with suppress(MeshError, OSError, ValueError, LookupError, TypeError):
                document["workers"] += json.loads(daemon.ask("/v1/workers", timeout=_DEADLINE).body)["workers"]
        return names_in(document, kinds.split())
    except (MeshError, SettingsError, OSError, ValueError, LookupError, TypeError):
        return []


def _asked(line: Sequence[str]) -> argparse.Namespace:
    """Return the options on an unfinished line that say which daemon to ask."""
    found = argparse.Namespace()
    for word, following in zip(line, [*line[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if option in _OPTIONS and value:
            name = _OPTIONS[option]
            setattr(found, name, value if name in ("admin", "context") else Path(value))
    return found


def _mark(of: argparse.ArgumentParser, verb: str = "") -> None:
    """Mark the arguments that are files or names, also those of every verb."""
    import shtab

    for action in of._actions:  # noqa: SLF001 (argparse offers no other way)
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, parser in action.choices.items():
                _mark(parser, f"{verb} {name}".lstrip())
        elif "--worker" in action.option_strings:
            action.complete = _completer(("workers",))  # type: ignore[attr-defined]
        elif verb in _KINDS and not action.option_strings and action.choices is None and action.dest not in _OTHERS:
            action.complete = _completer(_KINDS[verb])  # type: ignore[attr-defined]


def _completer(kinds: Sequence[str]) -> Mapping[str, Any]:
    """Return what shtab puts into a script so that names of these kinds are completed, by shell."""
    function = f"_vipmesh_{'_'.join(kinds)}"
    bash, zsh, fish = (f"vipmesh completion {shell} --names {' '.join(kinds)} :" for shell in ("bash", "zsh", "fish"))
    return {
        "bash": function,
        "zsh": function,
        "fish": f"({function})",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W "$({bash} "${{COMP_WORDS[@]}}" 2>/dev/null)" -- "$1"\n}}',
            "zsh": f"{function}() {{\n  local -a found\n"
            f'  found=(${{(f)"$({zsh} "${{words[@]}}" 2>/dev/null)"}})\n  compadd -a found\n}}',
            "fish": f"function {function}\n  {fish} (commandline -opc) 2>/dev/null\nend",
        },
    }
