"""The alert rules and the board's queries, as they stand in deploy/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

_DEPLOY: Final = Path(__file__).parents[2] / "deploy"
RULES: Final = _DEPLOY / "prometheus" / "layercast.rules.yaml"
_BOARD: Final = _DEPLOY / "grafana" / "layercast.json"
# What Grafana puts in place of variables.
_VARIABLES: Final = (("$__rate_interval", "2m"), ("$__range", "3h"), ("$supernode", "layercast-supernode"))


def alerts() -> list[dict[str, Any]]:
    """The rules, in their order."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Of the board, those that show something."""
    return [panel for panel in json.loads(_BOARD.read_text())["panels"] if panel["type"] != "row"]


def board_queries() -> list[str]:
    """As Grafana sends them."""
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable, value in (*_VARIABLES, ("$peer", "layercast-peer")):
        queries = [query.replace(variable, value) for query in queries]
    return queries
