"""Writes requantise_onnx.txt, and _tflite, _gemmlowp and _ruy beside it: python tests/golden/make_requantise.py

One requantisation a line, in decimal, for any language to read; lines that begin with # say what the columns are. The
results are tests/reference/naive_integer.py's, in Python's own integers and NumPy's float32, not nbdense's. A C port
that gives these for every line rounds as nbdense does.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.reference import naive_integer  # noqa: E402

ROWS, TWICE_ROUNDED = 600, 60
INT32 = np.iinfo(np.int32)
EXTREMES = [INT32.min, INT32.min + 1, -1, 0, 1, INT32.max - 1, INT32.max]


def clamp(value: int, zero_point: int, low: int, high: int) -> int:
    return int(min(max(value + zero_point, low), high))


def draw(rng: np.random.Generator, row: int) -> tuple[int, float, int, int, int]:
    """Accumulator, real multiplier, zero point and bounds of int8."""
    multiplier = float(2.0 ** rng.uniform(-20, 1))
    accumulator = int(rng.normal() * 150 / multiplier) if row % 3 else int(rng.integers(INT32.min, INT32.max + 1))
    if row < len(EXTREMES):
        accumulator = EXTREMES[row]
    if row % 2 == 0 and row >= len(EXTREMES):  # ties
        multiplier = float(2.0 ** -int(rng.integers(1, 12)))
        accumulator = int((rng.integers(-260, 260) + 0.5) / multiplier)
    if row % 50 == 7:
        multiplier = float(2.0 ** rng.uniform(1, 29))
    accumulator = min(max(accumulator, INT32.min), INT32.max)
    zero_point = int(rng.integers(-128, 128))
    low = zero_point if rng.random() < 0.5 else -128
    return accumulator, multiplier, zero_point, low, int(rng.integers(max(low, 0), 128) if row % 3 == 0 else 127)


def draw_twice_rounded(rng: np.random.Generator) -> tuple[int, float, int, int, int]:
    """Draw what lies just below a tie of the shift, where the first of two roundings puts it."""
    shift = int(rng.integers(1, 9))
    while True:
        multiplier, high = int(rng.integers(2**30, 2**31)), int(rng.integers(-120, 120)) * 2**shift + 2 ** (shift - 1)
        accumulator = high * 2**31 // multiplier
        if 2**30 <= accumulator * multiplier - (high - 1) * 2**31 < 2**31:
            return accumulator, multiplier * 2.0 ** (-31 - shift), int(rng.integers(-9, 9)), -128, 127


def main() -> None:
    rng = np.random.default_rng(2018)
    onnx = ["# round_half_even(float32(accumulator) * multiplier) + zero_point, clamped to low..high"]
    onnx += ["# accumulator, multiplier (the bits of a float32, as an unsigned integer), zero_point, low, high, result"]
    head = ["# MultiplyByQuantizedMultiplier(accumulator, multiplier, shift) + zero_point, clamped to low..high"]
    head += ["# accumulator, multiplier, shift, zero_point, low, high, result"]
    fixed = {rounding: list(head) for rounding in ("tflite", "gemmlowp", "ruy")}
    rows = [draw(rng, row) for row in range(ROWS)]
    rows += [draw_twice_rounded(rng) for _ in range(TWICE_ROUNDED)]
    for accumulator, real, zero_point, low, high in rows:
        single = np.float32(real)
        scaled = int(naive_integer.onnx_rescale(np.array([accumulator]), np.array([single]))[0])
        bits = int(single.view(np.uint32))
        line = (accumulator, bits, zero_point, low, high, clamp(scaled, zero_point, low, high))
        onnx.append(" ".join(map(str, line)))
        multiplier, shift = naive_integer.quantize_multiplier(real)
        for rounding, lines in fixed.items():
            scaled = naive_integer.multiply_by_quantized_multiplier(accumulator, multiplier, shift, rounding)
            line = (accumulator, multiplier, shift, zero_point, low, high, clamp(scaled, zero_point, low, high))
            lines.append(" ".join(map(str, line)))
    for name, lines in {"onnx": onnx, **fixed}.items():
        (HERE / f"requantise_{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
