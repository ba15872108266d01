"""What a file is without what was put into it: as it was, or as others changed it since, less our lines. Pure."""

from __future__ import annotations

from difflib import SequenceMatcher


class ChangedSince(Exception):
    """Lines of ours were changed; `lines` are those that are to be looked after by hand."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines


def undone(before: str | None, after: str | None, current: str | None) -> str | None:
    """`before` became `after` by us, and `current` by others; None: no such file. Raises ChangedSince.

    The same bytes as before where nobody else changed it. Else our lines go, the lines that were in their place come
    back, and all other lines stay.
    """
    if current is None or current == before:
        return current
    if current == after:
        return before
    made, theirs = _lines(after or ""), _lines(current)
    stays = SequenceMatcher(None, made, theirs, autojunk=False).get_matching_blocks()
    was = _lines(before or "")
    for change, begin, end, was_begin, was_end in reversed(
        SequenceMatcher(None, made, was, autojunk=False).get_opcodes()
    ):
        if change == "equal":
            continue
        # Where we only took lines away, those on both sides must be there still.
        first, last = (begin, end) if begin < end else (max(0, begin - 1), min(len(made), end + 1))
        block = next((each for each in stays if each.a <= first and last <= each.a + each.size), None)
        if block is None:
            raise ChangedSince([line.rstrip() for line in made[begin:end]])
        shift = block.b - block.a
        theirs[begin + shift : end + shift] = was[was_begin:was_end]
    # A last line without an end has one where others added lines behind ours.
    left = "".join([*(line if line.endswith("\n") else f"{line}\n" for line in theirs[:-1]), *theirs[-1:]])
    return None if before is None and not left.strip() else left


def ours(before: str | None, after: str | None) -> list[str]:
    """The lines that we wrote."""
    made, was = _lines(after or ""), _lines(before or "")
    changes = SequenceMatcher(None, made, was, autojunk=False).get_opcodes()
    return [line.rstrip() for change, begin, end, _, _ in changes if change != "equal" for line in made[begin:end]]


def _lines(text: str) -> list[str]:
    """With their ends. Only LF ends a line: other programs know no more."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
