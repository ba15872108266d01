"""The web console in Chromium: what it shows, by keyboard, on narrow screens, dark and light, and its login."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.services import LOOPBACK, Supernode
from benchmarks.console import ConsoleServer, MadeUpCluster
from tests.support.chromium import ELSEWHERE, chromium, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.client("chromium")
expect.set_options(timeout=1000 * WAIT_S)
VIEWS = ("swarms", "nodes", "jobs", "events", "upstreams", "quarantine", "story")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def console() -> Iterator[str]:
    """The URL of one whose 25 nodes get some pieces of two blobs each second."""
    with ConsoleServer(MadeUpCluster(25, 2), interval_s=1.0) as server:
        yield f"{server.url}/ui/"


def shown(page: Page) -> None:
    """Wait for the first snapshot."""
    expect(page.locator("#totals")).to_be_visible()


def tile(page: Page, name: str) -> str:
    return page.locator(f"#totals div:has(dt:text-is('{name}')) dd").inner_text()


def test_it_shows_swarms_and_goes_on_without_a_shift_of_what_is_there(browser: Browser, console: str) -> None:
    with opened(browser, console) as page:
        shown(page)
        assert (tile(page, "Nodes"), tile(page, "Swarms")) == ("25", "2")
        expect(page.locator("#swarms > li")).to_have_count(2)
        first = page.locator("#swarms > li").first
        assert first.locator("canvas").get_attribute("aria-label").startswith("Piece map: 256 cells")  # type: ignore[union-attr]
        assert first.locator(".zones li").count() == 2
        assert "supernode to nodes" in first.inner_text()
        expect(page.locator("#state")).to_have_text("live")
        # Rates come with the second snapshot, and the next ones bring more.
        expect(page.locator("#totals")).to_contain_text("iB/s")
        saved = tile(page, "Origin saved")
        assert "USD" in saved
        wait_until(lambda: tile(page, "Origin saved") != saved, "another snapshot is shown")
        assert page.evaluate("window.shift") < 0.01


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(browser: Browser, console: str, width: int, scheme: str) -> None:
    with opened(browser, console, width=width, scheme=scheme) as page:
        shown(page)
        # Five rows say as much as 25, which take it long.
        page.locator("#filter").evaluate("(field) => { field.value = 'rack2'; }")
        for view in VIEWS if scheme == "light" else ("swarms", "nodes", "story"):
            page.evaluate("(view) => { location.hash = `#/${view}`; }", view)
            expect(page.locator(f"#view-{view}")).to_be_visible()
            found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found] == []


def test_nothing_is_wider_than_a_narrow_screen(browser: Browser, console: str) -> None:
    with opened(browser, console, width=320) as page:
        shown(page)
        for view in VIEWS:
            page.evaluate("(view) => { location.hash = `#/${view}`; }", view)
            expect(page.locator(f"#view-{view}")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_keyboard_reaches_all_of_it(browser: Browser, console: str) -> None:
    with opened(browser, console) as page:
        shown(page)
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        for name in ("Swarms", "Nodes"):
            page.keyboard.press("Tab")
            expect(page.get_by_role("link", name=name, exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#view-nodes")).to_be_visible()
        expect(page.locator("#content")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.type("QUARANTINE")
        expect(page.locator("#nodes tbody tr")).to_have_count(1)
        assert "in quarantine: served piece 17 corrupt" in page.locator("#nodes tbody tr").inner_text()
        page.locator("#filter").fill("")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        expect(page.locator("#nodes th").first).to_have_attribute("aria-sort", "descending")
        expect(page.locator("#nodes tbody tr").first.locator("td").first).to_have_text("25")


def test_a_swarm_s_title_leads_to_the_story_of_its_pieces(browser: Browser, console: str) -> None:
    with opened(browser, console) as page:
        shown(page)
        page.locator("#swarms a").first.press("Enter")
        expect(page.locator("#story-said")).to_contain_text("Piece 0 of 256 of sha256:")
        expect(page.locator("#story li").first).to_contain_text("ago: ")
        page.locator("#story-piece").fill("256")
        page.keyboard.press("Enter")
        expect(page.locator("#story-said")).to_have_text("the blob has pieces 0 to 255")


def test_upstreams_tell_their_queue_errors_and_retry_after(browser: Browser, console: str) -> None:
    with opened(browser, f"{console}#/upstreams") as page:
        shown(page)
        row = page.locator("#upstreams tbody tr", has_text="quay.io answered 429")
        assert row.locator("td").all_inner_texts()[:6] == ["quay.io", "4 fetch", "1", "2", "0", "17 s"]


def test_registry_events_tell_their_state_rules_and_errors(browser: Browser, console: str) -> None:
    with opened(browser, f"{console}#/events") as page:
        shown(page)
        assert page.locator("#events-said").inner_text().startswith("0 waiting, 1 worked on, 1 dead. Tags of 3")
        dead = page.locator("#events tbody tr", has_text="quay.io answered 401")
        assert dead.locator("td").all_inner_texts()[:3] == ["41", "quay.io/org/app:0.9", "dead"]
        assert "quay.io/org/*" in page.locator("#rules tbody tr").inner_text()
        assert "quay.io answered 404" in page.locator("#problems tbody tr").inner_text()


def test_an_address_that_nobody_can_read_breaks_nothing(browser: Browser, console: str) -> None:
    with opened(browser, f"{console}#/story/%zz") as page:
        shown(page)
        expect(page.locator("#story-said")).to_contain_text("no live swarm of that blob")
        page.evaluate("location.hash = '#/constructor'")
        expect(page.locator("#view-swarms")).to_be_visible()


def test_the_same_story_is_told_anew_when_it_is_asked_for_again(browser: Browser, console: str) -> None:
    with opened(browser, console) as page:
        shown(page)
        page.locator("#swarms a").first.press("Enter")
        expect(page.locator("#story-said")).to_contain_text("Piece 0 of 256")
        with page.expect_request("**/v1/story?*"):
            page.get_by_role("button", name="Tell").click()


def test_a_stream_that_waits_for_its_next_try_is_closed_for_good(browser: Browser, console: str) -> None:
    with opened(browser, console) as page:
        shown(page)
        # From here on it passes when this says so, and no timer comes due by itself.
        page.clock.install(time=0)
        page.clock.pause_at(3_600_000)
        page.route("**/v1/console/events", lambda route: route.fulfill(status=503))
        page.evaluate(
            "import('./stream.js').then(({ follow }) => { window.told = [];"
            " window.stream = follow({ show: () => {}, ask: () => {}, say: (text) => told.push(text) }); })"
        )
        wait_until(lambda: page.evaluate("told.at(-1)") == "many look: every few seconds", "it waits")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.evaluate("stream.close()")
        page.clock.run_for(20_000)
        # What it asked would be told before this.
        with page.expect_response("**/v1/console?last"):
            page.evaluate("fetch('/v1/console?last').then((answer) => answer.text())")
        assert [url for url in asked if url.endswith("/events")] == []


def test_who_comes_from_elsewhere_logs_in_by_the_operator_s_token(browser: Browser, tmp_path: Path) -> None:
    supernode = Supernode(tmp_path, LOOPBACK, [])
    try:
        supernode.start()
        port = supernode.ready["api"].rpartition(":")[2]
        with opened(browser, f"https://{ELSEWHERE}:{port}/ui/") as page:
            expect(page.locator("#login")).to_be_visible()
            page.get_by_label("Token").fill("a guess")
            page.get_by_role("button", name="Log in").click()
            expect(page.locator("#login-said")).to_have_text("This is not the operator's token.")
            page.get_by_label("Token").fill((supernode.data_dir / "ca" / "operator.token").read_text())
            page.keyboard.press("Enter")
            shown(page)
            assert tile(page, "Nodes") == "0"
            assert page.evaluate("document.cookie") == ""
            page.reload()
            shown(page)
            page.get_by_role("button", name="Log out").click()
            expect(page.locator("#login")).to_be_visible()
            page.reload()
            expect(page.locator("#login")).to_be_visible()
    finally:
        supernode.close()
