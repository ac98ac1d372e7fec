"""`vipmesh status` and `vipmesh explain`: what a running daemon says of itself."""

import argparse
import json
from urllib.parse import quote

from mesh.cli.client import Daemon, NoAnswerError
from mesh.cli.output import failed


def status(options: argparse.Namespace) -> int:
    """All that the daemon does. Exit status 1: no daemon answers."""
    try:
        if options.json:
            print(json.dumps(json.loads(Daemon(options).ask("/v1/status").body), indent=2))
        else:
            print(Daemon(options).ask("/v1/status", accept="text/plain").body, end="")
    except NoAnswerError as error:
        return failed(options, error.lines)
    return 0


def explain(options: argparse.Namespace) -> int:
    """The way of a request. Exit status 1: it leads nowhere, or no daemon answers."""
    path = f"/v1/explain?of={quote(options.asked, safe='')}"
    try:
        reply = Daemon(options).ask(path, accept="application/json" if options.json else "text/plain")
    except NoAnswerError as error:
        return failed(options, error.lines)
    works = reply.headers.get("Vipmesh-Works")
    if works is None:
        return _of_earlier_daemon(options, reply.body)
    print(json.dumps(json.loads(reply.body), indent=2) if options.json else reply.body.rstrip("\n"))
    return 0 if works == "true" else 1


def _of_earlier_daemon(options: argparse.Namespace, body: str) -> int:
    """Print the explanation of a daemon that runs an earlier version, as during an upgrade: it sends JSON alone.

    Its text has no codes, since the JSON form has none.
    """
    import msgspec

    from mesh.api.explain.document import Explanation, render
    from mesh.model.problem import Notices

    explanation = msgspec.json.decode(body, type=Explanation)
    if options.json:
        print(json.dumps(json.loads(body), indent=2))
    else:
        print(render(explanation, Notices()))
        for title, lines in (("frozen", explanation.frozen), ("the data plane refused", explanation.failures)):
            if lines:
                print(f"\n{title}:", *(f"  {line}" for line in lines), sep="\n")
    return 0 if explanation.works else 1
