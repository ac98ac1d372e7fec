"""`docs/limits.md` says what the code does, and knows every bound."""

import pytest

from mesh.config.settings import SETTINGS
from mesh.model.codes import Code
from tests.docs import limits
from tests.docs.limits import OWN, SECTIONS, Bound

ROWS = [row for rows in SECTIONS.values() for row in rows]


def test_the_page_has_the_values_of_the_code() -> None:
    assert limits.PAGE.read_text() == limits.page(), "run `python -m tests.docs.limits`"


def test_every_bound_in_the_code_has_its_row() -> None:
    listed = [constant for row in ROWS for constant in row.constants]
    assert len(listed) == len(set(listed)), "a bound is listed once"
    assert not OWN & set(listed)
    for row in ROWS:
        shown = {limits.value_of(constant) for constant in row.constants if constant not in row.also}
        assert {limits.value_of(constant) for constant in row.also} <= shown, row.what
    found = set(limits.bounds_in_the_code())
    assert found - OWN - set(listed) == set(), "add a row to tests/docs/limits.py, or a setting and a row"
    assert OWN - found == set()


@pytest.mark.parametrize("row", [row for row in ROWS if row.settings], ids=lambda row: row.what)
def test_a_bound_with_a_setting_is_the_default_of_the_setting(row: Bound) -> None:
    defaults = {limits.default_of(setting) for setting in row.settings}
    bounds = {limits.value_of(constant) for constant in row.constants}
    assert defaults <= bounds or "times the" in row.bound


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_row_names_settings_and_codes_that_there_are(row: Bound) -> None:
    assert row.differs.startswith("fixed: ") != bool(row.settings)
    assert set(row.settings) <= SETTINGS.keys()
    known = {code.value for code in Code}
    assert {word.strip(",;.") for word in row.beyond.split() if word.startswith("VM")} <= known
