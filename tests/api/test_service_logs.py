"""Lines of several workers: what a worker is believed, which service a name means, and where following goes on."""

import msgspec
import pytest

from mesh.api.service_logs import (
    MAX_NOTES,
    LogFollowing,
    UnknownLogServiceError,
    WorkerLogAnswer,
    answered,
    meant_service,
    merged_document,
    missing_lines,
    read_log_answer,
)
from mesh.model.codes import Code
from mesh.platform.logs.reading.document import ServiceLogLine, ServiceLogNote, WorkerLogDocument
from mesh.platform.logs.reading.query import LogQuery


def line(text: str, worker: str = "w2", second: int = 0, service: str = "shop/web") -> ServiceLogLine:
    return ServiceLogLine(text, "web1", worker, service, "stdout", f"2026-11-30T12:00:{second:02d}Z")


def of(
    worker: str, *lines: ServiceLogLine, cursor: str = "", services: tuple[str, ...] = ("shop/web",)
) -> WorkerLogAnswer:
    return answered(worker, "web", WorkerLogDocument(worker, "ship", services, lines, cursor))


def test_a_worker_is_believed_only_about_itself_and_what_was_asked() -> None:
    document = WorkerLogDocument(
        "w9",
        "a lie",
        ("shop/web", "shop/db", "x" * 400),
        (line("mine", "w1"), line("of another service", service="shop/db"), line("x" * 100_000, "w1")),
        "not a cursor",
        notes=tuple(ServiceLogNote("\x1b[2J" * 1000, "VM97512345678") for _ in range(100)),
    )
    asked, found = read_log_answer("w2", "web", msgspec.json.encode(document))
    assert found is not None
    assert (found.worker, found.source, found.services, found.cursor) == ("w2", "none", ("shop/web",), "")
    assert [(each.worker, len(each.text)) for each in found.lines] == [("w2", 4), ("w2", 64 * 1024)]
    assert len(asked.notes) == MAX_NOTES
    assert all(each.text.isprintable() and len(each.text) <= 1000 and len(each.code) <= 10 for each in asked.notes)


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 10_000, b'{"worker": 1}', b"\xff", b'{"worker": "w2"}'])
def test_an_answer_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_log_answer("w2", "web", body)


def test_which_service_a_name_means_among_all_workers() -> None:
    silent = missing_lines("w3", "worker w3: no answer", Code.CHANNEL_NO_ANSWER)
    nothing = of("w2", services=())
    assert meant_service("web", [of("w1"), nothing, silent]) == "shop/web"
    assert meant_service("web", [nothing, silent]) is None, "the worker that is silent may have it"
    with pytest.raises(UnknownLogServiceError, match="no worker has") as error:
        meant_service("web", [nothing, of("w1", services=())])
    assert not error.value.is_ambiguous
    with pytest.raises(UnknownLogServiceError, match="write one of other/web, shop/web") as error:
        meant_service("web", [of("w1"), of("w2", services=("other/web",))])
    assert error.value.is_ambiguous


def test_lines_are_merged_and_a_silent_worker_is_named() -> None:
    silent = missing_lines("w3", "worker w3: no answer", Code.CHANNEL_NO_ANSWER)
    document = merged_document(
        "w1",
        1.0,
        3,
        [
            of("w2", line("c", second=3), line("e", second=5)),
            silent,
            of("w1", line("a", second=1), line("d", second=4)),
        ],
    )
    assert [(each.text, each.worker) for each in document.lines] == [("c", "w2"), ("d", "w1"), ("e", "w2")]
    assert document.dropped == 1
    assert [(each.worker, each.error, each.code) for each in document.workers] == [
        ("w1", None, None),
        ("w2", None, None),
        ("w3", "worker w3: no answer", "VM676"),
    ]


def test_a_worker_that_is_silent_for_a_while_goes_on_where_it_was_and_is_named_once() -> None:
    following = LogFollowing(LogQuery("shop/web", 10))
    first = following.take([of("w1", line("a"), cursor="web1..0.1"), of("w2", line("b", second=1), cursor="web2..0.2")])
    assert [each.text for each in first.lines] == ["a", "b"]
    assert [each.worker for each in first.workers] == ["w1", "w2"]
    silent = missing_lines("w2", "worker w2: no answer", Code.CHANNEL_NO_ANSWER)
    told = [following.take([of("w1", cursor="web1..0.1"), silent]).workers for _ in range(3)]
    assert [[each.error for each in workers] for workers in told] == [["worker w2: no answer"], [], []]
    question = following.question("w2")
    assert question.after is not None
    assert question.after["web2"].time == 2
    back = following.take([of("w1", cursor="web1..0.1"), of("w2", line("c"), cursor="web2..0.3")])
    assert [(each.worker, each.error) for each in back.workers] == [("w2", None)]
    assert [each.text for each in back.lines] == ["c"]
    assert following.question("w9").after is None


def test_a_worker_without_an_instance_yet_is_read_from_the_beginning_of_one() -> None:
    following = LogFollowing(LogQuery("shop/web", 10))
    following.take([of("w1", line("a"), cursor="web1..0.1"), of("w2", services=())])
    assert following.question("w2").after == {}
