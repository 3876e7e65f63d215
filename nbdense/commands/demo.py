"""``nbdense demo``: the whole product on scikit-learn's digits, from training to verified ONNX files.

`run` does the work and returns what it found as data; `report` puts that in words.
"""

from __future__ import annotations

import importlib
import io
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.commands.errors import CommandError
from nbdense.commands.trained.progress import EpochBar
from nbdense.files import atomic_write
from nbdense.layers import Dense, Input
from nbdense.losses import SparseCategoricalCrossentropy
from nbdense.models import Sequential
from nbdense.optimizers import Adam
from nbdense.utils import set_random_seed

EXTRAS = {"sklearn": ("scikit-learn", "sklearn"), "onnxruntime": ("onnxruntime", "onnxruntime")}
EPOCHS = 60  # of training, and again of fine-tuning
BATCH = 16
LABEL_SMOOTHING = 0.1
SPARSITY = 0.8
CALIBRATION_ROWS = 256
TIMED_SECONDS, TIMED_CALLS = 0.3, 20  # at least, for each model


class DemoError(CommandError):
    """An error that the user can put right; the message says how, in one line."""


@dataclass(frozen=True)
class Digits:
    """The data, split and standardised.

    Attributes
    ----------
    x_train, x_test : ndarray of float32, (rows, 64)
        Pixels, standardised by the training rows.
    y_train, y_test : ndarray of int64, (rows,)
        Digits.
    mean, deviation : ndarray of float32, (64,)
        What was subtracted and divided by.
    """

    x_train: npt.NDArray[np.float32]
    x_test: npt.NDArray[np.float32]
    y_train: npt.NDArray[np.int64]
    y_test: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ModelResult:
    """One line of the demo's table.

    Attributes
    ----------
    name : str
        "float32", "int8" or "pruned 80%".
    onnx, file : Path
        The ONNX file, and the file that ``load_model`` reads.
    accuracy : float
        Share of the test rows whose digit is predicted.
    onnx_bytes : int
        Size of the ONNX file.
    parameters, non_zero : int
        Weights and biases, and how many of them are not zero.
    microseconds : float
        A row, where ``predict`` takes all test rows at once on one thread; the median of many warm calls.
    difference : float
        Largest absolute difference of a probability from onnxruntime's, on the test rows.
    differing_classes : int
        Test rows for which onnxruntime predicts another digit.
    """

    name: str
    onnx: Path
    file: Path
    accuracy: float
    onnx_bytes: int
    parameters: int
    non_zero: int
    microseconds: float
    difference: float
    differing_classes: int


@dataclass(frozen=True)
class DemoResults:
    """Results of a run of the demo.

    Attributes
    ----------
    folder : Path
        Folder of the files.
    data : Path
        The test rows, and how they were standardised, as arrays in an npz file.
    float32, int8, pruned : ModelResult
        The three models.
    sparsity : float
        Share of the pruned model's kernel weights that are zero.
    train_rows, test_rows : int
        Rows of the two parts.
    seconds : float
        All of it together, compiling included.
    """

    folder: Path
    data: Path
    float32: ModelResult
    int8: ModelResult
    pruned: ModelResult
    sparsity: float
    train_rows: int
    test_rows: int
    seconds: float


