"""`layercast-bench sim`: the production machines under a virtual clock, and how far they are from the bounds."""

from __future__ import annotations

import secrets
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from benchmarks.flags import seed
from benchmarks.report import Outputs, Report, machine, print_table, write_json
from benchmarks.simulator import flags, replay_command, report, suite
from benchmarks.simulator.errors import RuleBroken
from benchmarks.simulator.limits import Verdict, figures, judge
from benchmarks.simulator.memory import end_with_process, uncollected
from benchmarks.simulator.scenarios import SCENARIOS, named
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.simulation import Simulation
from proto.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from benchmarks.scenario import Scenario
    from benchmarks.simulator.limits import Limit
    from benchmarks.simulator.simulation import Outcome

HELP = "simulate a fan-out with the production scheduler and downloaders, at a virtual clock"

_FRESH: Final = "fresh"
_ERRORS_SHOWN: Final = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; values are checked in run, which says what would be right."""
    add = parser.add_argument
    add("scenario", nargs="?", metavar="SCENARIO", help="a named one; --list tells them")
    add("--list", action="store_true", help="tell the named scenarios, and what each has to reach")
    add("--suite", action="store_true", help="all of them in their small size, with two seeds; exit 1 for any problem")
    add("--small", action="store_true", help="the named scenario in its small size, as in the suite")
    add("--gate", action="store_true", help="exit 1 where a limit of the scenario is not met")
    add("--seed", metavar="S", help="of every random choice, a number or fresh [1; of the suite's second run: fresh]")
    Outputs.add_arguments(parser)
    flags.add_arguments(parser)
    replay_command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Simulate, print, keep. Raises ConfigError and LocalError."""
    if arguments.replay is not None:
        return replay_command.run(arguments)
    if arguments.list:
        _print_scenarios()
        return 0
    if arguments.suite:
        return _run_suite(arguments)
    if arguments.scenario is None and arguments.nodes is None:
        raise ConfigError("a SCENARIO (--list tells them), --nodes N, --suite or --replay FILE expected")
    chosen = _seed(arguments.seed or "1")
    if arguments.scenario is None:
        settings = flags.settings(arguments, SimulationSettings())
        return _run_one(flags.scenario(arguments, chosen), settings, (), arguments)
    one = named(arguments.scenario)
    flags.refuse_with_named(arguments, one.name)
    scenario = replace(one.small if arguments.small else one.full, seed=chosen)
    return _run_one(scenario, flags.settings(arguments, one.settings), one.limits, arguments)


def _seed(text: str) -> int:
    return secrets.randbelow(2**31) if text == _FRESH else seed(text)


def _run_one(
    scenario: Scenario,
    settings: SimulationSettings,
    limits: tuple[Limit, ...],
    arguments: argparse.Namespace,
) -> int:
    outputs = Outputs.of(arguments)
    try:
        with uncollected():
            outcome = Simulation(scenario, settings).run()
            end_with_process()
    except RuleBroken as error:
        print(f"layercast-bench sim: rule broken, seed {scenario.seed}: {error}", file=sys.stderr)
        return 1
    verdicts = judge(limits, [figures(limits, outcome)], small=arguments.small)
    _show(outcome, verdicts, outputs)
    for line in outcome.errors[:_ERRORS_SHOWN]:
        print(line, file=sys.stderr)
    if limits:
        return 1 if arguments.gate and not all(verdict.met for verdict in verdicts) else 0
    return 1 if outcome.errors else 0


def _show(outcome: Outcome, verdicts: tuple[Verdict, ...], outputs: Outputs) -> None:
    scenario = outcome.scenario.pulls_alone
    more = {
        "simulation": report.simulation(outcome),
        "limits": [suite.verdict_entry(verdict) for verdict in verdicts],
    }
    title = f"simulated: {scenario.name or 'a scenario of flags'}"
    links = report.links(outcome.settings, scenario)
    outputs.publish(Report(scenario, outcome.bounds, (outcome.run,), title, links, more))
    if verdicts:
        rows = [
            (one.name, suite.shown(one.value), f"{one.at_most:g}", "met" if one.met else "NOT MET") for one in verdicts
        ]
        print_table("limits", ("", "came to", "at most", ""), rows)
    print(report.assumptions(outcome.settings))
    print(report.trace_line(outcome))


def _run_suite(arguments: argparse.Namespace) -> int:
    outputs = Outputs.of(arguments)
    results = suite.run_suite(_seed(arguments.seed or _FRESH))
    if outputs.json_path is not None:
        write_json(outputs.json_path, {**suite.document(results), "machine": machine()})
    return 1 if any(result.problems for result in results) else 0


def _print_scenarios() -> None:
    for one in SCENARIOS.values():
        print(f"{one.name:<13} {one.about}")
        for limit in one.limits:
            print(f"{'':<13}   {limit.name} <= {limit.at_most:g}")
