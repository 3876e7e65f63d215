"""Root mean square normalisation: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", eq. 4."""

from __future__ import annotations

from nbdense.engine.rows.kind import RowKind, register
from nbdense.engine.rows.layer_norm import backward, forward
from nbdense.engine.rows.norms import EPSILON, GAMMA

RMS_NORM = register(
    RowKind(
        "rms_norm",
        "RMSNormalization",
        "rms_normalization",
        tensors={"scale": GAMMA},
        settings={"epsilon": EPSILON},
        keeps=True,
        forward=forward,
        backward=backward,
    )
)
