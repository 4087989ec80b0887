"""The dashboard and the alerts: what they name is there, and Prometheus understands them."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tornado_logsrv import dashboards
from tornado_logsrv.dashboards.__main__ import main

from .readers.test_metrics import every_metric

ROOT = Path(__file__).parent.parent
DASHBOARD = json.loads(dashboards.read("grafana.json"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
RULES = re.findall(r"^ +- alert: (\w+)\n +expr: (.+)$", dashboards.read("alerts.yml"), re.MULTILINE)


def promtool(*arguments: str) -> None:
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.gen_test
async def test_every_metric_that_they_name_is_there(fetch, app):
    families = parse(await every_metric(fetch, app))
    there = {sample.name for family in families for sample in family.samples}
    named = {name for text in [*EXPRESSIONS, *(expr for _, expr in RULES)] for name in metrics(text)}
    assert len(named) > 20
    assert named - there == {"up"}


def metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:logsrv|process|python)_\w+|\bup\b", expression))


def test_promtool_accepts_the_alerts(tmp_path):
    assert main([str(tmp_path)]) == 0
    promtool("check", "rules", str(tmp_path / "alerts.yml"))


def test_every_alert_fires_when_it_should_and_not_before():
    cases = ROOT / "tests" / "data" / "alerts_test.yml"
    assert set(re.findall(r'alertname="(\w+)"', cases.read_text(encoding="utf-8"))) == {name for name, _ in RULES}
    promtool("test", "rules", str(cases))


def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path):
    known = {"$__rate_interval": "5m", "$job": "logsrv", "$instance": "a"}
    rules = []
    for number, expression in enumerate(EXPRESSIONS):
        for variable, stand_in in known.items():
            expression = expression.replace(variable, stand_in)
        assert "$" not in expression
        rules.append({"record": f"panel:expression:{number}", "expr": expression})
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_no_panel_lies_on_another():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_they_are_written_where_one_wants_them(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["alerts.yml", "grafana.json"]
    assert json.loads((tmp_path / "grafana.json").read_text(encoding="utf-8")) == DASHBOARD
    with pytest.raises(SystemExit, match="2"):
        main([])
    capsys.readouterr()
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere/alerts.yml" in capsys.readouterr().err
