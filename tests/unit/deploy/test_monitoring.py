"""The alert rules and the board ask for metrics that the services have, and each alert is explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import peer.metrics
import supernode.metrics
from benchmarks.cluster.programs import find_program
from tests.support.missing import skip_or_fail
from tests.support.monitoring import alerts, board_queries, panels

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
TIMEOUT_S = 60.0
# What Prometheus adds to each sample.
ADDED_LABELS = {"job", "instance"}
# Of Prometheus itself.
OTHER_METRICS = {"up": set[str]()}

_METRIC = re.compile(r"\b(layercast_\w+|up)\b(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
_STRING = re.compile(r'"[^"]*"')


def exported() -> dict[str, set[str]]:
    """The labels of each metric that one of the services has."""
    found: dict[str, set[str]] = {}
    for service in (peer.metrics.Metrics(), supernode.metrics.Metrics()):
        registry: CollectorRegistry = service.registry
        for collector, names in registry._collector_to_names.items():
            found |= {name: set(getattr(collector, "_labelnames", ())) for name in names}
    return found


def promtool() -> str:
    """Its path, or the running test ends here."""
    found = find_program("promtool")
    if found is None:
        skip_or_fail("promtool is missing: apt-get install prometheus")
    return str(found)


@pytest.mark.parametrize("expression", sorted({*(alert["expr"] for alert in alerts()), *board_queries()}))
def test_a_query_asks_for_metrics_and_labels_that_are_exported(expression: str) -> None:
    known = {**exported(), **OTHER_METRICS}
    asked = dict(_METRIC.findall(_STRING.sub('""', expression)))
    assert asked
    assert set(asked) - set(known) == set()
    labels = {label for name in asked for label in known[name]} | ADDED_LABELS
    selected = {re.split(r"[=!~]", each)[0].strip() for text in asked.values() for each in text.split(",") if each}
    grouped = {each.strip() for text in _GROUPED.findall(expression) for each in text.split(",")}
    assert (selected | grouped) - labels == set()


def test_each_alert_is_explained_and_leads_to_its_explanation() -> None:
    explained = re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert [alert["alert"] for alert in alerts()] == explained
    for alert in alerts():
        assert alert["annotations"]["runbook_url"] == f"docs/alerts.md#{alert['alert'].lower()}"
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}


def test_each_alert_has_a_severity_that_is_explained() -> None:
    rows = re.findall(r"^\| (\w+) \| [^|]* \|$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert {alert["labels"]["severity"] for alert in alerts()} <= set(rows)


def test_each_alert_fires_when_it_should_and_none_on_a_good_cluster() -> None:
    done = subprocess.run(
        [promtool(), "test", "rules", "layercast.test.yaml"],
        cwd=PROMETHEUS, capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    tested = (PROMETHEUS / "layercast.test.yaml").read_text()
    assert [alert["alert"] for alert in alerts() if f'alertname="{alert["alert"]}"' not in tested] == []


def test_prometheus_takes_the_queries_of_the_board(tmp_path: Path) -> None:
    rules = [{"record": f"board:{number}", "expr": query} for number, query in enumerate(board_queries())]
    file = tmp_path / "board.rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    done = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, timeout=TIMEOUT_S
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_panels_of_the_board_have_names_of_their_own_and_do_not_overlap() -> None:
    shown = panels()
    assert len({panel["id"] for panel in shown}) == len({panel["title"] for panel in shown}) == len(shown)
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        place = panel["gridPos"]
        cells = {(place["x"] + across, place["y"] + down) for across in range(place["w"]) for down in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
