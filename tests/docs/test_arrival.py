"""The table of docs/arrival.md says of each case what the tests of the data planes show."""

import re
from pathlib import Path

from tests.dataplane.nftables.test_passive_arrival import TestNftables as NftablesCases
from tests.dataplane.passive_arrival_contract import HOSTS
from tests.system.ipvs.test_passive_arrival import TestIpvs as IpvsCases

PAGE = Path(__file__).parents[2] / "docs" / "arrival.md"
ROW = re.compile(r"^\| (?P<case>\d+)\. [^|]+ \| (?P<nftables>[^|]+) \| (?P<ipvs>[^|]+) \|", re.MULTILINE)


def test_the_table_has_what_the_tests_show() -> None:
    rows = {int(row["case"]): row for row in ROW.finditer(PAGE.read_text())}
    assert list(rows) == list(range(1, 13))
    seen = {plane: {case for case, row in rows.items() if row[plane] == "**seen**"} for plane in ("nftables", "ipvs")}
    assert seen == {"nftables": set(NftablesCases.cases), "ipvs": set(IpvsCases.cases)}
    assert seen["nftables"] | seen["ipvs"] == set(HOSTS), "each case of the lab is noticed somewhere"
    assert all(row[plane] in ("**seen**", "not seen", "-") for row in rows.values() for plane in seen)
