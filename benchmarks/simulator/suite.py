"""All named scenarios in their small size, each with a fixed seed and with a fresh one: what CI runs.

What small swarms come to varies by some percent with the seed. Where a fresh seed misses such a figure and no
rule, the median of it and of the next two seeds counts. The fixed seed has one try, and so has every rule.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.simulator.errors import RuleBroken
from benchmarks.simulator.limits import Verdict, judge
from benchmarks.simulator.scenarios import SCENARIOS
from benchmarks.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

FIXED_SEED: Final = 1
# Tried beside a fresh seed that missed a figure.
MORE_SEEDS: Final = 2


@dataclass(frozen=True, slots=True)
class Result:
    """One scenario with one seed."""

    name: str
    seed: int
    cpu_s: float
    verdicts: tuple[Verdict, ...]
    trace_hash: str
    # The rule that was broken; empty as it should be.
    broken: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for everything that is not as it should be."""
        missed = (f"{one.name}: {shown(one.value)}, at most {one.at_most:g}" for one in self.verdicts if not one.met)
        return (*([f"rule broken: {self.broken}"] if self.broken else []), *missed)

    @property
    def untypical_at_most(self) -> bool:
        """It missed figures that hold typically, and nothing else is wrong."""
        missed = [one for one in self.verdicts if not one.met]
        return not self.broken and bool(missed) and all(one.typical and one.value is not None for one in missed)


def shown(value: float | None) -> str:
    """A figure, or that there is none."""
    return "none" if value is None else f"{value:.3f}"


def run_one(name: str, seed: int) -> Result:
    """The named scenario in its small size."""
    one = SCENARIOS[name]
    began_s = time.process_time()
    try:
        outcome = World(replace(one.small, seed=seed), one.settings).run()
    except RuleBroken as error:
        return Result(one.name, seed, time.process_time() - began_s, (), "", str(error))
    verdicts = judge(one.limits, outcome, small=True)
    return Result(one.name, seed, time.process_time() - began_s, verdicts, outcome.trace_hash)


def run_suite(fresh_seed: int) -> list[Result]:
    """All of them, on every core, a line each in their order."""
    print(f"seeds {FIXED_SEED} and {fresh_seed}; to see the second again: --suite --seed {fresh_seed}", flush=True)
    results = []
    runs = list(itertools.product(SCENARIOS, dict.fromkeys((FIXED_SEED, fresh_seed))))
    # Afresh, not forked: a copy would have locks of this process's threads.
    afresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), len(runs)), mp_context=afresh) as processes:
        for first in processes.map(run_one, *zip(*runs, strict=True)):
            result = first
            _tell(result)
            if result.seed != FIXED_SEED and result.untypical_at_most:
                seeds = [result.seed + more for more in range(1, MORE_SEEDS + 1)]
                again = list(processes.map(run_one, [result.name] * len(seeds), seeds))
                for one in again:
                    _tell(one)
                result = median_of(result, again)
                print(f"{result.name:<13} median of {1 + len(again)}: {_state(result)}", flush=True)
            results.append(result)
    failed = sum(bool(result.problems) for result in results)
    cpu_s = sum(result.cpu_s for result in results)
    print(f"{len(results)} runs, {failed} with something not reached, {cpu_s:.0f} s of computing")
    return results


def median_of(first: Result, again: Sequence[Result]) -> Result:
    """The first, with the medians of all in place of its figures; what is wrong with any beyond figures stays wrong."""
    for one in again:
        if one.broken or not (one.untypical_at_most or all(verdict.met for verdict in one.verdicts)):
            return one
    verdicts = []
    for verdict in first.verdicts:
        values = [other.value for one in (first, *again) for other in one.verdicts if other.name == verdict.name]
        known = [value for value in values if value is not None]
        verdicts.append(replace(verdict, value=median(known)) if verdict.typical else verdict)
    return replace(first, verdicts=tuple(verdicts), cpu_s=sum(one.cpu_s for one in (first, *again)))


def _state(result: Result) -> str:
    return "NOT REACHED" if result.problems else "reached"


def _tell(result: Result) -> None:
    print(f"{result.name:<13} seed {result.seed:<10} {result.cpu_s:6.1f} s  {_state(result)}", flush=True)
    for problem in result.problems:
        print(f"    {problem}", flush=True)


def document(results: list[Result]) -> dict[str, object]:
    """For a JSON file."""
    return {
        "runs": [
            {
                "scenario": result.name,
                "seed": result.seed,
                "cpu_s": result.cpu_s,
                "trace_sha256": result.trace_hash,
                "broken": result.broken,
                "limits": [verdict_entry(verdict) for verdict in result.verdicts],
            }
            for result in results
        ]
    }


def verdict_entry(verdict: Verdict) -> dict[str, object]:
    """A limit as JSON shows it."""
    return {"name": verdict.name, "value": verdict.value, "at_most": verdict.at_most, "met": verdict.met}
