"""``nbdense inspect``: a folder or a file of a model: what is in it, how large it is, and where its numbers lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.commands.errors import CommandError
from nbdense.commands.trained.folder import TrainedFolder, is_trained
from nbdense.commands.trained.loading import load_any
from nbdense.commands.trained.scores import score_text

_SHADES = "▁▂▃▄▅▆▇█"
_BINS = 16


def run(path: Path, target: str | None = None) -> dict[str, Any]:
    """Look into a folder or a file of a model.

    Parameters
    ----------
    path : Path
        What `train`, `quantize` or `prune` wrote, a model file of nbdense's, an ONNX or a TFLite file.
    target : str, optional
        A processor, for what the network takes there.

    Returns
    -------
    dict
        "kind"; "files" and their bytes; "tensors", their ranges and histograms; and what else there is to say.

    Raises
    ------
    CommandError
        If there is no such thing.
    """
    result: dict[str, Any] = {"path": path, "files": _sizes(path)}
    if is_trained(path):
        trained = TrainedFolder.open(path)
        network = trained.network
        result |= {
            "kind": f"folder of a {trained.schema.task} of {trained.schema.target!r}",
            "columns": {column.name: column.kind for column in trained.schema.columns},
            "left_out": trained.schema.left_out,
            "scores": {name: trained.metrics.get(name) for name in ("train", "test")},
            "notes": trained.metrics.get("notes", []),
        }
    elif path.suffix.lower() == ".onnx" and path.is_file():
        result |= _graph(path)
        if target is None:
            return result
        network = load_any(path)
    else:
        network = load_any(path)
        result["kind"] = f"{type(network).__name__} file"
    result["summary"] = _summary(network)
    result.setdefault("tensors", [_tensor(name, values) for name, values in _tensors(network)])
    if target is not None:
        result["estimate"] = _estimate(network, target)
    return result


def report(result: Mapping[str, Any]) -> str:
    """Return the text of what was found.

    Parameters
    ----------
    result : mapping
        What `run` returned.
    """
    lines = [f"{result['path']}: {result['kind']}"]
    lines += [f"  {name:<28}{size:>12,} bytes" for name, size in result["files"].items()]
    for kind in dict.fromkeys(result.get("columns", {}).values()):
        names = [name for name, own in result["columns"].items() if own == kind]
        lines.append(f"reads {kind:<9}{', '.join(names)}")
    for part in ("train", "test"):
        if result.get("scores", {}).get(part):
            lines.append(f"{part:<5} {_score_line(result['scores'][part])}")
    for key in ("inputs", "outputs", "operators", "metadata"):
        if key in result:
            lines.append(f"{key}: " + ", ".join(f"{name} {text}".strip() for name, text in result[key].items()))
    if "summary" in result:
        lines += ["", result["summary"]]
    if result["tensors"]:
        lines += ["", *_tensor_lines(result["tensors"])]
    if "estimate" in result:
        estimate = result["estimate"]
        lines += ["", estimate["text"], f"{'layer':<20}{'kind':<24}{'flash':>10}{'RAM':>8}{'multiply-adds':>15}"]
        lines += [
            f"{layer['name']:<20}{layer['title']:<24}{layer['flash']:>10,}{layer['ram']:>8,}{layer['multiply_adds']:>15,}"
            for layer in estimate["layers"]
        ]
    return "\n".join(lines)


def picture(counts: Any) -> str:
    """Return a histogram in letters.

    Parameters
    ----------
    counts : sequence of int
        Of each bin.

    Examples
    --------
    >>> picture([0, 1, 2, 8])
    '▁▂▃█'
    """
    largest = max([*counts, 1])
    return "".join(_SHADES[-(-count * (len(_SHADES) - 1) // largest)] for count in counts)


def _sizes(path: Path) -> dict[str, int]:
    """Return the bytes of a file, or of a folder's files."""
    if not path.exists():
        raise CommandError(f"no model at {path}")
    if path.is_file():
        return {path.name: path.stat().st_size}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in files}


