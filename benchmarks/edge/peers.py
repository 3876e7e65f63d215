"""The sources that are compared, and what each costs on a processor."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from benchmarks.edge.emulator import Machine, link, sizes
from benchmarks.edge.networks import calibration, float_model, quantized
from nbdense.export import to_c, to_onnx

# Of C's library, which bare processors lack, what the peers call. Rounding is by adding and taking off a large number.
_HEADERS = {
    "math.h": """\
#pragma once
#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()
#define isnan(x) ((x) != (x))
static inline float fabsf(float x) { return x < 0.0f ? -x : x; }
static inline float fmaxf(float a, float b) { return a > b ? a : b; }
static inline float fminf(float a, float b) { return a < b ? a : b; }
static inline float nearbyintf(float x)
{
    volatile float sum;
    if (fabsf(x) > 4194304.0f) return x;
    sum = x + 12582912.0f;
    return sum - 12582912.0f;
}
static inline long long llrint(double x)
{
    volatile double sum;
    sum = x + 6755399441055744.0;
    return (long long)(sum - 6755399441055744.0);
}
float expf(float x);
float tanhf(float x);
""",
    "stdlib.h": "#pragma once\n#include <stddef.h>\n",
    "stdio.h": "#pragma once\n",
    "string.h": "#pragma once\n#include <stddef.h>\nvoid *memcpy(void *, const void *, size_t);\n",
}


class Row(NamedTuple):
    """The costs of one source on one processor."""

    network: str
    target: str
    peer: str
    text: int
    constants: int
    ram: int
    instructions: int
    multiply_adds: int


class Peer(NamedTuple):
    """A source, the function in it, and the row that it is called with."""

    name: str
    source: Path
    function: str
    row: Any
    dtype: Any


def rows_of(network: str, widths: tuple[int, ...], target: str, folder: Path, option: str) -> list[Row]:
    """Return the costs of ours, with integers and with floats at its ends, and of the peers."""
    for name, text in _HEADERS.items():
        (folder / name).write_text(text, encoding="ascii")
    multiply_adds = sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))
    x = calibration(widths)[0]
    model = quantized(widths)
    source = folder / "net.c"
    to_c(model, source, target=target)
    scale, zero_point = model.network.layers[0].input_formats[0]
    q = np.clip(np.rint(x / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    peers = [
        Peer("nbdense, integers", source, "net_predict", q, np.int8),
        Peer("nbdense, floats", source, "net_predict_values", x, np.float32),
        Peer("emx-onnx-cgen", _emx(model, folder), "entry", x, np.float32),
        Peer("emlearn", _emlearn(widths, folder), "entry", x, np.float32),
    ]
    expected = {
        "nbdense, integers": model.predict_integers(x[np.newaxis])[0],
        "emlearn": float_model(widths).predict(x[np.newaxis])[0],
    }
    rows = []
    for peer in peers:
        # emlearn's C is float: it gets the Cortex-M4 with an FPU.
        processor = "cortex-m4f" if (target, peer.name) == ("cortex-m4", "emlearn") else target
        options = (option, "-I", str(folder), "-Wno-everything", *(["-std=c11"] if "emx" in peer.name else []))
        program = link(peer.source, peer.function, processor, folder / "program", options)
        run = Machine(program, processor).call(peer.row, widths[-1], peer.dtype, counted=True)
        wanted = expected.get(peer.name, model.predict(x[np.newaxis])[0])
        np.testing.assert_allclose(run.output, wanted, atol=1e-4, err_msg=peer.name)
        size = sizes(program)
        ram = size.data + run.stack
        costs = size.text, size.constants, ram, run.instructions, multiply_adds
        rows.append(Row(network, processor, peer.name, *costs))
    return rows


def _emx(model: Any, folder: Path) -> Path:
    """Write emx-onnx-cgen's C of the file with operators on integers, of one row."""
    proto = to_onnx(model, flavour="qoperator", verify=False)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del proto.graph.value_info[:]
    onnx.save(proto, folder / "emx.onnx")
    command = [
        sys.executable,
        "-m",
        "emx_onnx_cgen",
        "compile",
        "--large-temp-threshold",
        "0",
        "--large-weight-threshold",
        "0",
    ]
    subprocess.run([*command, str(folder / "emx.onnx"), str(folder / "emx.c")], check=True, capture_output=True)
    path = folder / "emx_entry.c"
    path.write_text(
        '#include "emx.c"\nvoid entry(const float *input, float *output)\n{\n'
        "    model((const void *)input, (void *)output);\n}\n",
        encoding="ascii",
    )
    return path


def _emlearn(widths: tuple[int, ...], folder: Path) -> Path:
    """Write emlearn's C of the float model."""
    import emlearn
    from emlearn.net import c_generate_net_loadable

    tensors = float_model(widths).get_weights()
    activations = ["relu"] * (len(widths) - 2) + ["identity"]
    text = c_generate_net_loadable(activations, tensors[::2], tensors[1::2], "net")
    text += f"""
float expf(float x) {{ return x; }}
float tanhf(float x) {{ return x; }}
void entry(const float *input, float *output)
{{
    net_regress(input, {widths[0]}, output, {widths[-1]});
}}
"""
    path = folder / "emlearn.c"
    for header in Path(emlearn.includedir).glob("*.h"):
        (folder / header.name).write_bytes(header.read_bytes())
    path.write_text(text, encoding="utf-8")
    return path
