"""Every number the scheduler's policy turns on, with its unit and its reason. Nothing else lives here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Immutable; the defaults suit a data-centre network of 0.1 to 10 Gbit/s."""

    # A grant is given this part of a transfer before its source's predicted end; its receiver can be chosen a little
    # earlier, so that each source finds some to choose from. Longer, and transfers overlap or wait for one another.
    ahead_part: float = 0.05
    choice_factor: float = 1.1
    # What a grant takes to become a transfer until that is measured, and what part of the measured time (which has the
    # report's way in it) a grant is given ahead at least.
    reaction_s: float = 0.002
    reaction_part: float = 0.6
    # The seed's next first copy is granted this part of a transfer before the end of the one before: its link sets the
    # pace of all, and a receiver that connects meanwhile, or loses a packet doing so, must not make it idle.
    seed_ahead_part: float = 0.5
    # With so many nodes at least, and this part of all at most, that get nothing, one more first
    # copy is promised behind that.
    seed_spare_nodes: int = 4
    seed_spare_part: float = 0.2
    # More uploads than this share one link no better and make every hop of a rare piece longer.
    uploads_per_node_max: int = 8
    # 0: no leases to peers at all, but for inline blobs; their pieces travel otherwise.
    downloads_per_node_max: int = 8
    # A transfer gets this many times its predicted duration, never less than the minimum: a short stall is no fault.
    expiry_factor: float = 4.0
    expiry_min_s: float = 5.0
    # Until a link's rate is known.
    expiry_unknown_s: float = 30.0
    # Twice the time after each lease to a node that expired, up to this.
    expiry_max_s: float = 300.0
    # How often a transfer is looked at that began before any link was measured.
    unknown_look_s: float = 0.25
    # The receiver ends a lease at its own deadline and says so; the machine acts alone only this much later.
    expiry_grace_s: float = 1.0
    # A source that answered BUSY is left alone this long: about the rest of one transfer.
    busy_backoff_s: float = 0.05
    # A source that failed a receiver is not given to that receiver again for this long, doubled each time.
    fault_backoff_s: float = 0.5
    fault_backoff_max_s: float = 30.0
    # A receiver that reported trouble of its own (disk full) is given nothing for this long.
    local_backoff_s: float = 2.0
    # A node below this part of the typical rate, or with this many faults unanswered by successes, is asked last.
    slow_part: float = 0.25
    faults_sunk: int = 2
    # With this many unanswered faults a node is not counted on for pieces that nobody else has: the origin is asked.
    faults_given_up: int = 4
    # Uplinks whose rates are within this factor count as equally fast: measurements of quick transfers differ as much.
    alike_factor: float = 4.0
    # One grant in this many to a reading node goes to what its client waits for next, all if nobody competes.
    reader_grant_every: int = 4
    # How many pieces from the reader's position on count as next.
    reader_window_pieces: int = 8
    # A second source races for a piece whose remaining time exceeds this many typical piece times.
    race_after_piece_times: float = 2.0
    # With a link at one end that was never measured, or only hoped to be as fast as the origin's, a transfer that is
    # later by this part of its time is taken for one to a slow node, and another begins beside it.
    unknown_late_part: float = 0.5
    # The seed sends no second copy of a piece whose first will be at a peer within this time, or within the typical
    # piece times above if they are longer: that peer passes it on, and the seed's link is kept for what only it has.
    first_copy_wait_s: float = 0.1
    # A node that nothing is being sent to, and whose rack has what it lacks, waits so long for its rack: this time, or
    # so many typical piece times if that is longer. Then it takes from any rack, until it is served.
    rack_patience_s: float = 0.25
    rack_patience_piece_times: float = 4.0
    # Elected peers before the origin is opened to all.
    elections_max: int = 3
    # An elected peer that stored nothing for this long has failed.
    elected_stall_s: float = 30.0
    # The supernode's own next try at an origin that failed, doubled up to the maximum.
    origin_backoff_s: float = 5.0
    origin_backoff_max_s: float = 60.0
    # Happenings remembered per swarm for story().
    story_length: int = 1024
