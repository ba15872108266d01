"""Debian's Chromium, driven by playwright, and pages of it that note what must not happen in the web console."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from playwright.sync_api import sync_playwright

from benchmarks.cluster.processes import WAIT_S
from benchmarks.cluster.programs import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

# A name that is no address, nor this machine's own.
ELSEWHERE: Final = "supernode.test"
# Root has no sandbox; and a cluster's name needs no DNS.
_FLAGS: Final = ("--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1")
_SHIFTS: Final = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Without a screen, until the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Browser, url: str, *, width: int = 1280, scheme: Any = "light") -> Iterator[Page]:
    """A page as a new user has it. Fails where a script or the policy complained, or something came from elsewhere."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, ignore_https_errors=True
    )
    context.set_default_timeout(1000 * WAIT_S)
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(_SHIFTS)
    try:
        page.goto(url)
        yield page
    finally:
        context.close()
    # Answers to the page's own requests that are no success are told as errors, too: 403 is what a login is asked for.
    assert [text for text in complaints if "Failed to load resource" not in text] == []
    origin = url.split("/ui/")[0]
    assert [each for each in asked if not each.startswith(f"{origin}/")] == []
