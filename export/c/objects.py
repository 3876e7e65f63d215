"""`to_object`: the C of a model compiled for a processor, for people without a toolchain."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbdense.export.c.api import file_texts, write_files
from nbdense.export.c.compiling import compile_c, cross_compiler
from nbdense.export.c.names import name_of
from nbdense.export.c.targets import TARGETS, target_of

OPTIONS = ("-ffreestanding", "-fno-sanitize=undefined", "-g0", "-ffunction-sections", "-fdata-sections")
# Bare processors have no headers but the language's own; who links the object brings the functions.
_MATHEMATICS = "".join(
    f"float {name}(float x);\n" for name in ("erfcf", "expf", "expm1f", "fabsf", "log1pf", "logf", "sqrtf", "tanhf")
)


def to_object(
    model_or_quantized: Any,
    path: str | os.PathLike[str],
    target: str,
    *,
    name: str | None = None,
    memory: str = "static",
    class_names: Sequence[str] | None = None,
    compiler: Sequence[str] | None = None,
    verify: bool = True,
) -> None:
    """Compile the C of a model for a processor: an object file, with its header beside it.

    For "wasm32" that is a whole module, which wasmtime, Node and browsers run: it exports the functions, its memory,
    and where that is free, ``__heap_base``.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model, as in `to_c`.
    path : path
        The object, ending in ".o"; of "wasm32" the module, ending in ".wasm". It is replaced if it exists.
    target : str
        The processor: one of `to_c`'s but "generic".
    name : str, optional
        What functions begin with; by default the file's name.
    memory : {"static", "caller"}
        As in `to_c`.
    class_names : sequence of str, optional
        As in `to_c`.
    compiler : sequence of str, optional
        The compiler's command with the options that choose the processor; by default the ziglang wheel's.
    verify : bool
        Whether to compare the C with the model on this machine before, where there is a compiler for it.

    Raises
    ------
    TypeError, ValueError, OSError
        As `to_c`.
    RuntimeError
        If there is no compiler, or it fails; nothing is written.
    """
    wasm = target == "wasm32"
    suffix = ".wasm" if wasm else ".o"
    output = Path(path)
    if output.suffix != suffix:
        raise ValueError(f"path must end in {suffix!r} for {target!r}, got {os.fspath(path)!r}")
    if not target_of(target).flags:
        there = ", ".join(repr(key) for key, row in TARGETS.items() if row.flags)
        raise ValueError(f"target must be a processor, one of {there}, got {target!r}")
    own_name = name_of(output, name)
    texts = file_texts(
        model_or_quantized, own_name, output.stem, target=target, memory=memory, names=class_names, verify=verify
    )
    command = tuple(compiler) if compiler is not None else cross_compiler(TARGETS[target].flags)
    with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
        for file_name, text in texts.items():
            (Path(folder) / file_name).write_text(text, encoding="ascii")
        (Path(folder) / "math.h").write_text(_MATHEMATICS, encoding="ascii")
        made = Path(folder) / output.name
        ends = (
            (*OPTIONS, *_module_options(own_name, "_predict_values(" in texts[f"{output.stem}.h"]))
            if wasm
            else (*OPTIONS, "-c")
        )
        compile_c(command, [Path(folder) / f"{output.stem}.c"], made, ("-Os", "-I", folder, *ends))
        content = made.read_bytes()
    write_files({output.with_suffix(".h"): texts[f"{output.stem}.h"].encode("ascii"), output: content})


def _module_options(name: str, integers: bool) -> list[str]:
    functions = [f"{name}_predict", *([f"{name}_predict_values"] if integers else [])]
    exports = [*functions, "__heap_base"]
    return ["-Wl,--no-entry", "-Wl,--export-memory", *(f"-Wl,--export={export}" for export in exports)]
