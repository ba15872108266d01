"""No command of the downloader is forgotten."""

from __future__ import annotations

from typing import get_args
from unittest.mock import Mock

from peer.downloader import contract
from peer.node.command_handler import CommandHandler, methods_of


def test_every_command_has_its_method() -> None:
    methods = methods_of(Mock(spec=CommandHandler))
    assert set(methods) == set(get_args(contract.Command))
