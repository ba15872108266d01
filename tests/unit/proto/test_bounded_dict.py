"""A dict within a limit: the entry that was set the longest ago goes, and setting one again makes it young."""

from __future__ import annotations

from proto.bounded_dict import BoundedDict


def test_the_oldest_entry_makes_room() -> None:
    table: BoundedDict[str, int] = BoundedDict(2)
    for number, key in enumerate("abc"):
        table[key] = number
    assert list(table.items()) == [("b", 1), ("c", 2)]


def test_an_entry_that_is_set_again_is_the_youngest() -> None:
    table: BoundedDict[str, int] = BoundedDict(2)
    for number, key in enumerate("abac"):
        table[key] = number
    assert list(table.items()) == [("a", 2), ("c", 3)]
