"""How many files this process may have open.

A worker with many endpoints has a thousand checks under way at a time, and a proxy two sockets for each connection; the
usual soft limit of 1024 is there for programs that use select(2), of which this is none.
"""

import resource

_ENOUGH = 1 << 16


def raise_file_limit() -> int:
    """Raise the soft limit as far as the hard one goes, at most to 65536; the limit that holds now. getrlimit(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
