"""The table of `vipmesh status`: what is wrong comes first, every text is whole and printable, and lines fit."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.status_document import Notice, StatusDocument, decode_status
from mesh.cli.status_view import FEW_ENDPOINTS, StatusLayout, render_status
from mesh.cli.terminal import OutputTerminal

NOW = datetime(2026, 11, 30, 14, 0, tzinfo=UTC)
PLAIN = StatusLayout(now=NOW)
LONG = f"{'a' * 63}.{'b' * 63}.mesh.internal"


def endpoint(id: str = "web-1", **changes: Any) -> dict[str, Any]:
    return {
        "id": id,
        "worker": "w1",
        "address": "10.2.0.1",
        "port": 8080,
        "weight": 1,
        "release": None,
        "health": "healthy",
        "serving": True,
        "last_probe": "status 200",
        "last_probe_at": "2026-11-30T13:59:58+00:00",
        "since": "2026-11-30T13:50:00+00:00",
        "connections": 3,
        **changes,
    }


def service(name: str = "web.test", *endpoints: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "owner": f"demo/{name.partition('.')[0]}",
        "vip": "10.112.0.7",
        "names": [name],
        "virtual_servers": ["tcp://10.112.0.7:80"],
        "endpoints": endpoints,
        **changes,
    }


def status(*services: dict[str, Any], **changes: Any) -> StatusDocument:
    given = {
        "version": "1",
        "worker": "w1",
        "data_plane": "ipvs",
        "data_plane_reason": "this kernel has IPVS",
        "digest": "0123456789ab",
        "services": services,
        **changes,
    }
    return decode_status(msgspec.json.encode(given).decode())


def text(shown: StatusDocument, layout: StatusLayout = PLAIN) -> str:
    return "\n".join("".join(word.text for word in line).rstrip() for line in render_status(shown, layout))


DOWN = endpoint("db-1", worker="w2", health="unhealthy", serving=False, last_probe="refused", connections=None)


def test_the_table_begins_with_a_sum_and_with_what_is_wrong() -> None:
    web = service("web.test", endpoint(), endpoint("web-2", release="v2", weight=3), published=["30080/tcp"])
    notices = [
        {"kind": "suspicion", "severity": "warning", "code": "VM257", "text": "most endpoints fail"},
        {"kind": "frozen", "severity": "error", "code": "VM401", "text": "etcd does not answer"},
    ]
    assert text(status(web, service("db.test", DOWN), notices=notices)) == (
        "w1: 2 services, 1 serving; 3 endpoints, 2 serving; 1 error; 1 warning\n"
        "vipmesh 1; ipvs: this kernel has IPVS; digest 0123456789ab\n"
        "error: frozen: etcd does not answer [VM401]\n"
        "warning: suspected: most endpoints fail [VM257]\n"
        "\n"
        "SERVICE   VIP         PORTS       SERVING  CONNECTIONS\n"
        "  ENDPOINT  WORKER  ADDRESS        STATE      SINCE   LAST PROBE           WEIGHT  RELEASE  CONNECTIONS\n"
        "db.test   10.112.0.7  80          0/1      -\n"
        "  db-1      w2      10.2.0.1:8080  unhealthy  10 min  refused, 2 s ago     1       -        -\n"
        "web.test  10.112.0.7  80 *:30080  2/2      6\n"
        "  web-1     w1      10.2.0.1:8080  healthy    10 min  status 200, 2 s ago  1       -        3\n"
        "  web-2     w1      10.2.0.1:8080  healthy    10 min  status 200, 2 s ago  3       v2       3"
    )


def test_the_counters_of_endpoints_are_shown_where_endpoints_are_asked_for() -> None:
    counted = endpoint(opened=12, bytes_in=3456, bytes_out=78_900_000_000)
    lines = text(status(service("web.test", counted, DOWN)), StatusLayout(endpoints=True)).splitlines()
    one, other = lines[-2].split(), lines[-1].split()
    assert "OPENED  BYTES IN  BYTES OUT" in "\n".join(lines)
    assert one[-4:] == ["3", "12", "3456", "78900000000"]
    assert other[-4:] == ["-"] * 4, "an earlier daemon, and a data plane that cannot count"
    narrow = text(status(service("web.test", counted)), StatusLayout(width=60, endpoints=True))
    assert "opened 12" in narrow
    assert "bytes out 78900000000" in narrow
    assert max(map(len, narrow.splitlines())) <= 60


@pytest.mark.parametrize(
    ("shown", "first"),
    [
        (status(), "w1: no services; no problems"),
        (status(digest=None), "w1: no services are known yet: no pass has ended since the start; no problems"),
        (status(service("a.test", endpoint())), "w1: 1 service, 1 serving; 1 endpoint, 1 serving; no problems"),
        (
            status(service("a.test", vip=None)),
            "w1: 1 service, 0 serving; 0 endpoints, 0 serving; `vipmesh explain a.test` says why",
        ),
    ],
)
def test_the_first_line_says_what_there_is_and_what_is_wrong(shown: StatusDocument, first: str) -> None:
    assert text(shown).splitlines()[0] == first


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "healthy"),
        ({"serving": False, "programming": True}, "being programmed"),
        ({"serving": False, "drain": "asked"}, "draining: asked"),
        ({"serving": False}, "healthy, not serving"),
        ({"serving": False, "health": "starting"}, "starting"),
        ({"health": "unhealthy", "kept": True}, "unhealthy, kept in traffic"),
        ({"serving": False, "health": "unhealthy", "held_back": True}, "unhealthy, held back"),
        ({"health": "not probed"}, "not probed"),
    ],
)
def test_states_of_endpoints(changes: dict[str, Any], state: str) -> None:
    assert f"  {state}  " in text(status(service("web.test", endpoint(**changes))))


def test_many_endpoints_are_listed_where_something_is_wrong_or_when_asked_for() -> None:
    well = [service(f"web-{n}.test", endpoint(f"e-{n}")) for n in range(FEW_ENDPOINTS)]
    shown = status(*well, service("db.test", DOWN))
    listed = [line for line in text(shown).splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in listed] == ["ENDPOINT", "db-1"]
    assert text(shown, replace(PLAIN, endpoints=True)).count("\n  e-") == FEW_ENDPOINTS
    assert "web-1.test" not in text(shown, replace(PLAIN, only_problems=True))


def test_a_service_with_many_ports_shows_how_many_more_there_are() -> None:
    keys = [f"tcp://[fd00::7]:{port}" for port in (80, 443)] + ["udp://[fd00::7]:53"]
    shown = status(service("web.test", endpoint(), virtual_servers=keys, published=["30080/tcp", "30053/udp"]))
    assert "  80 443 +3  " in text(shown)
    assert "  80 443 53/udp *:30080 *:30053/udp  " in text(shown, replace(PLAIN, endpoints=True))


WIDE = status(
    service(LONG, endpoint("x" * 80, address="fd00:aaaa:bbbb:cccc:dddd:eeee:1111:2222")),
    service("six.test", endpoint(), vip="fd00:aaaa:bbbb:cccc:dddd:eeee:1111:3333"),
    service("db.test", DOWN, not_arriving=["the network 172.18.0.0/16"]),
    problems=[f"compose.yaml:9: error: service x: the name {LONG} is held by demo/web; choose another name"],
)


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
def test_lines_fit_the_terminal_and_nothing_is_left_out(width: int) -> None:
    layout = replace(PLAIN, width=width)
    assert max(map(len, text(WIDE, layout).splitlines())) <= width
    shown = "".join(text(WIDE, layout).split())
    for each in (LONG, "x" * 80, "fd00:aaaa:bbbb:cccc:dddd:eeee:1111:3333", "172.18.0.0/16", "refused,2sago", "1/1"):
        assert each.replace(" ", "") in shown


def test_a_name_longer_than_its_column_has_a_line_of_its_own() -> None:
    lines = text(status(service(f"{'n' * 63}.test", endpoint())), replace(PLAIN, width=80)).splitlines()
    at = lines.index(f"{'n' * 63}.test")
    assert lines[at + 1].split() == ["10.112.0.7", "80", "1/1", "3"]
    assert lines[at + 1].index("10.112.0.7") == lines[3].index("VIP")


def test_a_thousand_services_are_a_line_each() -> None:
    shown = status(*(service(f"s-{n}.test", endpoint(), endpoint("b")) for n in range(1000)))
    for width in (None, 80):
        assert len(text(shown, replace(PLAIN, width=width)).splitlines()) == 1004


def test_an_earlier_version_sends_no_notices_and_no_times() -> None:
    old = {key: endpoint()[key] for key in ("id", "worker", "address", "port", "weight", "release", "health")}
    web = service("web.test", {**old, "serving": True, "last_probe": "status 200"})
    problems = ["a.yaml:1: error: service a: it is wrong; mend it", "warning: service b: it is odd; look at it"]
    shown = status(web, problems=problems, frozen=["etcd is gone"])
    assert text(shown).splitlines()[2:5] == [problems[0], "error: frozen: etcd is gone", problems[1]]
    assert (
        text(shown).splitlines()[-1]
        == "  web-1     w1      10.2.0.1:8080  healthy  -      status 200  1       -        -"
    )
    assert not shown.is_in_order


@pytest.mark.parametrize(
    ("shown", "in_order"),
    [
        (status(), True),
        (status(digest=None), False),
        (status(service("a.test", endpoint())), True),
        (status(service("a.test", endpoint(), DOWN)), True),
        (status(service("a.test", DOWN)), False),
        (status(service("a.test")), False),
        (status(problems=["warning: service a: odd; look"]), True),
        (status(problems=["error: service a: wrong; mend"]), False),
        (status(failures=["add x: no module"]), False),
        (status(suspicions=["most fail"]), True),
    ],
)
def test_what_is_in_order(shown: StatusDocument, in_order: bool) -> None:
    assert shown.is_in_order is in_order


@pytest.mark.parametrize(
    "asked", ["web.test", "WEB.test.", "web", "www.test", "demo/web", "10.112.0.7", "web-1", "c1", "w1"]
)
def test_a_service_is_found_by_each_of_its_names(asked: str) -> None:
    web = service("web.test", endpoint(name="c1"), names=["web.test", "www.test"])
    other = service("other.test", DOWN, vip="10.112.0.8")
    assert [each.name for each in status(web, other).about(asked).services] == ["web.test"]
    assert not status(web, other).about("nothing").services


def test_only_notices_about_a_name_count_for_it() -> None:
    def notice(text: str, owner: str | None = None) -> dict[str, Any]:
        return {"kind": "problem", "severity": "error", "code": "VM201", "text": text, "owner": owner}

    texts = ("cannot bind 10.112.0.7: gone", "cannot bind 10.112.0.70: gone", "my-web.test is odd", "web.test.local")
    notices = [*map(notice, texts), notice("its label is wrong", "demo/web"), notice("another", "demo/b")]
    shown = status(service("web.test", endpoint()), notices=notices).about("web")
    assert [each.text for each in shown.conditions] == ["cannot bind 10.112.0.7: gone", "its label is wrong"]
    refused = status(notices=notices).about("b")
    assert [each.text for each in refused.conditions] == ["another"]


@given(st.text(), st.sampled_from([None, 30, 80]))
def test_whatever_it_is_called_it_stays_on_its_line_and_is_printable(word: str, width: int | None) -> None:
    given = endpoint(word, worker=word, release=word, last_probe=word, health=word, since=word, last_probe_at=word)
    shown = status(
        service(word, given, not_arriving=[word], published=[word]),
        worker=word,
        notices=[{"kind": word, "severity": "error", "code": word, "text": word}],
    )
    lines = list(render_status(shown, replace(PLAIN, width=width)))
    assert all(each.text.isprintable() for line in lines for each in line)
    if width is None:
        assert len(lines) == 9


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"version": 1}', "[" * 100_000])
def test_what_is_no_status_is_refused(body: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_status(body)


def test_words_are_coloured_by_their_style(capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(render_status(status(service("web.test", DOWN)), PLAIN))
    OutputTerminal(colours={"error": ("<", ">")}).print(lines)
    coloured = capsys.readouterr().out
    assert "<unhealthy>" in coloured
    OutputTerminal().print(lines)
    assert capsys.readouterr().out == coloured.replace("<", "").replace(">", "")


def test_a_notice_without_a_code_has_none() -> None:
    assert Notice("problem", "error", None, "x").owner is None
    assert "[None]" not in text(status(failures=["add x: no module"]))


@pytest.mark.parametrize(
    ("logs", "shown"),
    [
        ({"answers": False}, "logs are not collected"),
        ({"answers": True, "logs": 1}, "1 log collected"),
        (
            {"answers": True, "logs": 3, "lag_seconds": 61.4, "lost": 2, "refused": 1},
            "3 logs collected, 61 s behind, 2 times lost, 1 line refused",
        ),
    ],
)
def test_how_far_the_collection_of_logs_is(logs: dict[str, Any], shown: str) -> None:
    whole = {"version": "1", "worker": "w1", "data_plane": "fake", "data_plane_reason": "a test"}
    for document, is_shown in (({**whole, "logs": logs}, True), (whole, False)):
        found = decode_status(msgspec.json.encode(document).decode())
        text = "".join(word.text for line in render_status(found, PLAIN) for word in line)
        assert (f"; {shown}" in text) is is_shown
