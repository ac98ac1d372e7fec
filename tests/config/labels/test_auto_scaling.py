"""The labels that say how many instances a service has by its load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config.labels.auto_scaling import MAX_ENTRIES, parse_auto_scaling
from mesh.config.labels.reader import AUTO_SCALING_LABELS
from mesh.model.auto_scaling import AutoScaling, ScalingBand, ScalingSchedule, ScheduledBounds
from mesh.model.codes import Code
from mesh.model.problem import Severity

GOOD = {"max_cpu": "70", "min_cpu": "30"}


def parse(prefix: str = "mesh.", /, **labels: str) -> AutoScaling | None:
    found, problems = parse_auto_scaling(
        {f"{prefix}auto_scaling.{name}": v for name, v in labels.items()}, "service web"
    )
    assert [str(problem) for problem in problems] == []
    return found


@pytest.mark.parametrize("prefix", ["mesh.", "aliyun."])
def test_all_labels_of_thresholds_together(prefix: str) -> None:
    found = parse(
        prefix,
        max_cpu="70",
        min_cpu="30",
        max_memory="95%",
        min_memory="40",
        max_connections="500",
        max_connection_rate="100",
        step="2",
        min_instances="2",
        max_instances="20",
        cooldown_seconds="60",
        schedule="0 8 * * 1-5 min=4; 0 18 * * 1-5 min=1 max=6;",
        timezone="Europe/Berlin",
    )
    entries = (ScheduledBounds("0 8 * * 1-5", 4, None), ScheduledBounds("0 18 * * 1-5", 1, 6))
    assert found == AutoScaling(
        ScalingBand(70, 30),
        ScalingBand(95, 40),
        None,
        500,
        100,
        2,
        2,
        20,
        60,
        ScalingSchedule(entries, "Europe/Berlin"),
    )


def test_a_target_alone() -> None:
    assert parse(target_cpu="50") == AutoScaling(target_cpu=50)


def test_a_schedule_alone() -> None:
    found = parse(schedule="30 7 1 JAN * min=3")
    assert found == AutoScaling(schedule=ScalingSchedule((ScheduledBounds("30 7 1 JAN *", 3, None),)))


def test_a_maximum_that_is_not_written_is_never_below_the_minimum() -> None:
    found = parse(max_cpu="70", min_instances="12")
    assert found is not None
    assert (found.min_instances, found.max_instances) == (12, 12)


def test_a_service_without_these_labels_is_not_scaled() -> None:
    assert parse_auto_scaling({"mesh.scale": "3", "mesh.global": "true"}, "service web") == (None, ())


@pytest.mark.parametrize(
    ("labels", "code", "remedy"),
    [
        ({"max_cpu": "0"}, Code.SCALING_LABEL, "write a whole number from 1 to 10000"),
        ({"max_cpu": "seventy"}, Code.SCALING_LABEL, "write a whole number from 1 to 10000"),
        ({"max_cpu": "-1"}, Code.SCALING_LABEL, "write a whole number from 1 to 10000"),
        ({"max_cpu": "7_0"}, Code.SCALING_LABEL, "write a whole number from 1 to 10000"),
        ({"max_cpu": ""}, Code.SCALING_LABEL, "write a whole number from 1 to 10000"),
        ({**GOOD, "max_memory": "1.5"}, Code.SCALING_LABEL, "write a whole number from 1 to 10000"),
        ({"max_connections": "0"}, Code.SCALING_LABEL, "write a whole number from 1 to 1000000"),
        ({"max_connection_rate": "10/s"}, Code.SCALING_LABEL, "write a whole number from 1 to 1000000"),
        ({**GOOD, "step": "0"}, Code.SCALING_LABEL, "write a whole number from 1 to 1000"),
        ({**GOOD, "min_instances": "0"}, Code.SCALING_LABEL, "write a whole number from 1 to 1000"),
        ({**GOOD, "max_instances": "1001"}, Code.SCALING_LABEL, "write a whole number from 1 to 1000"),
        ({**GOOD, "cooldown_seconds": "5m"}, Code.SCALING_LABEL, "write a whole number from 0 to 86400"),
        (
            {"target_cpu": "50", "max_cpu": "70"},
            Code.SCALING_LABELS_CONTRADICT,
            "or auto_scaling.target_cpu",
        ),
        ({"target_cpu": "50", "min_cpu": "7"}, Code.SCALING_LABELS_CONTRADICT, "or auto_scaling.target_cpu"),
        ({"max_cpu": "70", "min_cpu": "70"}, Code.SCALING_LABELS_CONTRADICT, "write at most 69"),
        ({"max_memory": "1", "min_memory": "2"}, Code.SCALING_LABELS_CONTRADICT, "raise auto_scaling.max_memory"),
        ({**GOOD, "min_instances": "5", "max_instances": "4"}, Code.SCALING_LABELS_CONTRADICT, "write 5 to 1000"),
        ({**GOOD, "schedule": "0 8 * * * min=11"}, Code.SCALING_LABELS_CONTRADICT, "max_instances: 11, or"),
        (
            {**GOOD, "min_instances": "3", "schedule": "0 8 * * * max=2"},
            Code.SCALING_LABELS_CONTRADICT,
            "write max=3 or more there",
        ),
        ({**GOOD, "schedule": ""}, Code.SCALING_SCHEDULE, "write one such as 0 8 * * 1-5 min=4"),
        ({**GOOD, "schedule": "0 8 * * min=4"}, Code.SCALING_SCHEDULE, "write one such as 0 8 * * 1-5 min=4"),
        ({**GOOD, "schedule": "0 8 * * 1-5"}, Code.SCALING_SCHEDULE, "write 0 8 * * 1-5 min=N"),
        ({**GOOD, "schedule": "0 25 * * * min=1"}, Code.SCALING_SCHEDULE, "write one such as"),
        ({**GOOD, "schedule": "0 0 30 2 * min=1"}, Code.SCALING_SCHEDULE, "write one such as"),
        ({**GOOD, "schedule": "0 0 * * 1#2/3 min=1"}, Code.SCALING_SCHEDULE, "write one such as"),
        ({**GOOD, "schedule": "@daily min=1"}, Code.SCALING_SCHEDULE, "write one such as"),
        ({**GOOD, "schedule": "0 8 * * * min=0"}, Code.SCALING_SCHEDULE, "write min=1 to min=1000"),
        ({**GOOD, "schedule": "0 8 * * * min=1 min=2"}, Code.SCALING_SCHEDULE, "write min=N, max=N or both"),
        ({**GOOD, "schedule": "0 8 * * * scale=2"}, Code.SCALING_SCHEDULE, "write min=N, max=N or both"),
        ({**GOOD, "schedule": f"{'0,' * 60}0 8 * * * min=2"}, Code.SCALING_SCHEDULE, "write one such as"),
        ({**GOOD, "schedule": "0 8 * * * min=1;" * (MAX_ENTRIES + 1)}, Code.SCALING_SCHEDULE, "write at most 32"),
        ({**GOOD, "schedule": "0 8 * * * min=2", "timezone": "Mars/Base"}, Code.SCALING_SCHEDULE, "Europe/Berlin"),
        ({**GOOD, "schedule": "0 8 * * * min=2", "timezone": "../UTC"}, Code.SCALING_SCHEDULE, "Europe/Berlin"),
        ({**GOOD, "schedule": "0 8 * * * min=2", "timezone": "Europe"}, Code.SCALING_SCHEDULE, "Europe/Berlin"),
    ],
)
def test_a_wrong_label_is_an_error_that_says_what_to_write_and_no_label_is_used(
    labels: dict[str, str], code: Code, remedy: str
) -> None:
    found, (problem,) = parse_auto_scaling({f"mesh.auto_scaling.{k}": v for k, v in labels.items()}, "service web")
    assert found is None
    assert (problem.code, problem.severity) == (code, Severity.ERROR)
    assert remedy in problem.remedy


def test_every_error_is_reported_at_once() -> None:
    labels = {"max_cpu": "x", "step": "y", "min_instances": "9", "max_instances": "3", "schedule": "z"}
    _, problems = parse_auto_scaling({f"mesh.auto_scaling.{k}": v for k, v in labels.items()}, "service web")
    assert {problem.label for problem in problems} == {
        f"mesh.auto_scaling.{name}" for name in ("max_cpu", "step", "max_instances", "schedule")
    }


def test_different_values_under_both_prefixes_are_an_error_and_no_label_is_used() -> None:
    labels = {
        "mesh.auto_scaling.max_cpu": "70",
        "aliyun.auto_scaling.max_cpu": "80",
        "mesh.auto_scaling.target_cpu": "9",
    }
    found, problems = parse_auto_scaling(labels, "service web")
    assert found is None
    assert Code.LABEL_DIFFERS_BY_PREFIX in {problem.code for problem in problems}


def test_a_global_service_is_not_scaled() -> None:
    found, (problem,) = parse_auto_scaling({"mesh.global": "true", "mesh.auto_scaling.max_cpu": "70"}, "service web")
    assert found is None
    assert problem.code is Code.SCALING_LABELS_CONTRADICT
    assert "remove global" in problem.remedy


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"timezone": "UTC", "max_cpu": "70"}, "timezone"),
        ({"step": "2"}, "step"),
        ({"min_cpu": "20"}, "min_cpu"),
        ({"max_instances": "5"}, "max_instances"),
        ({"target_cpu": "50", "step": "2"}, "step"),
    ],
)
def test_a_label_that_changes_nothing_is_a_warning(labels: dict[str, str], name: str) -> None:
    _, (problem,) = parse_auto_scaling({f"mesh.auto_scaling.{k}": v for k, v in labels.items()}, "service web")
    assert (problem.code, problem.severity) == (Code.LABEL_WITHOUT_EFFECT, Severity.WARNING)
    assert problem.label == f"mesh.auto_scaling.{name}"
    assert problem.remedy


@given(st.dictionaries(st.sampled_from(AUTO_SCALING_LABELS), st.text(max_size=40) | st.integers(-1, 2000).map(str)))
def test_any_labels_give_sound_bounds_or_a_problem(labels: dict[str, str]) -> None:
    found, problems = parse_auto_scaling({f"mesh.{name}": value for name, value in labels.items()}, "service web")
    if found is not None:
        assert 1 <= found.min_instances <= found.max_instances <= 1000
        assert found.step >= 1
    elif labels:
        assert problems


@given(st.text("0123456789*/-,#LW JANMOmin=max;", max_size=120))
def test_any_schedule_is_read_or_refused(text: str) -> None:
    labels = {"mesh.auto_scaling.max_cpu": "70", "mesh.auto_scaling.schedule": text}
    found, problems = parse_auto_scaling(labels, "service web")
    assert (found is None) == any(problem.severity is Severity.ERROR for problem in problems)
