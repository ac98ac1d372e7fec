"""What other workers add to an explanation: a table of troubles that only the worker knows that has them."""

import json
from typing import Any

import pytest

from mesh.api.explain.document import Cause, EndpointStep, Explanation, Reason, ServiceTrace, render_explanation
from mesh.api.explain.elsewhere import PeerAnswer, add_answers, read_explanation
from mesh.model.codes import Code
from mesh.model.problem import Notices

UNKNOWN = Reason(Cause.UNKNOWN, "no name, VIP, service, endpoint or container of the mesh matches")
GONE = Reason(Cause.GONE, "web-1 on w1 is gone", None, "w1/web/1")
NOTHING = Explanation("web", "nothing", "w3", "nftables", why_not=(UNKNOWN,))
LOST = Explanation("web", "nothing", "w3", "nftables", why_not=(GONE,))
STEP = EndpointStep(
    "web/1",
    "web-1",
    "w1",
    "10.1.0.1",
    None,
    False,
    None,
    None,
    (Reason(Cause.PROBE_FAILED, "w1 reports it"),),
)
WAY = ServiceTrace("web.test", "shop/web", "10.112.0.7", (), (), (STEP,))
FAILING = Explanation("web", "name", "w3", "nftables", (WAY,))


def answer(worker: str = "w1", **document: Any) -> PeerAnswer:
    return read_explanation(worker, json.dumps({"kind": "nothing", **document}).encode())


def reason(cause: str, text: str, about: str | None = None) -> dict[str, str | None]:
    return {"cause": cause, "text": text, "remedy": None, "about": about}


def way(**changes: Any) -> dict[str, Any]:
    return {"owner": "shop/web", **changes}


def port(cause: str, text: str) -> dict[str, Any]:
    return {"published": True, "why_not": [reason(cause, text)]}


def its_endpoint(worker: str, *why_not: dict[str, str | None]) -> dict[str, Any]:
    return {"id": "web/1", "worker": worker, "serving": False, "why_not": why_not, "drained_by": "kim"}


@pytest.mark.parametrize(
    ("own", "told", "shown", "hidden"),
    [
        (NOTHING, answer(why_not=[reason("refused", "bad label")]), "web: worker w1: bad label", "matches"),
        (NOTHING, answer(why_not=[reason("not-routed", "no label")]), "web: worker w1: no label", "matches"),
        (NOTHING, answer(why_not=[reason("unknown", "nor here")]), "matches", "nor here"),
        (NOTHING, answer(why_not=[reason("of-later", "new")]), "matches", "new"),
        (LOST, answer(why_not=[reason("gone", "OOM", "w1/web/1")]), "web: OOM", "web-1 on w1 is gone"),
        (LOST, answer("w2", why_not=[reason("gone", "OOM", "w1/web/1")]), "web-1 on w1 is gone", "OOM"),
        (FAILING, answer(frozen=["engine hangs"]), "on other workers:\n  w1: frozen: engine hangs", "matches"),
        (FAILING, answer(ways=[way(ports=[port("port-contested", "busy")])]), "w1: port-contested: busy", "matches"),
        (FAILING, answer(ways=[way(not_arriving=[reason("not-arriving", "lost")])]), "w1: not-arriving: lost", "busy"),
        (FAILING, answer(ways=[way(problems=["error: bad", "c: warning: odd"])]), "w1: refused: error: bad", "odd"),
        (
            FAILING,
            answer(ways=[way(endpoints=[its_endpoint("w1", reason("probe-failed", "status 404"))])]),
            "drained by kim\n      probe-failed: status 404",
            "w1 reports",
        ),
        (
            FAILING,
            answer("w2", ways=[way(endpoints=[its_endpoint("w1", reason("probe-failed", "status 404"))])]),
            "w1 reports",
            "status 404",
        ),
        (
            FAILING,
            PeerAnswer("w1", error="worker w1: no answer", code=Code.CHANNEL_NO_ANSWER),
            "without the answer of w1: no answer [VM676]",
            "on other workers",
        ),
    ],
)
def test_what_another_worker_knows_is_told(own: Explanation, told: PeerAnswer, shown: str, hidden: str) -> None:
    text = render_explanation(add_answers(own, [told]), Notices())
    assert shown in text
    assert hidden not in text


@pytest.mark.parametrize("body", [b"", b"[]", b'{"kind": 1}', b'{"kind": "x", "why_not": [{}]}'])
def test_what_is_no_explanation_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_explanation("w1", body)


def test_texts_of_other_workers_are_bounded() -> None:
    told = answer(why_not=[reason("refused", "x" * 100_000 + "\n\x1b")] * 1000)
    assert len(render_explanation(add_answers(NOTHING, [told]), Notices())) < 100_000
