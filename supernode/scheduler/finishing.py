"""Which nodes are about to finish a blob that a client reads: its last pieces come before rarer ones of other blobs.

Rarest first alone would put them off for as long as other swarms have rarer pieces, for nearly everybody holds them
already. Keeps the masks; what they mean for a choice is in giving and taking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import policy

if TYPE_CHECKING:
    from supernode.scheduler.leases import Core
    from supernode.scheduler.nodes import Node
    from supernode.scheduler.swarm import Member


def review(core: Core, node: Node) -> None:
    """After what the node wants or its clients wait for changed. With one swarm nothing competes with its pieces."""
    if node.finishing:
        forget(core, node)
    if len(core.swarms) < 2:
        return
    for member in node.wanting.values():
        if _is_read(member) and _nearly_whole(core, member):
            member.swarm.finishing |= node.bit
            core.book.finishing |= node.bit
            node.finishing.append(member)


def forget(core: Core, node: Node) -> None:
    """It finishes nothing now, or is gone."""
    for member in node.finishing:
        member.swarm.finishing &= ~node.bit
    node.finishing.clear()
    core.book.finishing &= ~node.bit


def _is_read(member: Member) -> bool:
    """Whether a client waits for it, as far as is told: of a blob of one piece nobody tells."""
    return member.reader is not None or member.swarm.count == 1


def _nearly_whole(core: Core, member: Member) -> bool:
    return policy.at_most(member.need, max(1, int(member.swarm.count * core.settings.finishing_part)))
