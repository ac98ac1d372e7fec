"""The limit of open files of this process.

A worker with many endpoints has a thousand checks under way at a time, and a proxy has two sockets for each connection.
The usual soft limit of 1024 protects programs that use select(2); this program does not.
"""

import resource

_ENOUGH = 1 << 16
"""The limit of open files that this process asks for at most."""


def raise_file_limit() -> int:
    """Raise the soft limit up to the hard one, at most to 65536; returns the limit in force now (getrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
