"""Every figure that the scheduler's rules turn on, with its unit and its reason. Nothing else lives here.

SchedulerSettings are what a test or a replayed log may set otherwise; the constants below are part of the rules
themselves. The rules are those of docs/scheduling.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Immutable; the defaults suit a data-centre network of 0.1 to 10 Gbit/s."""

    # --- rule 1, just in time ---
    # A lease is granted this part of a transfer before its source's predicted end; its receiver can be chosen a little
    # earlier, so that each source finds some to choose from. Longer, and transfers overlap or wait for one another.
    ahead_part: float = 0.08
    choice_factor: float = 1.1
    # What a grant takes to become a transfer until that is measured, and what part of the measured time (which
    # includes the report's way) a lease is granted ahead at least. More looks better where transfers take equally long,
    # and is none where they vary: each end then waits for the other (docs/decisions/grants-further-ahead.md).
    reaction_s: float = 0.002
    reaction_part: float = 0.6
    # A transfer gets this many times its predicted duration, never less than the minimum: a short stall is no fault.
    expiry_factor: float = 4.0
    expiry_min_s: float = 5.0
    # Until a link's rate is known.
    expiry_unknown_s: float = 30.0
    # The same of a source that nobody ever got a piece from: of a small piece, and of a large one at this rate.
    expiry_unserved_s: float = 5.0
    unserved_rate_bytes_s: float = 262_144.0
    # Twice the time after each lease to a node that expired, up to this.
    expiry_max_s: float = 300.0
    # The receiver ends a lease at its own deadline and says so; the machine acts alone only this much later.
    expiry_grace_s: float = 1.0
    # How often a transfer is checked that began before any link was measured.
    unknown_look_s: float = 0.25

    # --- rule 2, level by level ---
    # More uploads than this share one link no better and make every hop of a rare piece longer.
    uploads_per_node_max: int = 8
    # 0: no leases to peers at all, but for inline blobs; their pieces travel otherwise.
    downloads_per_node_max: int = 8

    # --- rule 10, the origin once ---
    # A fetch makes way for what readers of ranges wait for, unless it brings that among so many next pieces.
    range_pieces_soon: int = 2

    # --- rule 3, first copies first ---
    # The seed's next first copy is granted this part of a transfer before the end of the one before: its link sets the
    # pace of all, and a receiver that connects meanwhile, or loses a packet doing so, must not make it idle.
    seed_ahead_part: float = 0.5
    # With so many nodes at least, and this part of all at most, that receive nothing, one more first copy is promised
    # behind that.
    seed_spare_nodes: int = 4
    seed_spare_part: float = 0.2
    # The seed sends no second copy of a piece whose first will be at a peer within this time, or within the typical
    # piece times of race_after_piece_times if they are longer: that peer passes it on, and the seed's link is kept for
    # what only it has.
    first_copy_wait_s: float = 0.1

    # --- rule 5, rates ---
    # Uplinks whose rates are within this factor count as equally fast: measurements of quick transfers differ as much.
    alike_factor: float = 4.0
    # A node below this part of the typical rate, or with this many faults unanswered by successes, is asked last.
    slow_part: float = 0.25
    faults_deprioritized: int = 2

    # --- rule 6, one copy into a rack ---
    # A node that nothing is being sent to, and whose rack has what it lacks, waits so long for its rack: this time, or
    # so many typical piece times if that is longer. Then it takes from any rack, until it is served.
    rack_patience_s: float = 0.25
    rack_patience_piece_times: float = 4.0

    # --- rule 7, readers early ---
    # One lease in this many to a reading node goes to what its client waits for next, all if nobody competes.
    reader_grant_every: int = 4
    # How many pieces from the reader's position on count as next.
    reader_window_pieces: int = 8

    # --- rule 8, late transfers ---
    # A second source races for a piece whose remaining time exceeds this many typical piece times.
    race_after_piece_times: float = 2.0
    # Over a link that was never measured, or only assumed to be as fast as the origin's, a transfer that is later by
    # this part of its time counts as one to a slow node, and another begins beside it.
    unknown_late_part: float = 0.5
    # But nothing is late sooner: a busy node takes some milliseconds longer to hear of a lease and to tell of its end,
    # and what is late makes all that waits behind it be taken back and granted anew.
    late_min_s: float = 0.1

    # --- rule 9, faults ---
    # A source that answered BUSY is left alone this long, about the rest of one transfer; by whom it refused, for twice
    # as long each time, up to the maximum, until that one gets a piece from it.
    busy_backoff_s: float = 0.05
    busy_backoff_max_s: float = 2.0
    # A source that failed a receiver is not given to that receiver again for this long, doubled each time.
    fault_backoff_s: float = 0.5
    fault_backoff_max_s: float = 30.0
    # A receiver that reported trouble of its own (disk full) is given nothing for this long.
    local_backoff_s: float = 2.0
    # With this many unanswered faults a node is not counted on for pieces that nobody else has: the origin is asked.
    faults_given_up: int = 4
    # With so many failures nobody is, if nobody ever got a piece from it. A lease that ran for this part of its time
    # without an end counts as all of them.
    unserved_given_up: int = 2
    silent_part: float = 0.9

    # --- rule 10, the origin once ---
    # Elected peers before the origin is opened to all.
    elections_max: int = 3
    # An elected peer that stored nothing for this long has failed.
    elected_stall_s: float = 30.0
    # The supernode's own next try at an origin that failed, doubled up to the maximum.
    origin_backoff_s: float = 5.0
    origin_backoff_max_s: float = 60.0

    # --- rule 11, preheats yield ---
    # While an origin brings a pull, the seed sends preheats only where the pull's pieces come so many transfers apart.
    preheat_gap_pieces: float = 4.0

    # --- the story ---
    # Happenings remembered per swarm for story().
    story_length: int = 1024


