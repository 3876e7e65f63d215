"""`to_c`: the door for models that become C."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from nbdense.export.c.compiling import compiler_at_hand
from nbdense.export.c.names import name_of, source_path
from nbdense.export.c.program import Program, float_program_of, network_in_c, program_of
from nbdense.export.c.targets import CMSIS_NN, target_of
from nbdense.export.c.verification import quantized, random_rows, verify_c
from nbdense.export.c.writing import Options, Texts, write
from nbdense.export.networks import is_quantized, network_of, shapes_of, with_predict
from nbdense.files import StagedFile

GOLDEN_ROWS = 4
MEMORIES = ("static", "caller")


def to_c(
    model_or_quantized: Any,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    target: str = "generic",
    memory: str = "static",
    class_names: Sequence[str] | None = None,
    verify: bool = True,
) -> None:
    """Write a model as C99, one source and one header, and see that it computes what nbdense computes.

    ``int NAME_predict(const T *input, T *output)`` takes and gives integers, bit for bit those of
    ``predict_integers``; ``NAME_predict_values`` takes and gives real numbers. Of a float model there is the first
    alone, and T is float. Nothing is allocated, and nothing of C's library is needed but ``stdint.h``, and by float
    models that take an exponential or the like ``math.h``. A macro, NAME_SELF_TEST, adds a ``main`` that returns how
    many outputs of some rows are not nbdense's. The bytes are the same for the same model.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model: statically quantized, of any rounding, 8 or 4 bits, or float, which is written in float32. Kernels
        with many zeros, of pruned and sparse models, are written without them where that takes fewer bytes.
    path : path
        The source, ending in ".c"; the header is written beside it. Both are replaced if they exist.
    name : str, optional
        What functions and macros begin with; by default the file's name.
    target : str
        The processor, which the order of the weights follows: "generic", "cortex-m0plus", "cortex-m4", "cortex-m7",
        "cortex-m33", "aarch64", "riscv32" or "wasm32". What is written for one compiles for all. "cmsis-nn" calls
        CMSIS-NN's fully connected layers (7.0 or later) instead of loops of its own: of int8, rounding "gemmlowp", or
        "tflite" for a CMSIS-NN that is built with CMSIS_NN_USE_SINGLE_ROUNDING.
    memory : {"static", "caller"}
        Whose the memory is that layers work in: the source's own, or a further argument, NAME_MEMORY elements.
    class_names : sequence of str, optional
        What the outputs stand for: written as NAME_labels.
    verify : bool
        Whether to compile, run and compare before anything is written (see `verify_c`), where there is a compiler; not
        of "cmsis-nn", which `verify_c` takes with options that say where CMSIS-NN is.

    Raises
    ------
    TypeError
        If the model is none of those.
    ValueError
        If a layer has no form in C (named), or for a name, path, target or memory that there cannot be.
    RuntimeError
        If the C computes something else, or does not compile; nothing is written.
    OSError
        If the folder does not exist or cannot be written; it is named.
    """
    source = source_path(path)
    texts = file_texts(
        model_or_quantized,
        name_of(source, name),
        source.stem,
        target=target,
        memory=memory,
        names=class_names,
        verify=verify,
    )
    write_files({source.parent / file_name: text.encode("ascii") for file_name, text in texts.items()})


def file_texts(
    model: Any,
    name: str,
    stem: str,
    *,
    target: str,
    memory: str,
    names: Sequence[str] | None,
    verify: bool,
) -> dict[str, str]:
    """Return header and source of a model by their file names, compiled and compared first.

    Parameters
    ----------
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.
    name : str
        What its functions begin with.
    stem : str
        The files' name.
    target, memory : str
        As in `to_c`.
    names : sequence of str, optional
        What the outputs stand for.
    verify : bool
        Whether to compare, where there is a compiler.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `to_c`.
    """
    texts = texts_of(model, name, f"{stem}.h", target=target, memory=memory, names=names)
    files = {f"{stem}.h": texts.header, f"{stem}.c": texts.source}
    if verify and target_of(target).layout is not CMSIS_NN and compiler_at_hand() is not None:
        with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
            for file_name, text in files.items():
                (Path(folder) / file_name).write_text(text, encoding="ascii")
            result = verify_c(Path(folder) / f"{stem}.c", model)
        if not result.agrees:
            raise RuntimeError(f"the C does not compute what nbdense computes ({result}); nothing was written")
    return files


def texts_of(
    model: Any, name: str, header: str, *, target: str, memory: str = "static", names: Sequence[str] | None = None
) -> Texts:
    """Return the texts of a model as C.

    Parameters
    ----------
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.
    name : str
        What its functions begin with.
    header : str
        The header's file name.
    target : str
        The processor.
    memory : str
        Whose memory layers work in.
    names : sequence of str, optional
        What the outputs stand for.

    Raises
    ------
    TypeError, ValueError
        As `to_c`.
    """
    target_of(target)
    if memory not in MEMORIES:
        raise ValueError(f"memory must be one of {', '.join(map(repr, MEMORIES))}, got {memory!r}")
    network: Any = network_in_c(model)
    program = program_of(network) if is_quantized(network) else float_program_of(network)
    labels = () if names is None else tuple(map(str, names))
    columns = program.sizes[program.output]
    if labels and len(labels) != (2 if columns == 1 else columns):
        raise ValueError(f"class_names must be {2 if columns == 1 else columns}, one for each class, got {len(labels)}")
    return write(program, Options(name, target, memory, labels, _golden(model, program), header))


def _golden(model: Any, program: Program) -> tuple[Any, Any]:
    """Return rows for the self-test, flat, and what belongs to them."""
    reference = with_predict(model)
    rows = random_rows(program, shapes_of(network_of(model))[0], GOLDEN_ROWS)
    if program.value == "float":
        return rows.reshape(GOLDEN_ROWS, -1), reference.predict(rows).astype(np.float32).reshape(GOLDEN_ROWS, -1)
    outputs = reference.predict_integers(rows)
    return quantized(program, rows).reshape(GOLDEN_ROWS, -1), outputs.reshape(GOLDEN_ROWS, -1)


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files, all of them whole before the first gets its name.

    Parameters
    ----------
    contents : mapping of Path to bytes
        What each shall hold.

    Raises
    ------
    OSError
        If a folder does not exist or cannot be written; the path is named.
    """
    with ExitStack() as stack:
        staged = [stack.enter_context(StagedFile(path, [content])) for path, content in contents.items()]
        for file in staged:
            file.publish()
