"""What the chart's hooks ask of the cluster. It runs in the chart's image, and uses nothing but Python's own library.

`cluster.py token`: a join token of the supernode whose data folder is mounted here goes into a Secret, and what an
operator needs to read its metrics into another. `cluster.py undo`: each node's runtime becomes what it was before the
peer.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PAUSE_S = 2.0
ANSWER_S = 30.0


def main() -> None:
    """Exits with one line that says what failed."""
    deadline_s = time.monotonic() + float(os.environ["DEADLINE_S"])
    try:
        {"token": publish_token, "undo": undo}[sys.argv[1]](deadline_s)
    except (OSError, TimeoutError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")


def publish_token(deadline_s: float) -> None:
    """Wait for the supernode's first start, then write both Secrets."""
    folder = Path(os.environ["DATA_DIR"])
    command = ["layercast-supernode", "token", "create", "--ttl", os.environ["TTL"], "--data-dir", str(folder)]
    while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        pause(deadline_s, done.stderr.strip())
    patch_secret(os.environ["JOIN_SECRET"], {"token": done.stdout.strip()})
    named = {name: (folder / "ca" / name).read_text() for name in ("ca.pem", "operator.token")}
    patch_secret(os.environ["OPERATOR_SECRET"], named)
    print("nodes may join")


def undo(deadline_s: float) -> None:
    """Every pod of the peers begins again, and takes back what it did before it runs."""
    path = f"/apis/apps/v1/namespaces/{os.environ['NAMESPACE']}/daemonsets/{os.environ['DAEMONSET']}"
    containers = [{"name": "client", "env": [{"name": "ACTION", "value": "undo"}]}]
    spec = {
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
        "template": {"spec": {"initContainers": containers}},
    }
    generation = call("PATCH", path, {"spec": spec})["metadata"]["generation"]
    while (left := nodes_left(call("GET", path)["status"], generation)) != 0:
        pause(deadline_s, f"{left} nodes are set up still: see their pods, or uninstall with --no-hooks")
    print("taken back on all nodes")


def nodes_left(status: dict[str, Any], generation: int) -> int:
    """How many have not begun again; at least one before that was noticed."""
    if status.get("observedGeneration", 0) < generation:
        return max(1, status.get("desiredNumberScheduled", 0))
    done = min(status.get("updatedNumberScheduled", 0), status.get("numberReady", 0))
    return int(status.get("desiredNumberScheduled", 0) - done)


def patch_secret(name: str, texts: dict[str, str]) -> None:
    """Put these keys into a Secret that is there."""
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    call("PATCH", f"/api/v1/namespaces/{os.environ['NAMESPACE']}/secrets/{name}", {"data": data})


def call(method: str, path: str, body: object = None) -> Any:
    """Of the cluster's API. Raises OSError."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/strategic-merge-patch+json",
        },
    )
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S, context=trusted) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise OSError(f"{method} {path}: {error.code} {error.read(300).decode(errors='replace')}") from None


def pause(deadline_s: float, why: str) -> None:
    """Raises TimeoutError when it has lasted too long."""
    if time.monotonic() > deadline_s:
        raise TimeoutError(why)
    time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
