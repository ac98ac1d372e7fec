"""The labels that say how a new release takes the place of the old one by shares."""

import pytest

from mesh.config.labels.parse import parse_labels
from mesh.config.labels.release_rules import parse_steps
from mesh.config.labels.values import LabelRefusedError
from mesh.model.release_rules import DEFAULT_STEPS
from mesh.model.service import ReleaseRules, ReleaseStep, ReleaseStrategy

ROUTED = {"mesh.routing.port_80": "web.test", "mesh.routing.release": "v2"}


def parse(**labels: str) -> tuple[ReleaseRules | None, list[str]]:
    written = {f"mesh.release.{name}": value for name, value in labels.items()}
    parsed = parse_labels({**ROUTED, **written}, owner="shop/web", subject="x", domain="test")
    return parsed.rules, [str(problem.code) for problem in parsed.problems]


def test_steps_are_parsed() -> None:
    expected = (ReleaseStep(100, 300), ReleaseStep(1025, 7200), ReleaseStep(5000, 0, True))
    assert parse_steps("1%,5m;10.25%,2h;50%,hold") == expected
    assert parse_steps(" 1 % , 30s ; 100%,7d") == (ReleaseStep(100, 30), ReleaseStep(10_000, 604_800))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "1%",
        "1,5m",
        "1%,5",
        "1%,5w",
        "101%,5m",
        "1.005%,5m",
        "-1%,5m",
        "1%,8d",
        "10%,5m;10%,5m",
        "50%,hold;10%,5m",
        "1%,hold;",
        "\u0661%,5m",
        "1%,5m" + ";2%,5m" * 20,
        "1%," + "5" * 2000 + "m",
    ],
)
def test_steps_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(LabelRefusedError) as refused:
        parse_steps(text)
    assert str(refused.value.code) == "VM940"


@pytest.mark.parametrize("strategy", [*ReleaseStrategy])
def test_each_strategy_by_shares_has_rules(strategy: ReleaseStrategy) -> None:
    assert parse(strategy=strategy) == (ReleaseRules(strategy, DEFAULT_STEPS[strategy]), [])


def test_all_labels_of_a_rollout_count() -> None:
    rules, problems = parse(
        strategy="canary", steps="5%,1m", deadline_seconds="60", max_failures="1%", min_connections="0"
    )
    assert rules == ReleaseRules(ReleaseStrategy.CANARY, (ReleaseStep(500, 60),), 60, 1.0, 0)
    assert not problems


@pytest.mark.parametrize("strategy", ["rolling", "replace"])
def test_strategies_of_deploys_have_no_steps(strategy: str) -> None:
    assert parse(strategy=strategy) == (None, [])
    assert parse(strategy=strategy, steps="5%,1m") == (None, ["VM104"])


def test_what_is_refused_counts_as_absent() -> None:
    rules, problems = parse(strategy="canary", steps="all", deadline_seconds="0", max_failures="x")
    assert rules == ReleaseRules(ReleaseStrategy.CANARY, DEFAULT_STEPS[ReleaseStrategy.CANARY])
    assert problems == ["VM940", "VM117", "VM117"]
    assert parse(strategy="other") == (None, ["VM117"])
