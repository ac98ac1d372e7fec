"""Services whose logs are collected, and whose driver or rotation stands in the way."""

import pytest

from mesh.model.codes import Code
from mesh.sources.compose.log_drivers import log_driver_problems
from mesh.sources.compose.parse import read_compose_file

SERVICE = """\
services:
  web:
    image: web
    labels: {{{labels}}}
    logging: {logging}
"""
COLLECTED = "mesh.log_store_app: stdout"


def problems(logging: str, labels: str = COLLECTED) -> list[tuple[Code, str]]:
    file = read_compose_file(SERVICE.format(labels=labels, logging=logging), "compose.yaml", {"DRIVER": "json-file"})
    return [(each.code, str(each)) for each in log_driver_problems(file.services["web"])]


@pytest.mark.parametrize("driver", ["local", "journald", "none", "syslog", "fluentd"])
def test_a_driver_whose_lines_cannot_be_read_is_named(driver: str) -> None:
    ((code, text),) = problems(f"{{driver: {driver}}}")
    assert code is Code.LOG_DRIVER
    assert f'the driver is "{driver}"' in text
    assert "write driver: json-file" in text


@pytest.mark.parametrize(
    "options", ["{max-size: 10m}", '{max-size: 10m, max-file: "1"}', "{max-size: 10m, max-file: 1}"]
)
def test_a_rotation_that_keeps_one_file_is_named(options: str) -> None:
    ((code, text),) = problems(f"{{driver: json-file, options: {options}}}")
    assert code is Code.LOG_ROTATION
    assert "max-file" in text


@pytest.mark.parametrize(
    "logging",
    [
        "{driver: json-file}",
        "{options: {max-size: 10m, max-file: 5}}",
        "{}",
        "null",
        "[a]",
        "{driver: [a], options: 3}",
        "{driver: $DRIVER}",
    ],
)
def test_what_can_be_read_is_no_problem(logging: str) -> None:
    assert problems(logging) == []


@pytest.mark.parametrize("labels", ["", "mesh.log_store_app: /var/log/app.log", "log_store_app: stdout"])
def test_a_service_whose_output_is_not_collected_may_have_any_driver(labels: str) -> None:
    assert problems("{driver: journald}", labels) == []
