"""The console's files: all are here, and nothing of them is elsewhere."""

from __future__ import annotations

import re

from supernode.console import pages

_MARKUP = re.compile(rb"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(")


def test_every_file_that_a_file_names_is_there() -> None:
    found = pages.load()
    for page in found.values():
        text = page.content.decode()
        for name in re.findall(r'(?:src|href)="([\w.]+)"', text) + re.findall(r'from "\./([\w.]+)"', text):
            assert name in found, name


def test_no_file_names_a_resource_elsewhere() -> None:
    for name, page in pages.load().items():
        named = set(re.findall(r"\w+://[^\"'\s)]*", page.content.decode()))
        assert named <= {"http://www.w3.org/2000/svg"}, name


def test_no_script_puts_markup_into_the_page() -> None:
    for name, page in pages.load().items():
        if name.endswith(".js"):
            assert not _MARKUP.search(page.content)


def test_an_etag_is_the_content_s() -> None:
    found = pages.load()
    assert found[""] == found["index.html"]
    assert len({page.etag for page in found.values()}) == len(found) - 1
