"""The labels that say which logs are collected."""

import pytest

from mesh.config.labels.logs import LogLabels, parse_log_labels
from mesh.model.codes import Code
from mesh.model.problem import Severity


@pytest.mark.parametrize("prefix", ["mesh.", "aliyun."])
def test_all_labels_together(prefix: str) -> None:
    labels = {"log_store_db": "stdout", "log_ttl_db": "7", "log.timestamp": "true", "log.rate_limit": "1000"}
    found, problems = parse_log_labels({f"{prefix}{key}": value for key, value in labels.items()}, "container x")
    assert found == LogLabels("db", 7, timestamp=True, rate_limit=1000)
    assert problems == ()


def test_nothing_is_collected_without_labels() -> None:
    assert parse_log_labels({"mesh.routing.port_80": "web.local", "logging": "x"}, "container x") == (None, ())


@pytest.mark.parametrize(
    ("label", "value", "code", "collected"),
    [
        ("log_store_DB", "stdout", Code.LOG_LABEL, None),
        ("log_store_a/b", "stdout", Code.LOG_LABEL, None),
        ("log_store_db", "stderr", Code.LOG_LABEL, None),
        ("log_store_db", "", Code.LOG_LABEL, None),
        ("log_store_db", "var/log/x.log", Code.LOG_LABEL, None),
        ("log_store_db", "/", Code.LOG_LABEL, None),
        ("log_store_db", "/var//x.log", Code.LOG_LABEL, None),
        ("log_store_db", "/var/log/../../etc/shadow", Code.LOG_LABEL, None),
        ("log_store_db", "/var/log/./x.log", Code.LOG_LABEL, None),
        ("log_store_db", "/var/**/x.log", Code.LOG_LABEL, None),
        ("log_store_db", "/var/log/x.log.gz", Code.LOG_LABEL, None),
        ("log_store_db", "/proc/kmsg", Code.LOG_LABEL, None),
        ("log_store_db", "/dev/", Code.LOG_LABEL, None),
        ("log_store_db", "/var/log/a\0b", Code.LOG_LABEL, None),
        ("log_store_db", "/var/log/\u202eb", Code.LOG_LABEL, None),
        ("log_store_db", "/" + "x" * 256, Code.LOG_LABEL, None),
        ("log_store_db", "/x" * 600, Code.LOG_LABEL, None),
        ("log_store_db", ",".join(f"/{n}" for n in range(17)), Code.LOG_LABEL, None),
        ("log_store_db", "/var/log/x.log,", Code.LOG_LABEL, None),
        ("log.multiline", "(a", Code.LOG_LABEL, LogLabels("app")),
        ("log.multiline", r"(?=x)", Code.LOG_LABEL, LogLabels("app")),
        ("log.multiline", r"(a)\1", Code.LOG_LABEL, LogLabels("app")),
        ("log.multiline", "a*", Code.LOG_LABEL, LogLabels("app")),
        ("log.multiline", "a" * 257, Code.LOG_LABEL, LogLabels("app")),
        ("log.multiline", "(x{0,20}y?){0,40}z$", Code.LOG_LABEL, LogLabels("app")),
        ("log.multiline", "[a-z]{500}{500}", Code.LOG_LABEL, LogLabels("app")),
        ("log.multiline", r"^\d{4}-", Code.LABEL_WITHOUT_EFFECT, LogLabels("app", multiline=r"^\d{4}-")),
        ("log_ttl_app", "0", Code.LOG_LABEL, LogLabels("app")),
        ("log_ttl_app", "forever", Code.LOG_LABEL, LogLabels("app")),
        ("log_ttl_app", "3651", Code.LOG_LABEL, LogLabels("app")),
        ("log_ttl_other", "3", Code.LABEL_WITHOUT_EFFECT, LogLabels("app")),
        ("log.timestamp", "yes", Code.LOG_LABEL, LogLabels("app")),
        ("log.rate_limit", "-1", Code.LOG_LABEL, LogLabels("app")),
        ("log.rate_limit", "10/s", Code.LOG_LABEL, LogLabels("app")),
        ("log_store_web", "stdout", Code.LOG_LABEL, LogLabels("app")),
    ],
)
def test_a_wrong_label_is_a_problem_and_counts_as_absent(
    label: str, value: str, code: Code, collected: LogLabels | None
) -> None:
    good = {} if collected is None else {"mesh.log_store_app": "stdout"}
    found, (problem,) = parse_log_labels({**good, f"mesh.{label}": value}, "container x")
    assert found == collected
    assert problem.code is code
    assert problem.remedy


def test_settings_without_a_store_have_no_effect() -> None:
    found, (problem,) = parse_log_labels({"mesh.log.timestamp": "true"}, "container x")
    assert found is None
    assert (problem.code, problem.severity) == (Code.LABEL_WITHOUT_EFFECT, Severity.WARNING)


@pytest.mark.parametrize("prefix", ["mesh.", "aliyun."])
def test_paths_of_several_stores(prefix: str) -> None:
    labels = {
        "log_store_db": "/var/log/mysql/, stdout,/var/log/mysql.log",
        "log_store_web": "/var/log/nginx/*.log",
        "log_ttl_web": "3",
        "log.multiline": r"^\d{4}-\d{2}-\d{2}",
    }
    found, problems = parse_log_labels({f"{prefix}{key}": value for key, value in labels.items()}, "container x")
    assert problems == ()
    assert found is not None
    assert (found.store, found.multiline) == ("db", r"^\d{4}-\d{2}-\d{2}")
    assert [(each.store, each.path, each.ttl_days) for each in found.paths] == [
        ("db", "/var/log/mysql/", None),
        ("db", "/var/log/mysql.log", None),
        ("web", "/var/log/nginx/*.log", 3),
    ]


def test_a_path_goes_to_one_store() -> None:
    labels = {"mesh.log_store_a": "/var/log/x.log", "mesh.log_store_b": "/var/log/x.log"}
    found, (problem,) = parse_log_labels(labels, "container x")
    assert found is not None
    assert [each.store for each in found.paths] == ["a"]
    assert problem.code is Code.LOG_LABEL
    assert "collected to the store a already" in problem.reason
