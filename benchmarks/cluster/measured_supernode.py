"""The supernode's unchanged main, its steps measured: `python -m benchmarks.cluster.measured_supernode FILE ...`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.cluster.steps import Steps


def main() -> None:
    """Write the steps to FILE in the end."""
    from supernode.__main__ import run

    steps = Steps()
    steps.measure()
    try:
        status = run(sys.argv[2:])
    finally:
        steps.write(Path(sys.argv[1]))
    sys.exit(status)


if __name__ == "__main__":
    main()
