"""The page of the firewall matrix is what its tests expect, and they expect something of every cell."""

import pytest

from tests.docs import firewall_matrix
from tests.system.hosts.matrix import CLIENTS, LABS, PASSES, TARGETS, TRANSPORTS, MatrixLab, read_expected, write_row

EXPECTED = read_expected()


def test_the_page_is_generated() -> None:
    assert firewall_matrix.PAGE.read_text() == firewall_matrix.page(), "run python -m tests.docs.firewall_matrix"


def test_there_is_one_table_for_each_lab() -> None:
    assert sorted(EXPECTED.labs) == sorted(lab.name for lab in LABS)


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_every_cell_passes_or_is_a_refusal_with_its_reason(lab: MatrixLab) -> None:
    rows = EXPECTED.labs[lab.name]
    assert list(rows) == [client.title for client in CLIENTS]
    for row in rows.values():
        marks = row.replace(" ", "")
        assert len(marks) == len(TARGETS) * len(TRANSPORTS)
        assert row == write_row(marks)
        assert set(marks) <= {PASSES, *EXPECTED.refusals}


def test_every_refusal_is_used() -> None:
    used = {mark for rows in EXPECTED.labs.values() for row in rows.values() for mark in row}
    assert set(EXPECTED.refusals) <= used
