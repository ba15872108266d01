"""What is distributed to whom, over which links, and what goes wrong: for real and simulated runs alike.

The fan-out over real processes (benchmarks.fanout) and the simulator (benchmarks.simulator) run the same Scenario. It
computes nothing but what follows from it alone: each node's class, rack and fate. Rates are bytes/s, 0.0 means that
nothing limits them; times are seconds from the start.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Literal

from proto.errors import ConfigError
from proto.pieces import PieceLayout, piece_size_for

Control = Literal["own", "shared"]


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Nodes with the same links: `parts` of all nodes' parts are of this class."""

    name: str
    parts: int
    up_bytes_s: float
    down_bytes_s: float


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When clients ask: all at 0, by a Poisson process, or all but the last `joiners`, who wait for the others."""

    poisson_per_s: float = 0.0
    joiners: int = 0


@dataclass(frozen=True, slots=True)
class OriginBehaviour:
    """How the origin answers blob requests, beyond its link's rate."""

    first_byte_s: float = 0.0
    # The stream stands still once for so long, after this part of the bytes.
    stall_s: float = 0.0
    stall_after_part: float = 0.5
    # So many requests are answered 429 with this Retry-After, then they are served.
    refused: int = 0
    retry_after_s: float = 1.0
    # It gives blobs to clients of nodes alone: the supernode has no login, and one of them fetches for all.
    by_members: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """Parts of the nodes (0 to 1) that misbehave, chosen by the scenario's seed, disjoint from one another."""

    # Leave without a word, at times spread evenly over [churn_from_s, churn_to_s].
    churn_part: float = 0.0
    churn_from_s: float = 0.0
    churn_to_s: float = 0.0
    # Come back after this with what they hold; 0: never.
    churn_back_after_s: float = 0.0
    # Send and receive at this part of their links' rates, whatever they declared.
    slow_part: float = 0.0
    slow_factor: float = 0.05
    # Serve wrong bytes, always.
    corrupt_part: float = 0.0
    # When the supernode's process ends and does not come back; 0: never.
    supernode_killed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one node."""

    corrupt: bool = False
    slow: bool = False
    leaves_s: float | None = None
    returns_s: float | None = None

    @property
    def name(self) -> str:
        """As benchmarks.results names it; empty for a sound node."""
        if self.corrupt:
            return "corrupt"
        if self.slow:
            return "slow"
        return "left" if self.leaves_s is not None else ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """See the module. `piece_size_bytes` None is the product's own rule for each blob's size."""

    nodes: int
    blobs: tuple[int, ...]
    classes: tuple[NodeClass, ...]
    origin_bytes_s: float
    supernode_bytes_s: float
    name: str = ""
    piece_size_bytes: int | None = None
    # Blobs that one client asks for at a time, in their order.
    parallel: int = 3
    # 0: no racks. Node n is in rack n % racks; origin and supernode are outside all of them.
    racks: int = 0
    # Of each rack's link to the rest, each way.
    trunk_bytes_s: float = 0.0
    arrivals: Arrivals = field(default_factory=Arrivals)
    origin: OriginBehaviour = field(default_factory=OriginBehaviour)
    faults: Faults = field(default_factory=Faults)
    # Whether nodes tell the supernode their links' rates, or it has to learn them.
    declared: bool = False
    # All nodes have a blob of so many bytes brought to them from 0 on, for which no client waits; 0: none.
    preheat_bytes: int = 0
    # The last so many nodes have no client.
    bystanders: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises ConfigError for what cannot be run."""
        if self.nodes < 1:
            raise ConfigError(f"nodes {self.nodes}: at least one is needed")
        if not self.blobs or min(self.blobs) < 1:
            raise ConfigError(f"sizes {self.blobs}: give each blob one byte or more")
        if not self.classes or min(one.parts for one in self.classes) < 1:
            raise ConfigError("every class of nodes needs at least one part of them")
        if self.racks < 0 or self.racks > self.nodes:
            raise ConfigError(f"racks {self.racks}: between 0 and the number of nodes, {self.nodes}")
        if self.arrivals.joiners >= self.nodes:
            raise ConfigError(f"joiners {self.arrivals.joiners}: fewer than the {self.nodes} nodes")
        if self.bystanders >= self.nodes:
            raise ConfigError(f"bystanders {self.bystanders}: fewer than the {self.nodes} nodes")
        faults = self.faults
        for part in (faults.churn_part, faults.slow_part, faults.corrupt_part):
            if not 0.0 <= part <= 1.0:
                raise ConfigError(f"part {part} of the nodes: between 0 and 1")
        if faults.churn_part + faults.slow_part + faults.corrupt_part > 1.0:
            raise ConfigError("the parts of nodes that leave, are slow or corrupt are more than all of them")

    @property
    def size_bytes(self) -> int:
        """Of all blobs."""
        return sum(self.blobs)

    def layout(self, blob: int) -> PieceLayout:
        """The cut of the blob of this index."""
        size = self.all_blobs[blob]
        return PieceLayout(size, self.piece_size_bytes or piece_size_for(size))

    @property
    def all_blobs(self) -> tuple[int, ...]:
        """The sizes of what clients ask for, and of what is preheated."""
        return (*self.blobs, self.preheat_bytes) if self.preheat_bytes else self.blobs

    @property
    def pulls_alone(self) -> Scenario:
        """What clients ask for, without the rest."""
        return replace(self, nodes=self.nodes - self.bystanders, preheat_bytes=0, bystanders=0)

    @property
    def pieces(self) -> int:
        """Of all blobs."""
        return sum(self.layout(blob).count for blob in range(len(self.blobs)))

    def class_of(self, node: int) -> NodeClass:
        """Node numbers run from 0; the classes are dealt out in turn by their parts."""
        place = node % sum(one.parts for one in self.classes)
        for one in self.classes:
            if place < one.parts:
                return one
            place -= one.parts
        raise AssertionError("the parts add up to more than their sum")

    def rack_of(self, node: int) -> int | None:
        """None without racks."""
        return node % self.racks if self.racks else None

    def arrivals_s(self) -> tuple[float | None, ...]:
        """When each node's client asks; None for who waits until the others are complete."""
        regular = self.nodes - self.arrivals.joiners
        rng = random.Random(f"arrivals {self.seed}")
        times: list[float | None] = []
        at_s = 0.0
        for _ in range(regular):
            if self.arrivals.poisson_per_s > 0.0 and times:
                at_s += rng.expovariate(self.arrivals.poisson_per_s)
            times.append(at_s)
        return (*times, *[None] * self.arrivals.joiners)

    def fates(self) -> tuple[Fate, ...]:
        """What becomes of each node, the same for the same seed."""
        faults = self.faults
        order = list(range(self.nodes))
        rng = random.Random(f"fates {self.seed}")
        rng.shuffle(order)
        counts = [round(part * self.nodes) for part in (faults.corrupt_part, faults.slow_part, faults.churn_part)]
        corrupt, slow, leaving = counts
        fates = [Fate()] * self.nodes
        for place, node in enumerate(order[: corrupt + slow + leaving]):
            if place < corrupt:
                fates[node] = Fate(corrupt=True)
            elif place < corrupt + slow:
                fates[node] = Fate(slow=True)
            else:
                leaves_s = rng.uniform(faults.churn_from_s, faults.churn_to_s)
                back = leaves_s + faults.churn_back_after_s if faults.churn_back_after_s else None
                fates[node] = Fate(leaves_s=leaves_s, returns_s=back)
        return tuple(fates)


def equal_links(nodes: int, blobs: tuple[int, ...], rate_bytes_s: float) -> Scenario:
    """Nodes, origin and supernode with the same links: the headline's case."""
    return Scenario(
        nodes=nodes,
        blobs=blobs,
        classes=(NodeClass("node", 1, rate_bytes_s, rate_bytes_s),),
        origin_bytes_s=rate_bytes_s,
        supernode_bytes_s=rate_bytes_s,
    )
