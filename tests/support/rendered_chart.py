"""The Helm chart, rendered with each file of `chart_values`, as Helm does it."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.built_programs import HELM, built

CHART: Final = Path(__file__).parents[2] / "deploy" / "helm" / "layercast"
_VALUES: Final = Path(__file__).parent / "chart_values"
VARIANTS: Final = sorted(path.stem for path in _VALUES.glob("*.yaml"))
# Of Kubernetes: the oldest that the chart takes, and what clusters run.
RELEASES: Final = ("1.27", "1.33", "1.36")
_TIMEOUT_S: Final = 300.0

Manifest = dict[str, Any]


def run_helm(release: str, *values: str) -> dict[str, Any]:
    """What it says (see go_helm), by the name of the values."""
    argv = [str(built(HELM)), str(CHART), f"v{release}.0", *values]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results


@functools.cache
def rendered(release: str) -> dict[str, Any]:
    """All variants."""
    return run_helm(release, *(f"{variant}={_VALUES / variant}.yaml" for variant in VARIANTS))


def manifests(variant: str, release: str = RELEASES[-1]) -> list[Manifest]:
    """What would be installed, hooks among it."""
    result = rendered(release)[variant]
    assert not result["error"]
    texts = [text for name, text in result["manifests"].items() if name.endswith(".yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]
