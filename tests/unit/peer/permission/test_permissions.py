"""What is remembered of origins' answers, for whom and for how long."""

from __future__ import annotations

import dataclasses

import peer.permission.permissions as room
from peer.permission.permissions import Permission, Permissions, Place, Question
from proto.ids import Digest

PLACE = Place("quay.io", "team/app", Digest.of(b"layer"))
MINE = Question(PLACE, b"mine")
INFINITE = float("inf")


def test_what_was_allowed_is_allowed_for_its_time() -> None:
    permissions = Permissions(60.0)
    permissions.allow(MINE, 5, 100.0, INFINITE)
    assert permissions.known(MINE, 159.0) == Permission(5, proven=True)
    assert permissions.known(MINE, 160.0) is None


def test_no_longer_than_the_credential_is_good() -> None:
    permissions = Permissions(60.0)
    permissions.allow(MINE, 5, 100.0, 10.0)
    assert permissions.known(MINE, 110.0) is None


def test_nothing_of_it_is_for_another_credential_repository_origin_or_blob() -> None:
    permissions = Permissions(60.0)
    permissions.allow(MINE, 5, 100.0, INFINITE)
    others = [
        Question(PLACE, b"another"),
        Question(dataclasses.replace(PLACE, repository="team/other"), b"mine"),
        Question(dataclasses.replace(PLACE, upstream="ghcr.io"), b"mine"),
        Question(dataclasses.replace(PLACE, digest=Digest.of(b"else")), b"mine"),
    ]
    assert [permissions.known(other, 100.0) for other in others] == [None] * 4


def test_a_listed_blob_is_proven_by_the_origins_answer_to_anybody_there() -> None:
    permissions = Permissions(60.0)
    permissions.list_blob(MINE, 5, 100.0, INFINITE)
    assert permissions.known(MINE, 100.0) == Permission(5, proven=False)
    permissions.allow(Question(PLACE, b"another"), 5, 100.0, INFINITE)
    assert permissions.known(MINE, 100.0) == Permission(5, proven=True)


def test_an_answer_proves_nothing_in_another_repository_nor_of_another_size() -> None:
    permissions = Permissions(60.0)
    permissions.list_blob(MINE, 5, 100.0, INFINITE)
    permissions.prove(dataclasses.replace(PLACE, repository="team/other"), 5, 100.0)
    permissions.prove(PLACE, 6, 100.0)
    assert permissions.known(MINE, 100.0) == Permission(5, proven=False)


def test_a_proof_ends_with_its_time_so_that_what_was_deleted_is_asked_for() -> None:
    permissions = Permissions(60.0)
    permissions.prove(PLACE, 5, 100.0)
    permissions.list_blob(MINE, 5, 150.0, INFINITE)
    assert permissions.known(MINE, 170.0) == Permission(5, proven=False)


def test_a_refusal_ends_what_was_known() -> None:
    permissions = Permissions(60.0)
    permissions.allow(MINE, 5, 100.0, INFINITE)
    permissions.list_blob(MINE, 5, 100.0, INFINITE)
    permissions.forget(MINE)
    assert permissions.known(MINE, 100.0) is None


def test_the_oldest_goes_first() -> None:
    permissions = Permissions(60.0)
    for number in range(room.REMEMBERED_MAX + 1):
        permissions.list_blob(Question(PLACE, str(number).encode()), 5, 100.0, INFINITE)
    assert permissions.known(Question(PLACE, b"0"), 100.0) is None
    assert permissions.known(Question(PLACE, b"1"), 100.0) is not None
