"""The tables by which Python tells the compiled program what to do: a run, and the phases of its steps."""

from __future__ import annotations

import numpy as np

SHUFFLE_STREAM, DROPOUT_STREAM = 1, 2

RUN = np.dtype(
    [
        ("threads", np.int64),
        ("batch", np.int64),
        ("rows", np.int64),
        ("first_step", np.int64),  # of the epoch, from 0
        ("steps", np.int64),
        ("iteration", np.int64),  # optimizer steps taken before these
        ("shuffle", np.int64),
        ("seed", np.int64),
        ("epoch", np.int64),
        ("loss", np.int64),
        ("loss_parameter", np.float64),
        ("loss_call", np.int64),  # address of a custom loss's loop
        ("sparse", np.int64),
        ("fused", np.int64),  # the loss takes the last layer's pre-activations
        ("optimizer", np.int64),
        ("clip", np.int64),
        ("clip_at", np.float64),
        ("decay", np.float64),  # decoupled weight decay; a segment's factor is on it
        ("average", np.float64),  # momentum of the weights' moving average, in the last slot; below 0: none
        ("penalties", np.int64),  # whether any segment has an l1 or l2
        ("rounds_kernels", np.int64),  # whether rows read a copy of the parameters, with rounded kernels
        # The part of a phase that a call works on: rows of the batch, or slabs. Columns are never parted.
        ("begin", np.int64),
        ("end", np.int64),  # WHOLE, or any number from theirs up: to the last
        # Offsets in the workspace; activations are at 0.
        ("deltas", np.int64),
        ("targets", np.int64),
        ("ld_target", np.int64),
        ("weights", np.int64),  # a number a row; room is space for another
        ("room", np.int64),
        ("aside", np.int64),  # transposed kernels, and statistics of batches
        ("zeros", np.int64),  # as many as the widest row
        ("one", np.int64),  # a single 1
    ]
)
WHOLE = 2**62
NO_CLIP, CLIP_VALUE, CLIP_NORM, CLIP_GLOBAL_NORM = range(4)

# A phase is one parallel region. ROWS takes threads' shares of the batch forward through rows forward..forward_end of
# the table, and back from backward_end - 1 to backward.
PHASE = np.dtype(
    [
        ("kind", np.int64),
        ("flags", np.int64),
        ("forward", np.int64),
        ("forward_end", np.int64),
        ("backward", np.int64),
        ("backward_end", np.int64),
    ]
)
ROWS, STATISTICS, SUMS, SLABS, TRANSPOSES = range(5)  # STATISTICS and SUMS are of the batch norm at row ``forward``
GATHER, LOSS = 1, 2  # flags of ROWS: before going forward, and behind that
GRADIENT, CLIP, UPDATE = 1, 2, 4  # flags of SLABS: each works on what the one before has left, or the user
