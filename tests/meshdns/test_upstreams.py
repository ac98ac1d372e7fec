"""The choice of upstreams: by domain, by resolv.conf as it changes, and without those that are silent or loop."""

import logging
from pathlib import Path

import pytest

from meshdns.rdata import encode_name
from meshdns.upstreams import (
    FAILURES_BEFORE_PENALTY,
    MAX_PENALTY_SECONDS,
    PENALTY_SECONDS,
    RELOAD_INTERVAL,
    Upstream,
    Upstreams,
    parse_resolv_conf,
)


def hosts(upstreams: Upstreams, name: str = "example.test", now: float = 0) -> list[str]:
    return [each.address[0] for each in upstreams.for_name(encode_name(name), now)]


def test_resolv_conf() -> None:
    text = "# a comment\nsearch lan\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\nnameserver 127.0.0.1\n"
    text += "nameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver not-an-address\nnameserver\noptions ndots:0\n"
    assert parse_resolv_conf(text) == (("192.0.2.1", 53), ("2001:db8::1", 53), ("127.0.0.1", 53), ("fe80::1%eth0", 53))


class TestResolvConf:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "resolv.conf"
        file.write_text("nameserver 127.0.0.1\nnameserver 192.0.2.1\n")
        return file

    @pytest.fixture
    def upstreams(self, file: Path) -> Upstreams:
        upstreams = Upstreams(resolv_conf=file)
        upstreams.leave_out(lambda address: address == ("127.0.0.1", 53))
        return upstreams

    def test_resolv_conf_is_read_without_our_own_address(self, upstreams: Upstreams) -> None:
        assert upstreams.look(0)
        assert hosts(upstreams) == ["192.0.2.1"]

    def test_a_changed_file_is_read_within_a_second(self, upstreams: Upstreams, file: Path) -> None:
        upstreams.look(0)
        file.write_text("nameserver 192.0.2.22\n")
        assert not upstreams.look(RELOAD_INTERVAL / 2), "not looked at for every question"
        assert upstreams.look(RELOAD_INTERVAL)
        assert hosts(upstreams) == ["192.0.2.22"]
        assert not upstreams.look(2 * RELOAD_INTERVAL), "nothing has changed"

    def test_a_file_that_is_replaced_is_another_file(self, upstreams: Upstreams, file: Path) -> None:
        upstreams.look(0)
        other = file.with_name("new")
        other.write_text("nameserver 127.0.0.1\nnameserver 192.0.2.2\n")  # as long as the other
        other.rename(file)
        assert upstreams.look(RELOAD_INTERVAL)
        assert hosts(upstreams) == ["192.0.2.2"]

    def test_the_state_of_an_unchanged_upstream_is_kept(self, upstreams: Upstreams, file: Path) -> None:
        upstreams.look(0)
        before = upstreams.all()
        file.write_text("nameserver 192.0.2.9\nnameserver 192.0.2.1\n")
        assert upstreams.look(RELOAD_INTERVAL)
        assert before[0] in upstreams.all()

    @pytest.mark.parametrize("text", [None, "", "nameserver 127.0.0.1\n", "search lan\n"])
    def test_a_file_without_servers_keeps_the_previous_ones_and_is_reported_once(
        self, upstreams: Upstreams, file: Path, text: str | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        upstreams.look(0)
        file.unlink() if text is None else file.write_text(text)
        for turn in range(1, 4):
            assert not upstreams.look(turn * RELOAD_INTERVAL)
        assert hosts(upstreams) == ["192.0.2.1"]
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(told) == 1
        assert "other names are asked of 192.0.2.1:53; or set [dns] upstream" in told[0]

    def test_configured_upstreams_take_precedence(self, file: Path) -> None:
        upstreams = Upstreams([("192.0.2.53", 53)], resolv_conf=file)
        assert not upstreams.look(0)
        assert hosts(upstreams) == ["192.0.2.53"]


def test_the_longest_domain_decides_and_the_order_is_kept() -> None:
    upstreams = Upstreams(
        [("192.0.2.1", 53), ("192.0.2.2", 53), ("192.0.2.1", 53)],
        {"corp.test": [("10.0.0.2", 53), ("10.0.0.1", 53)], "lab.corp.test": [("10.0.0.3", 53)]},
    )
    for name, expected in {
        "corp.test": ["10.0.0.2", "10.0.0.1"],
        "deep.down.corp.test": ["10.0.0.2", "10.0.0.1"],
        "a.lab.corp.test": ["10.0.0.3"],
        "notcorp.test": ["192.0.2.1", "192.0.2.2"],
        "test": ["192.0.2.1", "192.0.2.2"],
    }.items():
        assert hosts(upstreams, name) == expected, name
    assert upstreams.for_name(b"\0", 0), "the root too"


def test_the_server_itself_is_never_an_upstream(caplog: pytest.LogCaptureFixture) -> None:
    upstreams = Upstreams([("127.0.0.1", 53), ("192.0.2.1", 53)], {"corp.test": [("127.0.0.1", 53)]})
    upstreams.leave_out(lambda address: address[0] == "127.0.0.1")
    assert hosts(upstreams) == ["192.0.2.1"]
    assert hosts(upstreams, "corp.test") == [], "and not others in its place"
    assert "127.0.0.1:53 is this name server itself" in caplog.text


def test_a_silent_upstream_comes_last_for_increasing_periods(caplog: pytest.LogCaptureFixture) -> None:
    upstreams = Upstreams([("192.0.2.1", 53), ("192.0.2.2", 53)])
    first, _ = upstreams.all()
    for _ in range(FAILURES_BEFORE_PENALTY - 1):
        first.failed(100)
    assert hosts(upstreams, now=100) == ["192.0.2.1", "192.0.2.2"], "once or twice is bad luck"
    first.failed(100)
    assert hosts(upstreams, now=100) == ["192.0.2.2", "192.0.2.1"]
    assert hosts(upstreams, now=100 + PENALTY_SECONDS) == ["192.0.2.1", "192.0.2.2"], "its chance"
    assert first.on_trial(100 + PENALTY_SECONDS)
    for _ in range(20):
        first.failed(200)
    assert hosts(upstreams, now=200 + MAX_PENALTY_SECONDS - 1) == ["192.0.2.2", "192.0.2.1"]
    assert hosts(upstreams, now=200 + MAX_PENALTY_SECONDS) == ["192.0.2.1", "192.0.2.2"]
    first.answered()
    assert hosts(upstreams, now=201) == ["192.0.2.1", "192.0.2.2"]
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(messages) == 1, "told once"


def test_a_looping_upstream_is_not_used() -> None:
    upstreams = Upstreams([("192.0.2.1", 53), ("192.0.2.2", 53)])
    upstreams.all()[0].looping = True
    assert hosts(upstreams) == ["192.0.2.2"]


@pytest.mark.parametrize(("address", "shown"), [(("192.0.2.1", 53), "192.0.2.1:53"), (("fd00::1", 53), "[fd00::1]:53")])
def test_the_name_of_an_upstream(address: tuple[str, int], shown: str) -> None:
    assert str(Upstream(address)) == shown
