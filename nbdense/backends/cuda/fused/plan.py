"""Plans of whole steps in one launch: a block's rows, places in shared memory, and parts of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.cuda.device import FULL, SIMULATED
from nbdense.backends.cuda.fused import tiles
from nbdense.backends.cuda.fused.tiles import Tile
from nbdense.backends.cuda.fused.training import FUSION, PLACES, ld_slice
from nbdense.engine.tables import GATHER, GRADIENT, LOSS, NO_DELTA, ROWS, SLABS, TRANSPOSES
from nbdense.network import Network

# Of each width the one of most rows first; and the bytes of shared memory that a block has on any GPU.
GPU_TILES, GPU_SHARED = [Tile(rows, width, 4) for rows, width in ((32, 64), (16, 64), (16, 128), (8, 128))], 48 << 10
TILES, SHARED = ([Tile(8, 16, 4), Tile(4, 16, 4)], 4 << 10) if SIMULATED else (GPU_TILES, GPU_SHARED)
MOST_PARTS = 1 << 23  # elements of all blocks' parts of gradients, at most, which a large GPU's cache holds


@dataclass(frozen=True, eq=False)
class Plan:
    """A network's steps on batches of up to so many rows.

    Attributes
    ----------
    tile : Tile
    blocks : int
        How many share a batch; each leaves a part of every gradient.
    shared : int
        Bytes of a block's shared memory.
    fusion, places : structured arrays of `FUSION` and `PLACES`
        What the kernel reads of it.
    """

    tile: Tile
    blocks: int
    shared: int
    fusion: npt.NDArray[Any]
    places: npt.NDArray[Any]

    @property
    def stride(self) -> int:
        """Elements of a block's part of all gradients."""
        return int(self.fusion["stride"][0])


def plan_of(network: Network, layers: npt.NDArray[Any], batch: int) -> Plan | None:
    """Return how a launch takes batches of up to ``batch`` rows through a table; None where there is no room for it."""
    width = tiles.width_of(network, layers)
    if width is None:
        return None
    rows, widest = batch * int(layers["positions"][0]), int(max(layers["n_in"].max(), layers["n_out"].max()))
    places, columns, stride = _laid_out(network, layers)
    for tile in (tile for tile in TILES if tile.width == width):
        free = SHARED // 4 - columns * tile.ld
        deep = min(-(-widest // 8), free // ld_slice(tile) // 8) * 8
        if deep > 0:
            for name in ("input", "pre", "output"):
                places[name] *= tile.ld
            blocks = max(1, min(-(-rows // tile.rows), FULL, MOST_PARTS // stride))
            fusion = np.array([(columns * tile.ld, deep, stride)], FUSION)
            return Plan(tile, blocks, 4 * (columns * tile.ld + deep * ld_slice(tile)), fusion, places)
    return None


def is_whole(phases: npt.NDArray[Any], layers: npt.NDArray[Any]) -> bool:
    """Tell whether one launch takes phases: all rows forward, the loss, and back to the gradients, or none back."""
    rows, count = phases[phases["kind"] == ROWS], len(layers)
    learns = ((phases["kind"] == SLABS) & (phases["flags"] & GRADIENT != 0)).any()
    if len(rows) != 1 or not np.isin(phases["kind"], (ROWS, SLABS, TRANSPOSES)).all():
        return False
    _, flags, *ends = rows[0].tolist()
    if learns and not layers[0]["flags"] & NO_DELTA:
        return False
    return flags == GATHER | LOSS and ends == [0, count, 0, count if learns else 0]


def _laid_out(network: Network, layers: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int, int]:
    """Return each layer's places, those in shared memory in columns; how many columns there are; elements of a part."""
    segments = network.segments
    learns = set(segments["offset"][segments["trainable"] != 0].tolist())
    places = np.zeros(len(layers), PLACES)
    columns, end = int(layers["n_in"][0]), 0
    for index, (row, place) in enumerate(zip(layers, places, strict=True)):
        kernel, bias, n_out = int(row["kernel"]), int(row["bias"]), int(row["n_out"])
        place["input"] = places["output"][index - 1] if index > 0 else 0
        place["output"] = place["pre"] = columns
        columns += n_out
        if row["pre"] != row["output"] and index < len(layers) - 1:
            place["pre"] = columns
            columns += n_out
        place["kernel"] = end if kernel in learns else -1
        place["bias"] = end + int(row["n_in"]) * int(row["ld_out"]) if bias in learns else -1
        end += (int(row["n_in"]) + 1) * int(row["ld_out"])
    return places, columns, end