def _summary(network: Any) -> str:
    from nbdense.inspection.summary import summary
    from nbdense.models import Sequential

    if isinstance(network, Sequential):
        return summary(network)
    return str(network.report("text", timings=False))


def _tensors(network: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    from nbdense.models import Sequential

    held = network.network
    yield from (held.tensors() if isinstance(network, Sequential) else held.to_tensors()[0]).items()


def _tensor(name: str, values: npt.NDArray[Any]) -> dict[str, Any]:
    """Return a tensor's shape, its range over what is finite, its share of zeros and its histogram."""
    entry: dict[str, Any] = {"name": name, "dtype": str(values.dtype), "shape": list(values.shape)}
    if values.dtype.kind not in "fiu":
        return entry
    there = values[np.isfinite(values)].astype(np.float64)
    if not there.size:
        return entry
    counts, edges = np.histogram(there, _BINS)
    return {
        **entry,
        "least": float(there.min()),
        "largest": float(there.max()),
        "mean": float(there.mean()),
        "deviation": float(there.std()),
        "zeros": float(np.mean(values == 0)),
        "not_finite": int(values.size - there.size),
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
    }


def _tensor_lines(tensors: Any) -> list[str]:
    width = max(6, *(len(entry["name"]) for entry in tensors))
    lines = [f"{'tensor':<{width}}  {'type':<8}{'shape':>14}{'least':>12}{'largest':>12}{'zeros':>8}  histogram"]
    for entry in tensors:
        shape = "x".join(map(str, entry["shape"])) or "one"
        line = f"{entry['name']:<{width}}  {entry['dtype']:<8}{shape:>14}"
        if "least" in entry:
            line += f"{entry['least']:>12.4g}{entry['largest']:>12.4g}{entry['zeros']:>8.1%}  "
            line += picture(entry["histogram"]["counts"])
        lines.append(line)
    return lines


def _score_line(scores: Mapping[str, Any]) -> str:
    return score_text(
        {name: float("nan") if value is None and name != "roc_auc" else value for name, value in scores.items()}
    )


def _graph(path: Path) -> dict[str, Any]:
    """Return what an ONNX file says of itself: ends, operators, metadata, constants."""
    import onnx
    from onnx import TensorProto, numpy_helper

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's
        raise CommandError(f"{path} is damaged, or no ONNX file: {' '.join(str(error).split())}") from error

    def ends(entries: Any) -> dict[str, str]:
        return {
            entry.name: f"{TensorProto.DataType.Name(entry.type.tensor_type.elem_type).lower()} "
            + str([dim.dim_param or dim.dim_value for dim in entry.type.tensor_type.shape.dim]).replace("'", "")
            for entry in entries
        }

    versions = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    return {
        "kind": f"ONNX file, IR {model.ir_version}, opsets {versions}, by {model.producer_name or 'nobody named'}",
        "inputs": ends(model.graph.input),
        "outputs": ends(model.graph.output),
        "operators": {name: str(count) for name, count in Counter(node.op_type for node in model.graph.node).items()},
        "metadata": {entry.key: _first(entry.value) for entry in model.metadata_props},
        "tensors": [_tensor(tensor.name, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer],
    }


def _first(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def _estimate(network: Any, target: str) -> dict[str, Any]:
    """Return what a network takes on a processor; of a float one, what its int8 form would."""
    from nbdense.export import estimate
    from nbdense.models import Sequential

    note = ""
    if isinstance(network, Sequential):
        from nbdense.quant import quantize

        # Sizes depend on the shapes alone
        x = np.random.default_rng(0).standard_normal((64, *network.network.input_shape), np.float32)
        network, note = quantize(network, x), ", once it is quantized to int8"
    costs = estimate(network, target)
    layers = [
        {
            "name": cost.name,
            "title": cost.title,
            "flash": cost.flash,
            "ram": cost.ram,
            "multiply_adds": cost.multiply_adds,
        }
        for cost in costs.layers
    ]
    return {
        "text": f"{costs}{note}",
        "flash": costs.flash,
        "ram": costs.ram,
        "instructions": costs.instructions,
        "multiply_adds": costs.multiply_adds,
        "layers": layers,
    }
