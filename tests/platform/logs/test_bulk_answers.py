"""What an answer of Elasticsearch's bulk API means for the documents of a request."""

import json
from collections.abc import Sequence

import pytest

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks.bulk import MisunderstoodAnswerError, judge_bulk

DOCUMENTS = (LogDocument("a", "shop-app", b"{}"), LogDocument("b", "shop-app", b"{}"))


def answer(*statuses: int, errors: bool, separators: tuple[str, str] = (",", ":")) -> bytes:
    items = [{"create": {"_id": "x", "status": status, "result": "r"}} for status in statuses]
    return json.dumps({"took": 1, "errors": errors, "items": items}, separators=separators).encode()


@pytest.mark.parametrize("errors", [False, True])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    ("statuses", "refused", "postponed"),
    [((201, 201), 0, 0), ((201, 409), 0, 0), ((201, 400), 1, 0), ((429, 201), 0, 1), ((503, 429), 0, 2)],
)
def test_each_status_counts_whatever_the_answer_says_of_errors(
    statuses: Sequence[int], refused: int, postponed: int, separators: tuple[str, str], *, errors: bool
) -> None:
    verdict = judge_bulk(DOCUMENTS, answer(*statuses, errors=errors, separators=separators))
    assert (len(verdict.refused), verdict.postponed) == (refused, postponed)


@pytest.mark.parametrize(
    "body",
    [
        answer(201, errors=False),
        answer(201, 201, 201, errors=False),
        b'"status":201"status":201',
        b"",
        b"[" * 100_000,
        b'{"errors":false,"items":[{"create":{"status":201}},{"create":{"text":"\\"status\\":201"}}]}',
    ],
)
def test_an_answer_that_does_not_say_what_became_of_each_is_misunderstood(body: bytes) -> None:
    with pytest.raises(MisunderstoodAnswerError):
        judge_bulk(DOCUMENTS, body)
