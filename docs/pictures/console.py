"""Takes the pictures of the web console, `python -m docs.pictures.console`, with Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.console import ConsoleServer, MadeUpCluster
from tests.support.chromium import chromium, opened

# Name, view, width, colour scheme.
PICTURES: Final = (
    ("console-swarms", "swarms", 1000, "light"),
    ("console-nodes", "nodes", 1000, "dark"),
    ("console-narrow", "swarms", 390, "light"),
)


def main() -> None:
    with ConsoleServer(MadeUpCluster(200, 20), interval_s=1.0) as server, chromium() as browser:
        for name, view, width, scheme in PICTURES:
            with opened(browser, f"{server.url}/ui/#/{view}", width=width, scheme=scheme) as page:
                page.set_viewport_size({"width": width, "height": 640})
                # Rates are there from the second snapshot on.
                page.locator("#totals", has_text="iB/s").wait_for()
                page.screenshot(path=Path(__file__).with_name(f"{name}.png"))


if __name__ == "__main__":
    main()
