from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.setup.reversal import ChangedSince, undone

LINES = st.lists(st.sampled_from(["a", "b", "[t]", "x = 1", ""]), max_size=8)
OURS = st.lists(st.sampled_from(["our 1", "our 2", "our 3"]), min_size=1, max_size=3)


def text_of(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@given(LINES, st.data())
def test_what_nobody_else_changed_is_as_it_was(lines: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(lines)))
    before = text_of(lines).removesuffix("\n") if data.draw(st.booleans()) else text_of(lines)
    after = text_of([*lines[:at], *data.draw(OURS), *lines[at:]])
    assert undone(before, after, after) == before


@given(LINES, OURS, st.data())
def test_lines_of_others_stay_and_ours_go(lines: list[str], ours: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(lines)))
    above, below = lines[:at], lines[at:]
    theirs = st.lists(st.sampled_from(["their 1", "their 2"]), max_size=3)
    first, last = data.draw(theirs), data.draw(theirs)
    current = text_of([*first, *above, *ours, *below, *last])
    assert undone(text_of(lines), text_of([*above, *ours, *below]), current) == text_of([*first, *lines, *last])


@given(LINES, LINES, LINES)
def test_whatever_others_made_of_it_it_is_taken_back_or_refused(
    before: list[str], after: list[str], current: list[str]
) -> None:
    try:
        found = undone(text_of(before), text_of(after), text_of(current))
    except ChangedSince:
        return
    assert found is not None


def test_a_line_that_we_replaced_comes_back() -> None:
    before, after = "[r]\npath = ''\n[s]\n", "[r]\npath = 'ours'\n[s]\n"
    assert undone(before, after, after + "more = 1\n") == before + "more = 1\n"


def test_a_line_of_ours_that_was_changed_is_named() -> None:
    with pytest.raises(ChangedSince) as refused:
        undone("a\n", "a\nours = 1\n", "a\nours = 2\n")
    assert refused.value.lines == ["ours = 1"]


def test_a_file_that_was_ours_alone_is_gone() -> None:
    assert undone(None, "ours\n", "ours\n") is None
    assert undone(None, "ours\n", "ours\n\n") is None
    assert undone(None, "ours\n", "theirs\nours\n") == "theirs\n"


def test_a_file_that_others_removed_stays_away() -> None:
    assert undone("a\n", "a\nours\n", None) is None