def run(folder: Path, seed: int = 0, epochs: int = EPOCHS, progress: bool = True) -> DemoResults:
    """Train, quantize, prune, export and verify.

    Parameters
    ----------
    folder : Path
        Folder for the files; made if it is not there. Files of an earlier run are replaced.
    seed : int
        Seed of the split, the initial weights and the order of rows: the same seed, the same files.
    epochs : int
        Epochs of training, and again of fine-tuning after pruning.
    progress : bool
        Whether progress bars are drawn on stderr.

    Returns
    -------
    DemoResults

    Raises
    ------
    DemoError
        If a package is missing, the folder cannot be written, or onnxruntime does not agree with nbdense.
    """
    started = time.perf_counter()
    _need_extras()
    _need_writable(folder)
    digits = load_data(seed)
    set_random_seed(seed)
    model = _compiled(
        Sequential([Input((64,)), Dense(128, "relu"), Dense(64, "relu"), Dense(10, "softmax")], name="digits")
    )
    _fit(model, digits, epochs, "train" if progress else "")

    from nbdense.quant import prune, quantize

    small = quantize(model, calibration=digits.x_train[:CALIBRATION_ROWS])
    sparse = _compiled(prune(model, SPARSITY))
    _fit(sparse, digits, epochs, "prune, fine-tune" if progress else "")

    data = folder / "digits.npz"
    _write_data(data, digits)
    kernels = [weights for weights in sparse.get_weights() if weights.ndim == 2]
    return DemoResults(
        folder=folder,
        data=data,
        float32=_export("float32", model, folder, digits),
        int8=_export("int8", small, folder, digits),
        pruned=_export(f"pruned {SPARSITY:.0%}", sparse, folder, digits),
        sparsity=float(np.mean(np.concatenate([kernel.ravel() for kernel in kernels]) == 0)),
        train_rows=len(digits.x_train),
        test_rows=len(digits.x_test),
        seconds=time.perf_counter() - started,
    )


