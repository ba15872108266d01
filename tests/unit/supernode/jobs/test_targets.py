"""Which nodes a job is for."""

from __future__ import annotations

import pytest

from supernode.jobs.targets import Candidate, check, choose

NODES = [Candidate(f"{number:02x}" * 8, f"eu/eu-{number % 2}/rack{number}") for number in range(10)]


@pytest.mark.parametrize("text", ["all", "1", "20000", "zone=eu", "zone=eu/eu-1/rack3", "node=00112233"])
def test_these_are_forms(text: str) -> None:
    assert check(text) == text


@pytest.mark.parametrize(
    "text", ["", "none", "0", "-1", "20001", "9" * 40, "zone=", "zone=/", "node=01", "node=XYZXYZXY"]
)
def test_these_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="expected all"):
        check(text)


def test_all_are_all() -> None:
    assert choose("all", 1, NODES) == tuple(node.name for node in NODES)


def test_a_zone_is_named_by_as_many_parts_as_one_likes() -> None:
    assert len(choose("zone=eu", 1, NODES)) == 10
    assert choose("zone=eu/eu-1", 1, NODES) == tuple(node.name for node in NODES[1::2])
    assert choose("zone=eu/eu-1/rack3", 1, NODES) == (NODES[3].name,)
    assert choose("zone=e", 1, NODES) == ()


def test_a_node_is_named_by_the_begin_of_its_name() -> None:
    assert choose("node=03030303", 1, NODES) == (NODES[3].name,)


def test_a_number_means_the_same_nodes_again_whatever_their_order_and_others_for_another_job() -> None:
    chosen = choose("3", 7, NODES)
    assert len(chosen) == 3
    assert set(choose("3", 7, list(reversed(NODES)))) == set(chosen)
    assert len({frozenset(choose("3", job, NODES)) for job in range(10)}) > 1


def test_who_is_gone_is_replaced_and_the_others_stay() -> None:
    chosen = choose("3", 7, NODES)
    left = [node for node in NODES if node.name != chosen[0]]
    assert set(chosen[1:]) < set(choose("3", 7, left))


def test_more_than_there_are_is_all() -> None:
    assert len(choose("50", 7, NODES)) == 10
