"""`vipmesh status` and `vipmesh explain`: print documents of a running daemon."""

import argparse
import json
from urllib.parse import quote

from mesh.cli.client import AdminClient, DaemonUnreachableError, path_of
from mesh.cli.output import printable, report_failure


def status(options: argparse.Namespace) -> int:
    """Run `vipmesh status`. Exit status 1 if no daemon answers."""
    try:
        path = path_of(options, "status")
        if options.json:
            print(json.dumps(json.loads(AdminClient(options).ask(path).body), indent=2))
        else:
            print(printable(AdminClient(options).ask(path, accept="text/plain").body), end="")
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    return 0


def explain(options: argparse.Namespace) -> int:
    """Run `vipmesh explain`. Exit status 1 if the request reaches no endpoint, or if no daemon answers."""
    path = f"{path_of(options, 'explain')}?of={quote(options.asked, safe='')}"
    try:
        reply = AdminClient(options).ask(path, accept="application/json" if options.json else "text/plain")
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    works = reply.headers.get("Vipmesh-Works")
    if works is None:
        return _of_earlier_daemon(options, reply.body)
    print(json.dumps(json.loads(reply.body), indent=2) if options.json else printable(reply.body.rstrip("\n")))
    return 0 if works == "true" else 1


def _of_earlier_daemon(options: argparse.Namespace, body: str) -> int:
    """Print the explanation of a daemon of an earlier version, as during an upgrade: it sends JSON only.

    The text has no codes, since the JSON form has none.
    """
    import msgspec

    from mesh.api.explain.document import Explanation, render_explanation
    from mesh.model.problem import Notices

    explanation = msgspec.json.decode(body, type=Explanation)
    if options.json:
        print(json.dumps(json.loads(body), indent=2))
    else:
        print(printable(render_explanation(explanation, Notices())))
        for title, lines in (("frozen", explanation.frozen), ("the data plane refused", explanation.failures)):
            if lines:
                print(f"\n{title}:", *(f"  {printable(line)}" for line in lines), sep="\n")
    return 0 if explanation.works else 1
