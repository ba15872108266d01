"""`layercast-bench fanout`: what its flags mean, and one line for those that make no sense."""

from __future__ import annotations

import argparse
import os

import pytest

from benchmarks.__main__ import main
from benchmarks.cluster import programs
from benchmarks.fanout.plan import Plan, add_arguments, plan
from proto.errors import LocalError

ROOT = 0
SOMEBODY = 1000


def asked(*words: str) -> Plan:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return plan(parser.parse_args(list(words)))


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ROOT)


def test_rates_are_written_as_tc_or_as_our_programs_write_them() -> None:
    assert asked("--rate", "3mbit").node_rate_bytes_s == 375_000
    assert asked("--rate", "1MiB/s").node_rate_bytes_s == 1 << 20


def test_origin_and_supernode_have_a_nodes_link_unless_told_otherwise() -> None:
    scenario = asked("--rate", "8mbit", "--origin-rate", "80mbit").scenario
    assert (scenario.origin_bytes_s, scenario.supernode_bytes_s) == (10_000_000, 1_000_000)


def test_layers_are_equal_and_add_up_to_the_size() -> None:
    scenario = asked("--size", "64MiB", "--layers", "5").scenario
    assert scenario.size_bytes == 64 << 20
    assert max(scenario.blobs) - min(scenario.blobs) <= 1


def test_layers_of_many_sizes_go_from_the_least_to_the_most_in_an_order_of_the_seeds() -> None:
    words = ("--layers", "5", "--sizes", "10KB-160KB")
    blobs = asked(*words).scenario.blobs
    assert sorted(blobs) == [10_000, 20_000, 40_000, 80_000, 160_000]
    assert asked(*words).scenario.blobs == blobs
    assert any(asked(*words, "--seed", str(seed)).scenario.blobs != blobs for seed in range(2, 8))


def test_racks_come_with_their_trunks() -> None:
    scenario = asked("--racks", "4", "--uplink-rate", "16mbit").scenario
    assert (scenario.racks, scenario.trunk_bytes_s) == (4, 2_000_000)


def test_arrivals_and_joiners() -> None:
    arrivals = asked("--arrival", "poisson:2.5", "--joiners", "3").scenario.arrivals
    assert (arrivals.poisson_per_s, arrivals.joiners) == (2.5, 3)


def test_without_root_it_runs_on_loopback_and_declares_the_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    found = asked()
    assert not found.shaped
    assert found.scenario.declared


@pytest.mark.parametrize("words", ["--racks 2 --uplink-rate 3mbit", "--control shared", "--frames 9000"])
def test_what_needs_namespaces_is_refused_without_them(words: str) -> None:
    with pytest.raises(LocalError, match="needs network namespaces"):
        asked("--no-netns", *words.split())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--nodes 0", "--nodes 0: expected at least 1"),
        ("--nodes many", "whole number"),
        ("--nodes 5000", "at most 1000"),
        ("--size 5x", "expected a size"),
        ("--size 0", "at least one byte"),
        ("--rate 3foo", "expected a rate"),
        ("--rate 0", "at least 100kbit"),
        ("--origin-rate -1", "--origin-rate -1: expected a rate"),
        ("--mode fast", "expected native, torrent or scheduled"),
        ("--mode native,native", "each mode once"),
        ("--layers 0", "at least 1"),
        ("--size 3 --layers 4", "more than the bytes"),
        ("--sizes 4MB", "expected A-B"),
        ("--sizes 4MB-1KB", "no more first than last"),
        ("--racks 2", "needs --uplink-rate"),
        ("--uplink-rate 3mbit", "needs --racks"),
        ("--racks 30 --uplink-rate 3mbit", "between 0 and the number of nodes"),
        ("--arrival soon", "expected all or poisson:"),
        ("--arrival poisson:0", "above 0"),
        ("--arrival poisson:x", "expected a number"),
        ("--joiners 20", "fewer than the 20 nodes"),
        ("--control none", "expected own or shared"),
        ("--frames 1000", "at least 1500"),
        ("--frames 9001", "at most 9000"),
        ("--max-x-piece 0.5", "at least 1"),
        ("--mode native --max-x-piece 2", "which --mode native leaves out"),
        ("--native-limit soon", "expected a time"),
        ("--store-dir /nowhere", "expected a folder"),
        ("--event-log /nowhere/log", "its folder must exist"),
        ("--json /nowhere/figures", "its folder must exist"),
    ],
)
def test_what_makes_no_sense_gets_one_line(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fanout", *words.split()]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("layercast-bench fanout: ")
    assert complaint in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--no-netns", "needs network namespaces"),
        ("--bystanders 8", "at most 7"),
        ("--preheat 0", "at least one byte"),
        ("--rounds 0", "at least 1"),
    ],
)
def test_a_preheat_that_makes_no_sense_gets_one_line_too(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preheat", *words.split()]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("layercast-bench preheat: ")
    assert complaint in shown
    assert shown.count("\n") == 1


def test_a_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "find_program", lambda name: None if name == "tc" else f"/usr/bin/{name}")
    assert main(["fanout"]) == 1
    assert capsys.readouterr().err == "layercast-bench fanout: tc is not installed: apt-get install iproute2\n"