# --- rule 2: when a link has room ---------------------------------------------------------------------------------

# A declared rate counts as filled at this part of it (the rest carries headers and control), a learned one, which
# rises with every quick transfer, sooner.
FILLED_PART: Final = 0.9
FILLED_PART_LEARNED: Final = 0.6
# What a transfer takes of a link while the other end is unknown, bytes/s: more than any link has.
UNLIMITED_BYTES_S: Final = 1e15
# From this idle part of a transfer's time on, a grant takes longer to become a transfer than one transfer lasts, and
# one more must be on its way. How fast the estimate of the idle part follows upwards and downwards.
IDLE_PART_MAX: Final = 0.03
IDLE_PART_RISE: Final = 0.5
IDLE_PART_FALL: Final = 1 / 256

# Overdue transfers take no slot from others, up to so many times the slots in all (peer.transport.upload_turns).
BESIDE_STALLED_FACTOR: Final = 4
# Of one receiver that got nothing yet, or nothing since a lease to it expired.
STALLED_MAX: Final = 2

# --- rule 4: how pieces and partners are searched -----------------------------------------------------------------

# Of up to this many nodes on the other side it is cheaper to look first at what they have or need.
FEW_NODES: Final = 4
# Pieces tried, rarest first, before what the nodes on the other side have or need is looked at.
TRIES: Final = 12
# Receivers compared before one is taken: of a crowd of more than so many, some at random.
SAMPLE: Final = 3
CROWD: Final = 16
# Counts of copies have a level each up to this many, then eight levels an octave, so that a move costs the same at 200
# peers and at 10,000.
EXACT_COPIES: Final = 32

# --- rule 5: what transfers teach of links ------------------------------------------------------------------------

# How fast the estimate of what a link carries follows a faster and a slower transfer. Slow downwards: a slow transfer
# may be the other end's doing.
RATE_RISE: Final = 0.5
RATE_FALL: Final = 1 / 16
# A single faster transfer counts as no more than so many times what was believed: a receiver that looks late at what
# has come reports a time too short, once by 1/34, and its source's link was then taken for 17 times as fast.
RISE_MAX: Final = 2.0
# What is shorter than a usual piece may have come from buffers and buckets on the way: it makes no link look faster
# over which something longer was measured (links of 20 Mbit/s: 37 KB in 0.6 to 8 ms, rates up to 5 times too high).
RATED_BYTES_MIN: Final = 256 * 1024
# A transfer tells how much this link carries, not only how little it may be, if the other end could have done so many
# times as much; and so many such transfers tell what may run beside one. One is enough where the other end could have
# done far more.
MORE: Final = 1.5
FAR_MORE: Final = 3.0
SURE_SAMPLES: Final = 2
# What is left of an assumed rate with each transfer that was slower.
ASSUMED_LEFT: Final = 0.7
# A link counts as shared if more than this part of a second transfer ran on average.
SHARED_PART: Final = 0.35
# Links whose bands (of half an octave) are no further apart, twice their rate or half of it, are alike.
NEAR_BANDS: Final = 2
# A shorter time says nothing about a link, whoever states it; it would only make its rate infinite.
BRIEFEST_S: Final = 1e-6
# How slowly the typical rate, and the measured reaction time, follow one transfer. One reaction counts as no more than
# so many times what was expected.
TYPICAL_PART: Final = 1 / 64
REACTION_FACTOR: Final = 4.0
# Leases that wait one behind the other over a link, where a transfer is over before the next grant has become one.
WAITING_MAX: Final = 6

# What a piece takes is told by so many transfers of RATED_BYTES_MIN or more.
PACED_MIN: Final = 16

# --- timers ---------------------------------------------------------------------------------------------------------

# Of this length a slot of timers has some ten at 200 nodes with 4 MiB pieces and 1 Gbit/s, and some hundreds at 10,000.
TIMER_SLOTS_PER_S: Final = 1024.0
