"""What a simulated scenario has to reach, and whether it did. The figures are the common report's own."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks.report.summary import JOINER, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.report.summary import Summary
    from benchmarks.simulator.simulation import Outcome


# Seeds whose mean is judged where one seed tells too little: it varies by a quarter of what a seed does.
SEEDS: Final = 16

# What one run came to: for each limit a figure or several, and what each is about.
Figures: TypeAlias = "list[Sequence[tuple[str, float | None]]]"


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure that must not exceed `at_most`, or `at_most_small` where the scenario is run in its small size.

    A small swarm is further from its bound: its last pieces' way is a larger part of the whole. Where that varies by
    the seed as much as by what may be wrong, the small size is run with several seeds, whose mean `mean_small` bounds.
    """

    name: str
    at_most: float
    figure: Callable[[Summary, Outcome], Sequence[tuple[str, float | None]]]
    at_most_small: float | None = None
    mean_small: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A limit and what the run came to; a figure that it could not give is a miss."""

    name: str
    value: float | None
    at_most: float

    @property
    def met(self) -> bool:
        """Whether the limit holds."""
        return self.value is not None and self.value <= self.at_most


def seeds(limits: Sequence[Limit]) -> int:
    """With how many the small size is run, for these."""
    return 1 if all(limit.mean_small is None for limit in limits) else SEEDS


def figures(limits: Sequence[Limit], outcome: Outcome) -> Figures:
    """What the limits are about, of one run."""
    (summary,) = Report(outcome.scenario.pulls_alone, outcome.bounds, (outcome.run,)).figures
    return [limit.figure(summary, outcome) for limit in limits]


def judge(limits: Sequence[Limit], runs: Sequence[Figures], *, small: bool) -> tuple[Verdict, ...]:
    """Every limit, in order, on the worst of the runs, and of several the means that have a limit of their own."""
    verdicts = []
    for limit, each in zip(limits, zip(*runs, strict=True), strict=True):
        at_most = limit.at_most_small if small and limit.at_most_small is not None else limit.at_most
        for same in zip(*each, strict=True):
            name = f"{limit.name}{same[0][0]}"
            values = [value for _, value in same if value is not None]
            whole = len(values) == len(runs)
            if len(runs) > 1 and limit.mean_small is not None:
                verdicts.append(Verdict(f"{name}, mean", mean(values) if whole else None, limit.mean_small))
            verdicts.append(Verdict(name, max(values) if whole else None, at_most))
    return tuple(verdicts)


# --- figures -----------------------------------------------------------------------------------------------------


def x_piece(at_most: float, small: float, mean_small: float | None = None) -> Limit:
    """The last node over the piece bound."""
    return Limit("last node / piece bound", at_most, lambda one, _: [("", one.x_piece)], small, mean_small)


def x_fluid(at_most: float, small: float) -> Limit:
    """The last node over the fluid bound."""
    return Limit("last node / fluid bound", at_most, lambda one, _: [("", one.x_fluid)], small)


def groups(at_most: float, small: float, fates: Sequence[str] = ("", "slow", "corrupt")) -> Limit:
    """p99 of each class and fate, from own requests, over max(F/d_class, fluid bound over the live capacity)."""

    def figure(one: Summary, _: Outcome) -> list[tuple[str, float | None]]:
        return [
            (f", {group.class_name}{' ' * bool(group.fate)}{group.fate}", group.x_bound)
            for group in one.groups
            if group.fate in fates
        ]

    return Limit("p99 / own bound", at_most, figure, small)


def own(at_most: float, *, joiners: bool) -> Limit:
    """The worst node's time from its own request, over its own bound."""

    def figure(one: Summary, outcome: Outcome) -> list[tuple[str, float | None]]:
        first = outcome.scenario.nodes - outcome.scenario.arrivals.joiners if joiners else 0
        return [("", max((x_bound for node, x_bound in one.own_x_bound.items() if node >= first), default=None))]

    name = f"worst {JOINER} / its own bound" if joiners else "worst node / its own bound"
    return Limit(name, at_most, figure)


def cross_rack(at_most: float) -> Limit:
    """Bytes into racks over R*F."""
    return Limit("cross-rack bytes / least", at_most, lambda one, _: [("", one.cross_rack_x_minimum)])


def errors() -> Limit:
    """Nobody failed or fell back to the origin."""
    return Limit("nodes that fell back or failed", 0, lambda one, _: [("", float(one.errors))])


def origin_once() -> Limit:
    """The origin sent each byte once."""

    def figure(_: Summary, outcome: Outcome) -> list[tuple[str, float | None]]:
        return [("", outcome.run.origin_bytes / sum(outcome.scenario.all_blobs))]

    return Limit("origin bytes / size", 1.0, figure)


def origin_gets(at_most: int) -> Limit:
    """Requests for bodies, of all blobs."""
    return Limit("origin requests", at_most, lambda one, _: [("", float(one.run.origin_gets))])


def last_after_origin_s(at_most: float) -> Limit:
    """Seconds from the origin's first byte to the last node's last."""

    def figure(one: Summary, outcome: Outcome) -> list[tuple[str, float | None]]:
        first_s = outcome.scenario.origin.first_byte_s
        return [("", None if one.makespan_s is None else one.makespan_s - first_s)]

    return Limit("last node after the origin's answer, s", at_most, figure)
