"""Writes docs/compose.md from the table of the keys.

python -m tests.docs.compose_keys
"""

from collections.abc import Iterator

from mesh.sources.compose.keys import COMPOSE_KEYS, KeyUse
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "compose.md"

_INTRODUCTION = """# Compose files

vipmesh reads compose files in three places: `vipmesh check` reports their mistakes, `vipmesh deploy` runs their
services on all workers, and the source `[source.compose]` takes instances from their `x-endpoints`. All use one
reader, which follows the [compose specification](https://github.com/compose-spec/compose-spec). This page is generated
from its table.

## Several files
The files that are named together are one project, in `vipmesh check a.yaml b.yaml` as in `[source.compose] files`:

- Mappings are merged key by key, lists are appended, other values are replaced. `command`, `entrypoint` and
  `healthcheck.test` are replaced as a whole, and so is `x-endpoints`.
- Entries of `ports`, `volumes`, `secrets`, `configs` and `devices` that mean the same resource replace one another.
- `!reset` removes what earlier files have, `!override` replaces it.
- Several documents in one file are merged in their order. An empty one, such as after a last `---`, is nothing.
- The project is the last `name:`, or the first file's directory. Relative paths begin in that directory.
- A service with `profiles` takes part if one of them is in the variable `COMPOSE_PROFILES`; `check` looks at its
  labels all the same.

`extends` and `include` are followed to files of this host, up to 500 of them, and `label_file` too; `check` also reads
each `env_file`. Each has the bounds of a compose file, and all that are named have 4 times as many bytes
([limits](limits.md#compose-files)). A service whose reference cannot be followed is refused alone: a running daemon
keeps its last instances, and the others go on. A file that compose refuses as a whole keeps the whole last list in
force. Changes of a file that is named are seen as changes of the file itself.

## Variables
Values come from the environment, and below it from the file `.env` in the directory of the first file.

| written | value |
|---|---|
| `$V`, `${V}` | the value of V, or empty with a warning |
| `${V:-x}`, `${V-x}` | x if V is unset or empty; only if it is unset |
| `${V:+x}`, `${V+x}` | x if V is set and not empty; if it is set |
| `${V:?message}`, `${V?message}` | an error if V is unset or empty; only if it is unset |
| `$$` | a dollar sign; so is a `$` that no name and no brace follows |

x may have variables. Lines of `.env` and `label_file` are `NAME=VALUE`, `NAME: VALUE` or `export NAME=VALUE`. Values
in `"` have `\\n`, `\\t` and the like, values in `'` are taken as they are, and unquoted ones end before ` #`. Values
of these files are never shown.

## Keys
**read**: vipmesh acts on the key itself, wherever the containers come from. **engine**: the program that starts the
containers acts on it: `vipmesh deploy`, `docker compose` or you. **refused**: no service with several instances on
several workers can have it, and `vipmesh deploy` leaves that service as it is; a value that says nothing, such as
`false`, is no reason. **ignored**: it changes nothing there, and `vipmesh deploy` says so. vipmesh reports neither for
containers that `docker compose` runs. A key that is not in this table is reported, unless it begins with `x-`. A key
below one of the table is as the one above it.
"""
_USES = {KeyUse.READ: "read", KeyUse.ENGINE: "engine", KeyUse.REFUSED: "refused", KeyUse.IGNORED: "ignored"}


def page() -> str:
    """Return the page."""
    return "\n".join((_INTRODUCTION, *_table())) + "\n"


def _table() -> Iterator[str]:
    yield "| key | | what becomes of it |"
    yield "|---|---|---|"
    for key in COMPOSE_KEYS:
        remedy = f"; {key.remedy}" if key.remedy else ""
        name = key.path.removeprefix("services.*.") if key.path.startswith("services.*.") else f"{key.path} (top level)"
        shown, _, place = name.partition(" ")
        yield f"| `{shown}`{' ' + place if place else ''} | {_USES[key.use]} | {key.becomes}{remedy} |"


if __name__ == "__main__":
    PAGE.write_text(page())
