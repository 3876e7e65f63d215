"""Requantising in C's integers, where floats round three times: at ties, and beside them."""

import ctypes
import subprocess
from collections import Counter
from string import Template

import numpy as np
import pytest

from nbdense.export.c.kernels import KERNELS, with_needs
from nbdense.export.c.steps.rounding import ROUNDINGS, Scales
from tests.reference import naive_integer as naive
from tests.support.drawn_networks import Drawn

F32 = np.float32


KINDS = ["onnx", "onnx_each"]
KINDS += [f"{name}{form}" for name in ("tflite", "gemmlowp", "ruy") for form in ("", "_each", "_long")]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Each C function that requantises, over an array of sums; of a layer with one channel."""
    folder = tmp_path_factory.mktemp("rounding")
    made = {}
    for kind in KINDS:
        each = "_" in kind
        numbers = layer_numbers_of(kind, Scales(np.array([1]), np.array([40 if "onnx" in kind else 8])), each)
        parts = {
            "value": "int16_t",
            "pointers": "    const int8_t *shifts;\n" if each else "",
            "numbers": "".join(f"    {c_type} {name};\n" for name, (c_type, _) in numbers.items()),
            "clamped": "q < -384 ? -384 : q > 384 ? 384 : q",  # farther than any zero point
            "looked_up": "(int16_t)q",
        }
        text = "#include <stdint.h>\n#define COLD\n"
        text += "".join(Template(KERNELS[name].text).substitute(parts) for name in with_needs({kind}))
        members = {"multipliers": "multiplier", **({"shifts": "&shift"} if each else {}), **{n: n for n in numbers}}
        text += (
            "void all(const int32_t *x, int32_t n, const int32_t *multiplier, int8_t shift, int32_t offset, "
            "int32_t mask, int8_t bits, int16_t *y)\n{\n    const int16_t zero_point = 0;\n"
            "    const dense_layer layer = {"
            + ", ".join(f".{name} = {value}" for name, value in members.items())
            + "};\n    for (int32_t i = 0; i < n; ++i) y[i] = requantised(&layer, 0, x[i]);\n}\n"
        )
        (folder / f"{kind}.c").write_text(text)
        command = ["cc", "-std=c99", "-O2", "-w", "-shared", "-fPIC", f"{kind}.c", "-o", f"{kind}.so"]
        subprocess.run(command, cwd=folder, check=True)
        made[kind] = ctypes.CDLL(str(folder / f"{kind}.so"))
    return made


def layer_numbers_of(kind, scales, each):
    rounding = ROUNDINGS[kind.split("_")[0]]
    return {"zero_point": ("int16_t", 0)} if each else rounding.numbers(scales, 0)


def in_c(libraries, kind, sums, scales):
    """The sums, requantised by one of the functions to a channel with zero point 0."""
    sums, out = np.ascontiguousarray(sums), np.empty(sums.size, np.int16)
    each = "_" in kind
    numbers = {} if each else {name: value for name, (_, value) in layer_numbers_of(kind, scales, each).items()}
    multiplier = np.array([scales.multipliers[0]], np.int32)
    libraries[kind].all(
        sums.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int32(sums.size),
        multiplier.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int8(numbers.get("shift", int(scales.shifts[0]))),
        ctypes.c_int32(numbers.get("offset", 0)),
        ctypes.c_int32(numbers.get("mask", 0)),
        ctypes.c_int8(numbers.get("bits", 0)),
        out.ctypes.data_as(ctypes.c_void_p),
    )
    return out


def sums_about_ties(multiplier, bound, rng):
    """Sums whose products lie about the ties between whole numbers, and others."""
    ties = (np.arange(-300, 301) + 0.5) / multiplier
    near = (np.rint(ties)[:, None] + np.arange(-2, 3)).reshape(-1)
    drawn = rng.integers(-bound, bound + 1, 2000)
    return np.clip(np.concatenate([near, drawn, [0, 1, -1, bound, -bound]]), -bound, bound).astype(np.int32)


def layer_of(multiplier, dtype="int8"):
    """A dense layer of one output with that float32 multiplier."""
    d = Drawn(0, dtype)
    layer = d.dense(1, 1, (1.0, 0), (1.0, 0))
    return layer.replaced(kernel_scales=np.array([multiplier], F32))


def expected_of(rounding, sums, multiplier):
    if rounding == "onnx":
        return naive.onnx_rescale(sums.astype(np.int64), np.array([multiplier], F32))
    fixed = [naive.quantize_multiplier(float(multiplier))]
    return naive.tflite_rescale(sums[:, None].astype(np.int64), fixed, rounding)[:, 0]


@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
def test_every_sum_is_requantised_as_nbdense_does(rounding, libraries):
    rng, tried = np.random.default_rng(0), Counter()
    exponents = np.concatenate([np.arange(-30.0, 6), rng.uniform(-14, -5, 60)])
    drawn = rng.uniform(1, 2, 40) * 2.0 ** rng.uniform(-13, 1, 40)
    edges = [1 / 3, 0.1, np.nextafter(F32(0.25), F32(0)), np.nextafter(F32(2**-9), F32(1))]
    for multiplier in np.concatenate([2.0**exponents, drawn, edges]).astype(F32):
        for bound in (1000, 2**24 - 1, 2**31 - 2**8):
            sums = sums_about_ties(float(multiplier), bound, rng)
            sums = sums if rounding == "onnx" else sums[::10]
            expected = np.clip(expected_of(rounding, sums, multiplier), -384, 384)
            row = ROUNDINGS[rounding]
            scales = row.dense(layer_of(multiplier), np.array([bound]))
            kinds = [row.kernel_each, row.kernel] if scales.shared else [row.kernel_each]
            for kind in dict.fromkeys(kinds) if scales.short else [row.kernel_long]:
                tried[kind] += 1
                made = in_c(libraries, kind, sums, scales)
                np.testing.assert_array_equal(made, expected, err_msg=f"{kind} {multiplier} {bound}")
    assert set(tried) == {kind for kind in KINDS if kind.startswith(rounding)} and min(tried.values()) > 30


def test_rounding_once_would_not_do(libraries):
    multiplier = F32(0.0012345678)
    sums = np.arange(-200000, 200000).astype(np.int32)
    scales = ROUNDINGS["onnx"].dense(layer_of(multiplier), np.array([200000]))
    expected = expected_of("onnx", sums, multiplier)
    np.testing.assert_array_equal(in_c(libraries, "onnx", sums, scales), expected)
    assert (np.rint(sums * float(multiplier)) != expected).any()
