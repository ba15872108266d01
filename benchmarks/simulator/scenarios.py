"""The simulator's named scenarios: what happens, what must be reached, a small size of each for CI. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from benchmarks.bounds import bounds
from benchmarks.scenario import Arrivals, Faults, NodeClass, OriginBehaviour, Scenario, equal_links
from benchmarks.simulator import limits
from benchmarks.simulator.settings import SimulationSettings
from proto.errors import ConfigError
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.limits import Limit

GBIT_BYTES_S: Final = 125_000_000.0
PIECE_BYTES: Final = 4 * MIB
NODES: Final = 200
PIECES: Final = 125
# Of the small sizes: as few as show what the scenario is about, so that all of them run in a minute or two.
SMALL_NODES: Final = 60
SMALL_PIECES: Final = 40


@dataclass(frozen=True, slots=True)
class Named:
    """A scenario in both sizes, with its limits."""

    about: str
    full: Scenario
    small: Scenario
    limits: tuple[Limit, ...]
    settings: SimulationSettings = field(default_factory=SimulationSettings)

    @property
    def name(self) -> str:
        """What it is asked for by."""
        return self.full.name


def equal(name: str, nodes: int = NODES, pieces: int = PIECES) -> Scenario:
    """Equal links of 1 Gbit/s for nodes, supernode and origin."""
    scenario = equal_links(nodes, (pieces * PIECE_BYTES,), GBIT_BYTES_S)
    return replace(scenario, name=name, piece_size_bytes=PIECE_BYTES)


def mixed(scenario: Scenario) -> Scenario:
    """Half of the nodes have a quarter of the rate."""
    quarter = GBIT_BYTES_S / 4
    classes = (NodeClass("full", 1, GBIT_BYTES_S, GBIT_BYTES_S), NodeClass("quarter", 1, quarter, quarter))
    return replace(scenario, classes=classes)


def image(scenario: Scenario) -> Scenario:
    """The same bytes in five layers of 40, 25, 20, 10 and 5 %, whole pieces each, three at a time."""
    pieces = scenario.pieces
    layers = [pieces * part // 100 for part in (25, 20, 10, 5)]
    blobs = tuple(count * PIECE_BYTES for count in (pieces - sum(layers), *layers))
    return replace(scenario, blobs=blobs, parallel=3)


def racks(scenario: Scenario, count: int) -> Scenario:
    """Trunks of a quarter of what their rack's nodes have together."""
    trunk = scenario.nodes / count * GBIT_BYTES_S / 4
    return replace(scenario, racks=count, trunk_bytes_s=trunk)


def leaving(scenario: Scenario, part: float, back_after_s: float = 0.0) -> Scenario:
    """So many leave, at times spread over the first half of the fluid time that the scenario has without them."""
    until_s = bounds(scenario).fluid_s / 2
    faults = replace(scenario.faults, churn_part=part, churn_to_s=until_s, churn_back_after_s=back_after_s)
    return replace(scenario, faults=faults)


