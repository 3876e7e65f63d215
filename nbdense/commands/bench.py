"""``nbdense bench``: how long a model's predictions take on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.commands.trained.loading import load_any

LEAST_CALLS = 5


def run(model: Path, batches: Sequence[int], seconds: float) -> dict[str, Any]:
    """Time a model's predictions, and onnxruntime's of the same network where that is installed.

    Parameters
    ----------
    model : Path
        A folder that `train` wrote, of which the network is timed, or a model's file.
    batches : sequence of int
        Rows a call.
    seconds : float
        To spend on each line, at least.

    Returns
    -------
    dict
        "timings", the median of warm calls for each runner, number of threads and batch.

    Raises
    ------
    CommandError
        If there is no such model.
    """
    from nbdense import set_num_threads
    from nbdense.export.networks import network_of, shapes_of

    network = load_any(model)
    shape = shapes_of(network_of(network))[0]
    x = np.random.default_rng(0).standard_normal((max(batches), *shape), np.float32)
    most = _threads()
    timings = []
    try:
        for threads in dict.fromkeys((1, most)):
            set_num_threads(threads)
            runners: dict[str, Callable[[Any], Any]] = {"nbdense": network.predict}
            other = _onnxruntime(network, threads)
            if other is not None:
                runners["onnxruntime"] = other
            for batch in batches:
                for name, predict in runners.items():
                    rows = x[:batch]
                    call = _median(lambda predict=predict, rows=rows: predict(rows), seconds)  # type: ignore[misc]
                    timings.append({"runner": name, "threads": threads, "batch": batch, "microseconds": 1e6 * call})
    finally:
        set_num_threads(most)
    return {"model": model, "timings": timings}


def report(result: Mapping[str, Any]) -> str:
    """Return the text of the timings.

    Parameters
    ----------
    result : mapping
        What `run` returned.
    """
    lines = [f"{'':<14}{'threads':>8}{'rows a call':>13}{'us a call':>12}{'us a row':>12}{'rows a second':>16}"]
    for entry in result["timings"]:
        call, batch = entry["microseconds"], entry["batch"]
        cells = f"{batch:>13,}{call:>12.4g}{call / batch:>12.4g}{1e6 * batch / call:>16,.0f}"
        lines.append(f"{entry['runner']:<14}{entry['threads']:>8}{cells}")
    return "\n".join([*lines, "medians of warm calls from Python, NumPy in and out, on this machine as it is now"])


def _median(call: Callable[[], Any], seconds: float) -> float:
    for _ in range(3):
        call()
    times: list[float] = []
    while len(times) < LEAST_CALLS or sum(times) < seconds:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _threads() -> int:
    import numba

    return int(numba.get_num_threads())


def _onnxruntime(network: Any, threads: int) -> Callable[[npt.NDArray[np.float32]], Any] | None:
    """Return what runs the network in onnxruntime; None where that, or the network's ONNX form, is missing."""
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime as ort

    from nbdense.export import to_onnx

    try:
        content = to_onnx(network, verify=False).SerializeToString()
    except (TypeError, ValueError):
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows})
