"""The role that one worker needs in etcd, as the lines that grant it. Pure.

etcd grants rights by key and prefix alone. A worker reads everything, writes its own leased records, and writes all
claims: any worker must be able to claim for its services, and etcd cannot tell which claims are theirs. `origin` is
written once in the life of a store, by the worker that finds it new.

Source: etcd's documentation of role-based access control, and `etcdctl role grant-permission --help`.
"""

import shlex
from collections.abc import Sequence

from mesh.config.etcd_url import rollouts_prefix, usage_prefix


def role_lines(
    prefix: str,
    name: str,
    own: Sequence[str],
    shared: Sequence[str],
    *,
    usage: Sequence[str] = (),
    evidence: Sequence[str] = (),
) -> tuple[str, ...]:
    """The commands that add a role and a user for one worker, each a line for a shell.

    `prefix` is that of all keys, `/vipmesh/`. Below it are `own`, the prefixes of the worker's records, and `shared`,
    those that all workers write; they end with a slash, or are whole keys. `name` is that of the role and of the user.
    `usage` are the keys of the worker's usage, which are below the prefix of usage, and `evidence` those of its
    evidence, which are below that of rollouts.
    """
    keys_beside = ((usage_prefix(prefix), usage), (rollouts_prefix(prefix), evidence))
    grant = ["role", "grant-permission", name]
    commands = [
        ["role", "add", name],
        [*grant, "--prefix=true", "read", prefix],
        *([*grant, *_scope(part), "readwrite", prefix + part] for part in (*own, *shared)),
        *(
            line
            for beside, keys in keys_beside
            if keys
            for line in ([*grant, "--prefix=true", "read", beside], *([*grant, "readwrite", beside + k] for k in keys))
        ),
        ["user", "add", name],
        ["user", "grant-role", name, name],
    ]
    return tuple(shlex.join(["etcdctl", *command]) for command in commands)


def removal_lines(name: str) -> tuple[str, ...]:
    """The commands that take a user and its role away, each a line for a shell. etcd refuses the user at once."""
    return tuple(shlex.join(["etcdctl", kind, "delete", name]) for kind in ("user", "role"))


def role_name(prefix: str, worker: str) -> str:
    """The name of the role and of the user of a worker; `prefix` is that of all keys."""
    return f"{prefix.strip('/').replace('/', '-')}-{worker}"


def _scope(part: str) -> list[str]:
    return ["--prefix=true"] if part.endswith("/") else []