def _named(
    name: str,
    about: str,
    change: Callable[[Scenario], Scenario],
    *own: Limit,
    pieces: int = PIECES,
    settings: SimulationSettings | None = None,
) -> Named:
    """A scenario made from equal links in both sizes. `own` are its limits beside those that hold for every one."""
    return Named(
        about=about,
        full=change(equal(name, pieces=pieces)),
        small=change(equal(name, SMALL_NODES, SMALL_PIECES * pieces // PIECES)),
        limits=(*own, limits.errors(), limits.origin_once()),
        settings=settings or SimulationSettings(),
    )


def _mess(scenario: Scenario) -> Scenario:
    faults = Faults(slow_part=0.05, corrupt_part=0.01)
    return leaving(replace(mixed(scenario), faults=faults), 0.3)


def _origin(behaviour: OriginBehaviour) -> Callable[[Scenario], Scenario]:
    return lambda scenario: replace(scenario, origin=behaviour)


def _faulty(faults: Faults) -> Callable[[Scenario], Scenario]:
    return lambda scenario: replace(scenario, faults=faults)


def _tiny(scenario: Scenario) -> Scenario:
    """10 KB over links of 100 Mbit/s."""
    tiny = equal_links(scenario.nodes, (10_000,), GBIT_BYTES_S / 10)
    return replace(tiny, name=scenario.name)


def _all() -> tuple[Named, ...]:
    # Of 87 seeds 13 were above 1.09, by nothing but chance, and none above 1.112; no mean of 16 was above 1.086.
    cold = limits.x_piece(1.03, small=1.13, mean_small=1.0875)
    # 20 seeds: 1.054, deviation 0.004, 1.065 at most.
    fine = limits.x_piece(1.03, small=1.08)
    survivors = limits.groups(1.25, small=2.2)
    one_fetch = limits.origin_gets(1)
    return (
        _named("cold", "equal links, everybody asks at 0", lambda one: one, cold, one_fetch),
        _named("fine", "cold, in twice as many pieces", lambda one: one, fine, one_fetch, pieces=2 * PIECES),
        _named("image", "five layers, three at a time", image, limits.x_fluid(1.10, small=1.75), limits.origin_gets(5)),
        _named("mixed", "half of the nodes at a quarter of the rate, which no peer declares", mixed, survivors),
        _named("declared", "mixed, with declared rates", lambda one: replace(mixed(one), declared=True), survivors),
        _named("churn", "30 % leave in the first half of the fluid time", lambda one: leaving(one, 0.3), survivors),
        _named("return", "churn, and they come back after a second", lambda one: leaving(one, 0.3, 1.0), survivors),
        _named(
            "crash", "10 % lose their power: nothing tells the others but time", lambda one: leaving(one, 0.1),
            settings=SimulationSettings(power_loss=True),
        ),
        _named("slow", "5 % have a twentieth of their links", _faulty(Faults(slow_part=0.05)), survivors),
        _named("corrupt", "1 % serve wrong bytes", _faulty(Faults(corrupt_part=0.01)), survivors),
        _named("mess", "mixed with 30 % churn, 5 % slow and 1 % corrupt", _mess, survivors),
        _named(
            "racks", "ten racks of 20, trunks of a quarter of their nodes' links", lambda one: racks(one, 10),
            limits.cross_rack(1.2), limits.x_fluid(1.2, small=2.1),
        ),
        _named(
            "slow-origin", "the origin's first byte comes after 5 s", _origin(OriginBehaviour(first_byte_s=5.0)),
            one_fetch,
        ),
        _named(
            "origin-429", "the origin refuses twice, to be asked again after 2 s",
            _origin(OriginBehaviour(refused=2, retry_after_s=2.0)),
            limits.origin_gets(3),
        ),
        _named(
            "elected", "the origin refuses nine times: the supernode gives up, and one node fetches for all",
            _origin(OriginBehaviour(refused=9, retry_after_s=1.0)), limits.origin_gets(10),
        ),
        _named(
            "origin-stall", "the origin stands still for 12 s half way, longer than anybody waits for a byte",
            _origin(OriginBehaviour(stall_s=12.0)), limits.origin_gets(2),
        ),
        _named(
            "joiner", "five nodes ask when all others are complete",
            lambda one: replace(one, arrivals=Arrivals(joiners=5)), limits.own(1.1, joiners=True), one_fetch,
        ),
        _named(
            "poisson", "20 nodes a second ask", lambda one: replace(one, arrivals=Arrivals(poisson_per_s=20.0)),
            one_fetch,
        ),
        _named(
            "preheat", "another blob comes to all nodes for which no client waits, and half of them have none",
            lambda one: replace(one, preheat_bytes=one.size_bytes, bystanders=one.nodes // 2),
            limits.x_piece(1.13, small=1.24),
        ),
        _named("tiny", "10 KB over 100 Mbit/s", _tiny, limits.last_after_origin_s(0.5), one_fetch),
    )  # fmt: skip


SCENARIOS: Final = {one.name: one for one in _all()}


def named(name: str) -> Named:
    """Raises ConfigError, which lists the known ones."""
    found = SCENARIOS.get(name)
    if found is None:
        raise ConfigError(f"scenario {name}: unknown; there are {', '.join(SCENARIOS)}")
    return found