def load_data(seed: int) -> Digits:
    """Load scikit-learn's digits: a quarter held out for the test, standardised by the rest.

    Parameters
    ----------
    seed : int
        Seed of the split, which keeps the shares of the digits.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    train, test, y_train, y_test = train_test_split(
        pixels, labels, test_size=0.25, random_state=seed % 2**32, stratify=labels
    )
    mean = train.mean(axis=0).astype(np.float32)
    # Pixels at the rim are nearly always 0. Divided by their tiny deviation, the few that are not would be outliers
    # that stretch the int8 range; so nothing is divided by less than one of the 16 grey levels.
    deviation = np.maximum(train.std(axis=0), 1.0).astype(np.float32)
    x_train, x_test = (((part - mean) / deviation).astype(np.float32) for part in (train, test))
    return Digits(x_train, x_test, y_train, y_test, mean, deviation)


def report(results: DemoResults) -> str:
    """Return the text of the report: the table, where the files are, and how to go on.

    Parameters
    ----------
    results : DemoResults
        What `run` returned.
    """
    lines = [
        "",
        (
            f"digits: trained on {results.train_rows} rows, tested on {results.test_rows}; "
            f"64-128-64-10, {results.float32.parameters:,} parameters"
        ),
        "",
        f"{'':<12}{'test':>10}{'ONNX':>12}{'parameters':>14}{'us':>10}{'largest difference':>22}",
        f"{'':<12}{'accuracy':>10}{'file':>12}{'not zero':>14}{'a row':>10}{'from onnxruntime':>22}",
    ]
    lines += [
        f"{model.name:<12}{model.accuracy:>10.2%}{model.onnx_bytes / 1000:>9.1f} kB{model.non_zero:>14,}"
        f"{model.microseconds:>10.3f}{model.difference:>22.1e}"
        for model in (results.float32, results.int8, results.pruned)
    ]
    lines += [
        "",
        f"Time: nbdense's predict on {results.test_rows} rows at once, one thread, median of warm calls.",
        "The pruned file has the float one's size: ONNX stores its zeros too.",
        f"{results.seconds:.0f} s in all. Files in {results.folder}: "
        + ", ".join(sorted(path.name for path in _files(results)))
        + ".",
        "",
        "To go on, from Python:",
        "",
        *(f"    {line}" for line in next_steps(results).splitlines()),
        "",
        "or give the .onnx files to any ONNX runtime.",
    ]
    return "\n".join(lines)


def next_steps(results: DemoResults) -> str:
    """Return a few lines of Python that take up where the demo ended.

    Parameters
    ----------
    results : DemoResults
        What `run` returned.
    """
    return "\n".join(
        [
            "import numpy as np, nbdense as nb",
            f"data = np.load({str(results.data)!r})  # x_test, y_test; mean and deviation standardise new rows",
            f"model = nb.load_model({str(results.int8.file)!r})",
            'print((model.predict(data["x_test"]).argmax(axis=1) == data["y_test"]).mean())',
        ]
    )


def _files(results: DemoResults) -> list[Path]:
    models = (results.float32, results.int8, results.pruned)
    return [results.data, *(path for model in models for path in (model.onnx, model.file))]


def _need_extras() -> None:
    missing = []
    for module in EXTRAS:
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(EXTRAS[module])
    if missing:
        packages, extras = zip(*missing, strict=True)
        raise DemoError(f"needs {' and '.join(packages)}: pip install 'nbdense[{','.join(extras)}]'")


def _need_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to: before the training, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DemoError(f"cannot write to the folder {folder} (--out): {error.strerror}") from error


def _compiled(model: Sequential) -> Sequential:
    loss = SparseCategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING)
    model.compile(Adam(learning_rate=0.001), loss, metrics=["accuracy"])
    return model


def _fit(model: Sequential, digits: Digits, epochs: int, title: str) -> None:
    bars = [EpochBar(title, epochs)] if title else []
    model.fit(digits.x_train, digits.y_train, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=bars)


def _export(name: str, model: Any, folder: Path, digits: Digits) -> ModelResult:
    """Write a model's two files, hold the ONNX one against onnxruntime on the test rows, and measure."""
    from nbdense.export import to_onnx, verify_onnx

    stem = name.split()[0].removesuffix("32")
    onnx, file = folder / f"{stem}.onnx", folder / f"{stem}.safetensors"
    model.save(file)
    to_onnx(model, onnx, verify=False)  # the next line does, on real rows
    verification = verify_onnx(onnx, model, digits.x_test)
    if not verification.agrees:
        raise DemoError(f"{onnx}: onnxruntime does not compute what nbdense does: {verification}")
    parameters = [value for key, value in _tensors(model).items() if key.rpartition("/")[2] in ("kernel", "bias")]
    return ModelResult(
        name=name,
        onnx=onnx,
        file=file,
        accuracy=float(np.mean(model.predict(digits.x_test).argmax(axis=1) == digits.y_test)),
        onnx_bytes=onnx.stat().st_size,
        parameters=sum(value.size for value in parameters),
        non_zero=sum(int(np.count_nonzero(value)) for value in parameters),
        microseconds=1e6 * _seconds_a_call(model, digits.x_test) / len(digits.x_test),
        difference=verification.max_absolute,
        differing_classes=verification.differing_classes,
    )


def _tensors(model: Any) -> dict[str, npt.NDArray[Any]]:
    """Return a float or quantized model's arrays by name."""
    network = model.network
    tensors: dict[str, npt.NDArray[Any]] = (
        network.tensors() if isinstance(model, Sequential) else network.to_tensors()[0]
    )
    return tensors


def _seconds_a_call(model: Any, x: npt.NDArray[np.float32]) -> float:
    """Measure predict: the median time of a warm call on one thread, where other work on the machine matters least."""
    import numba

    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        for _ in range(3):
            model.predict(x)
        times: list[float] = []
        while len(times) < TIMED_CALLS or sum(times) < TIMED_SECONDS:
            begin = time.perf_counter()
            model.predict(x)
            times.append(time.perf_counter() - begin)
    finally:
        numba.set_num_threads(threads)
    return statistics.median(times)


def _write_data(path: Path, digits: Digits) -> None:
    memory = io.BytesIO()
    arrays = {name: getattr(digits, name) for name in ("x_test", "y_test", "mean", "deviation")}
    np.savez(memory, allow_pickle=False, **arrays)
    atomic_write(path, memory.getvalue())
