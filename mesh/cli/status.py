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
            print(json.dumps(json.loads(Daemon(options).ask("/v1/status")), indent=2))
        else:
            print(Daemon(options).ask("/v1/status", accept="text/plain"), end="")
    except NoAnswerError as error:
        return failed(options, str(error))
    return 0


def explain(options: argparse.Namespace) -> int:
    """The way of a request. Exit status 1: it leads nowhere, or no daemon answers."""
    import msgspec

    from mesh.api.explain.document import Explanation, render

    try:
        body = Daemon(options).ask(f"/v1/explain?of={quote(options.asked, safe='')}")
    except NoAnswerError as error:
        return failed(options, str(error))
    explanation = msgspec.json.decode(body, type=Explanation)
    print(json.dumps(json.loads(body), indent=2) if options.json else render(explanation))
    return 0 if explanation.works else 1
