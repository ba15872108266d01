"""All named scenarios in their small size, each with a fixed seed and with a fresh one, or several: what CI runs."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.simulator.errors import RuleBroken
from benchmarks.simulator.limits import Figures, Verdict, figures, judge, seeds
from benchmarks.simulator.scenarios import SCENARIOS
from benchmarks.simulator.simulation import Simulation

FIXED_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Result:
    """One scenario with one seed, or with several that follow one another."""

    name: str
    seed: int
    cpu_s: float
    verdicts: tuple[Verdict, ...]
    # One a seed.
    trace_hashes: tuple[str, ...]
    # The rule that was broken; empty as it should be.
    broken: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for everything that is not as it should be."""
        missed = (f"{one.name}: {shown(one.value)}, at most {one.at_most:g}" for one in self.verdicts if not one.met)
        return (*([f"rule broken: {self.broken}"] if self.broken else []), *missed)


def shown(value: float | None) -> str:
    """A figure, or that there is none."""
    return "none" if value is None else f"{value:.3f}"


def run_one(name: str, seed: int) -> Result:
    """The named scenario in its small size, with this seed and as many that follow as its limits ask for."""
    one = SCENARIOS[name]
    began_s = time.process_time()
    runs: list[Figures] = []
    hashes = []
    for each in range(seed, seed + seeds(one.limits)):
        try:
            outcome = Simulation(replace(one.small, seed=each), one.settings).run()
        except RuleBroken as error:
            return Result(one.name, seed, time.process_time() - began_s, (), (), f"seed {each}: {error}")
        runs.append(figures(one.limits, outcome))
        hashes.append(outcome.trace_hash)
    verdicts = judge(one.limits, runs, small=True)
    return Result(one.name, seed, time.process_time() - began_s, verdicts, tuple(hashes))


def run_suite(fresh_seed: int) -> list[Result]:
    """All of them, on every core, a line each in their order."""
    print(f"seeds {FIXED_SEED} and {fresh_seed}; to see the second again: --suite --seed {fresh_seed}", flush=True)
    results = []
    runs = list(itertools.product(SCENARIOS, dict.fromkeys((FIXED_SEED, fresh_seed))))
    # Afresh, not forked: a copy would have locks of this process's threads.
    afresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), len(runs)), mp_context=afresh) as processes:
        for result in processes.map(run_one, *zip(*runs, strict=True)):
            results.append(result)
            state = "NOT REACHED" if result.problems else "reached"
            last = result.seed + seeds(SCENARIOS[result.name].limits) - 1
            shown_seed = f"{result.seed}" if last == result.seed else f"{result.seed}-{last}"
            print(f"{result.name:<13} seed {shown_seed:<21} {result.cpu_s:6.1f} s  {state}", flush=True)
            for problem in result.problems:
                print(f"    {problem}", flush=True)
    failed = sum(bool(result.problems) for result in results)
    cpu_s = sum(result.cpu_s for result in results)
    print(f"{len(results)} runs, {failed} with something not reached, {cpu_s:.0f} s of computing")
    return results


def document(results: list[Result]) -> dict[str, object]:
    """For a JSON file."""
    return {
        "runs": [
            {
                "scenario": result.name,
                "seed": result.seed,
                "cpu_s": result.cpu_s,
                "traces_sha256": result.trace_hashes,
                "broken": result.broken,
                "limits": [verdict_entry(verdict) for verdict in result.verdicts],
            }
            for result in results
        ]
    }


def verdict_entry(verdict: Verdict) -> dict[str, object]:
    """A limit as JSON shows it."""
    return {"name": verdict.name, "value": verdict.value, "at_most": verdict.at_most, "met": verdict.met}
