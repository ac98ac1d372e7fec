"""The files for Prometheus and Grafana in `deploy/`, checked by promtool and against the metrics."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mesh.api.metrics.families import METRIC_FAMILIES, MetricsInput, render_metrics
from tests.api.metrics.test_families import OBSERVED
from tests.system.e2e.programs import call

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus-alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
KNOWN = {family.name for family, _ in METRIC_FAMILIES} | {
    f"{family.name}_{part}"
    for family, _ in METRIC_FAMILIES
    if family.kind == "histogram"
    for part in ("bucket", "sum", "count")
}


def expressions() -> Iterator[str]:
    """All of the dashboard, with what Grafana puts in for its variables."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$worker", ".*")


@pytest.mark.parametrize("text", [*expressions(), ALERTS.read_text()])
def test_only_existing_metrics_are_used(text: str) -> None:
    assert set(re.findall(r"\bvipmesh_\w+", text)) <= KNOWN


async def test_alerts_fire_on_their_condition() -> None:
    code, output = await call("promtool", "check", "rules", str(ALERTS))
    assert code == 0, output
    code, output = await call("promtool", "test", "rules", str(ROOT / "tests" / "data" / "prometheus_alerts_test.yaml"))
    assert code == 0, output
    assert "SUCCESS" in output


async def test_prometheus_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    """There is a check of rules and none of dashboards: each expression becomes a rule."""
    rules = [{"record": f"panel:number_{n}", "expr": expr} for n, expr in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, output = await call("promtool", "check", "rules", str(file))
    assert code == 0, output
    assert f"{len(rules)} rules found" in output
    file.write_text(file.read_text().replace("rate(", "ratio(", 1))
    code, output = await call("promtool", "check", "rules", str(file))
    assert code != 0, "a mistake is found"


async def test_promtool_accepts_the_metrics(tmp_path: Path) -> None:
    text = tmp_path / "metrics"
    text.write_bytes(render_metrics(MetricsInput(OBSERVED)))
    code, output = await call(
        "sh", "-c", f"command -v promtool >/dev/null || exit 127; promtool check metrics < {text}"
    )
    if code == 127:
        await call("promtool")
    assert (code, output) == (0, "")


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "templating", "panels"} <= board.keys()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["datasource"]["uid"] == "${datasource}", "whoever imports it chooses"
    used = set(re.findall(r"\$(\w+)", " ".join(t["expr"] for p in board["panels"] for t in p["targets"])))
    assert used - {"__rate_interval"} <= {variable["name"] for variable in board["templating"]["list"]}
