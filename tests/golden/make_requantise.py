"""Writes requantise_onnx.txt and requantise_tflite.txt: python tests/golden/make_requantise.py

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

ROWS = 600
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


def main() -> None:
    rng = np.random.default_rng(2018)
    onnx = ["# round_half_even(float32(accumulator) * multiplier) + zero_point, clamped to low..high"]
    onnx += ["# accumulator, multiplier (the bits of a float32, as an unsigned integer), zero_point, low, high, result"]
    tflite = ["# MultiplyByQuantizedMultiplier(accumulator, multiplier, shift) + zero_point, clamped to low..high"]
    tflite += ["# accumulator, multiplier, shift, zero_point, low, high, result"]
    for row in range(ROWS):
        accumulator, real, zero_point, low, high = draw(rng, row)
        single = np.float32(real)
        scaled = int(naive_integer.onnx_rescale(np.array([accumulator]), np.array([single]))[0])
        bits = int(single.view(np.uint32))
        line = (accumulator, bits, zero_point, low, high, clamp(scaled, zero_point, low, high))
        onnx.append(" ".join(map(str, line)))
        multiplier, shift = naive_integer.quantize_multiplier(real)
        scaled = naive_integer.multiply_by_quantized_multiplier(accumulator, multiplier, shift)
        fixed = (accumulator, multiplier, shift, zero_point, low, high, clamp(scaled, zero_point, low, high))
        tflite.append(" ".join(map(str, fixed)))
    for name, lines in (("onnx", onnx), ("tflite", tflite)):
        (HERE / f"requantise_{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
