"""Errors of a simulated run that are our own bugs. Apart from who raises them: compiled modules cannot define any."""

from __future__ import annotations


class RuleBroken(AssertionError):
    """A simulated run did what must never be: our own bug, in a machine or in the simulator."""


class UnexpectedCommand(AssertionError):
    """A machine asked for what no event of a simulation leads to."""
