"""The tables that compiled code reads: layers, segments and slabs of a network, a run, and the phases of its steps."""

from __future__ import annotations

from typing import Any

import numpy as np

ADD_DELTA = 1  # flags: the input's delta is added to, not set: a later row has set it
NO_DELTA = 2  # nothing before this row learns: its input's delta is not wanted
GATE_DELTA = 4  # the input comes from a relu: its delta passes only where the input is above zero
DELTA_GATED = 8  # this row is such a relu: its output's delta has passed the gate when it arrives
ADD_DELTA_2 = 16  # as ADD_DELTA and NO_DELTA, of the second input
NO_DELTA_2 = 32
IDLE = 64  # nothing up to here learns: backward leaves the row out

ROLES = ("forward", "backward", "gradient", "statistics", "sums", "move")  # of a kind's functions

# A row names its buffers by their first column in the workspace: buffer b of m rows starts at element b * m. The
# network's input is buffer 0. A row of data has ``positions`` rows of columns in a buffer, one after the other.
# A kind of row (`nbdense.engine.rows.kind`) says by what names it has its offsets and numbers in which columns.
LAYER = np.dtype(
    [
        ("kind", np.int64),  # its code
        ("number", np.int64),  # of the row in training: what names it, and its dropout's random numbers
        ("n_in", np.int64),
        ("n_out", np.int64),
        ("positions", np.int64),  # of the input
        ("positions_out", np.int64),
        ("input", np.int64),
        ("ld_in", np.int64),
        ("second", np.int64),  # the other input; -1: none
        ("output", np.int64),
        ("ld_out", np.int64),
        ("pre", np.int64),  # what backward wants beside the output: see NetworkBuilder; the output where it wants none
        # Offsets into the parameter vector; -1: none. The first is a kernel, or another parameter that is divided as
        # `RowKind.vector` says; what "bias" names has the sum of the output's deltas as its gradient.
        ("kernel", np.int64),
        ("bias", np.int64),
        ("mean", np.int64),
        ("variance", np.int64),
        ("start", np.int64),  # offset of what the product is added to: the bias, or zeros
        ("transposed", np.int64),  # offset aside: of the kernel's transpose, or of a batch's statistics
        ("activation", np.int64),
        ("flags", np.int64),
        # Numbers: of rows with an activation its parameter and its clamp, of others what their kinds have in them.
        ("alpha", np.float64),
        ("lower", np.float64),
        ("upper", np.float64),
        ("rate", np.float64),
        ("scales", np.int64),  # offset: of the columns' scales, where the kernel is read rounded to them; -1: it is not
        ("limit", np.float64),  # of the integers that such a kernel is rounded to
        ("quantizer", np.int64),  # index of the FAKE_QUANT that the input comes from; -1: from none
        ("call_forward", np.int64),  # addresses of the loops of an activation on demand; 0: it is a clamp
        ("call_backward", np.int64),
        ("joins", np.int64),  # whether these may be called for rows end to end, padding included
        ("beta", np.float64),  # its other parameters
        ("gamma", np.float64),
        # Addresses of the functions of the row's kind; 0: it has none, or the backend that runs it has not wanted one.
        *((role, np.int64) for role in ROLES),
        (
            "copy_input",
            np.int64,
        ),  # of the first row: address of what copies a prediction's input; 0: all read it as it is
        ("differentiate", np.int64),  # address of the derivatives of activations; 0: backward does not ask for any
    ]
)

# One row a parameter tensor.
SEGMENT = np.dtype(
    [
        ("offset", np.int64),
        ("length", np.int64),  # padding included
        ("trainable", np.int64),
        ("l1", np.float64),
        ("l2", np.float64),
        ("decay", np.float64),  # factor on the optimizer's weight decay: 0 exempts
    ]
)

# The unit of work of the update: rows first..last of one layer's kernel, or (first = BIAS or GAMMA) a vector, or
# (MOVING) statistics that follow the batches' and are trained by no optimizer, or (FACTORS) those of a rounded range.
BIAS, GAMMA, MOVING, FACTORS = -1, -2, -3, -4
SLAB = np.dtype(
    [
        ("layer", np.int64),
        ("segment", np.int64),
        ("first", np.int64),
        ("last", np.int64),
        ("begins", np.int64),  # elements of all earlier slabs: threads take equal shares of elements
        ("ends", np.int64),
    ]
)

PAD = 16  # elements: a whole vector of every dtype and CPU


def leading_dimension(n: int) -> int:
    """Return the elements between the rows of an ``n``-column matrix: ``n`` padded, never to a multiple of 128.

    Rows a power of two apart fall into the same few cache sets, and a column of them would not stay cached.
    """
    width = padded(n)
    return width + PAD if width % 128 == 0 else width


def padded(n: int) -> int:
    """Return ``n`` rounded up to whole vectors."""
    return -(-n // PAD) * PAD


# Not constants to numba, which compiles what gets one, or a tuple with one in it, once for each.
SHUFFLE_STREAM, DROPOUT_STREAM = np.int64(1), np.int64(2)

RUN = np.dtype(
    [
        ("threads", np.int64),
        ("launcher", np.int64),  # address of what starts them; 0: one does the work of all
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
        ("loss_of_rows", np.int64),  # address of the kernel of the losses of rows
        ("loss_call", np.int64),  # address of the loop of a loss on demand, which that one calls
        ("sparse", np.int64),
        ("fused", np.int64),  # the loss takes the last layer's pre-activations
        ("optimizer", np.int64),
        ("optimizer_call", np.int64),  # address of the loop of one that is not in the program; 0: it is
        ("clip", np.int64),
        ("clip_at", np.float64),
        ("decay", np.float64),  # decoupled weight decay; a segment's factor is on it
        ("average", np.float64),  # momentum of the weights' moving average, in the last slot; below 0: none
        ("penalties", np.int64),  # whether any segment has an l1 or l2
        ("rounds_kernels", np.int64),  # whether rows read a copy of the parameters, with rounded kernels
        # Addresses of what not every run does (see `nbdense.engine.program.set_addresses`); 0: this one does not.
        ("metrics", np.int64),
        ("columns", np.int64),  # batch norms' share of the columns
        ("activities", np.int64),  # penalties on them
        ("adjust", np.int64),  # what is done to a slab's gradient, and decay
        ("factors", np.int64),  # of slabs, that clip gradients by their norms
        ("follow", np.int64),  # what follows a slab's weights
        ("biases", np.int64),  # rounded
        ("prepare", np.int64),  # what an optimizer computes once a step
        # What the batches' numbers must be, where nobody has looked at them before: finite inputs and weights, targets
        # from least to most, whole numbers or rows that sum to 1.
        ("checks", np.int64),  # address of the kernel that looks at them; 0: nobody does
        ("least", np.float64),
        ("most", np.float64),
        ("whole", np.int64),
        ("sum_tolerance", np.float64),  # by which a row of targets may miss a sum of 1; below 0: any sum will do
        ("refused", np.int64),  # whether they were not: the run has ended before it changed anything
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
ROWS, STATISTICS, SUMS, SLABS, TRANSPOSES = range(5)  # STATISTICS and SUMS are of the row ``forward``
GATHER, LOSS = 1, 2  # flags of ROWS: before going forward, and behind that
GRADIENT, CLIP, UPDATE = 1, 2, 4  # flags of SLABS: each works on what the one before has left, or the user


def sources(row: Any) -> list[int]:
    """Return the buffers that a row of the table reads."""
    return [int(row[name]) for name in ("input", "second") if row[name] >= 0]
