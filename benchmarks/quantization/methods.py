"""The one table of quantizers, nbdense's and onnxruntime's, what they begin with, and what is allowed to be lost."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from benchmarks.mnist import Classes, Rows

FLOAT = "float"
OURS, THEIRS = "nbdense", "onnxruntime"


@dataclass(frozen=True)
class Recipe:
    """The way in which models are trained and calibrated: the same for all seeds."""

    widths: tuple[int, ...] = (784, 300, 100, 10)
    batch: int = 128
    epochs: int = 15
    rate: float = 1e-3  # of Adam, decayed by a cosine to 0
    aware_epochs: int = 3  # of quantization-aware training, which begins with the trained float model
    aware_rate: float = 2e-4
    calibration: int = 10_000  # the first rows of the training set


class Trained:
    """A float model of one seed, and what quantizers need beside it."""

    def __init__(self, recipe: Recipe, rows: Rows, seed: int) -> None:
        import nbdense as nb

        self.recipe, self.rows, self.seed = recipe, rows, seed
        self.calibration = rows.x[: recipe.calibration]
        nb.set_random_seed(seed)
        *hidden, n_out = recipe.widths[1:]
        layers = [nb.Dense(width, "relu") for width in hidden]
        self.model = nb.Sequential([nb.layers.Input(recipe.widths[:1]), *layers, nb.Dense(n_out, "softmax")])
        self.fit(self.model, recipe.epochs, recipe.rate)

    def fit(self, model: Any, epochs: int, rate: float) -> None:
        """Train a model on the training rows."""
        import nbdense as nb

        steps = -(-len(self.rows.x) // self.recipe.batch) * epochs
        model.compile(optimizer=nb.Adam(nb.CosineDecay(rate, steps)), loss="sparse_categorical_crossentropy")
        model.fit(self.rows.x, self.rows.y, batch_size=self.recipe.batch, epochs=epochs, verbose=0)

    @cached_property
    def file(self) -> bytes:
        """Return the model as a float ONNX file."""
        from benchmarks.quantization import peers

        return peers.float_file(self.model)


@dataclass(frozen=True)
class Answer:
    """A quantized model's classes of the test rows, and the bytes of all its constants."""

    classes: Classes
    size_bytes: int
    model: Any = None  # nbdense's


def _predicted(model: Any, rows: Rows) -> Classes:
    return np.asarray(model.predict(rows.x_test).argmax(axis=-1))


def float_model(trained: Trained) -> Answer:
    """Return the answer of the float model, which all else is compared with."""
    weights = trained.model.get_weights()
    return Answer(_predicted(trained.model, trained.rows), sum(weight.nbytes for weight in weights))


def post_training(trained: Trained, **options: Any) -> Answer:
    """Return the answer of a model that `nbdense.quantize` makes."""
    import nbdense as nb

    quantized = nb.quantize(trained.model, trained.calibration, **options)
    return Answer(_predicted(quantized, trained.rows), quantized.size_bytes, quantized)


def aware(trained: Trained, **options: Any) -> Answer:
    """Return the answer of a model by `nbdense.quantize_aware`, training, and `nbdense.quantize`."""
    import nbdense as nb

    nb.set_random_seed(trained.seed)  # that a seed's result does not depend on what was made before
    model = nb.quantize_aware(trained.model, trained.calibration, **options)
    trained.fit(model, trained.recipe.aware_epochs, trained.recipe.aware_rate)
    quantized = nb.quantize(model)
    return Answer(_predicted(quantized, trained.rows), quantized.size_bytes, quantized)


def peer(trained: Trained, how: str) -> Answer:
    """Return the answer of onnxruntime.quantization, by a row of `benchmarks.quantization.peers.QUANTIZERS`."""
    from benchmarks.quantization import peers

    proto = peers.quantize(trained.file, trained.calibration, how)
    found = peers.classes(proto, trained.rows.x_test)
    return Answer(found, peers.size_bytes(proto))


@dataclass(frozen=True)
class Method:
    """A row of the table. ``bound``: how many points of error more than float's the mean over seeds may be."""

    title: str
    library: str
    make: Callable[[Trained], Answer]
    bound: float | None = None
    needs: str = ""  # a package that no extra of ours but bench holds

    @property
    def installed(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None


_INT4 = {"scheme": "weight_only", "bits": 4, "granularity": "block"}
METHODS = {
    FLOAT: Method("float32", OURS, float_model),
    "static": Method("static int8", OURS, post_training, bound=0.05),
    "static_tflite": Method('static int8, rounding="tflite"', OURS, partial(post_training, rounding="tflite")),
    "static_uint8": Method("static int8, uint8 activations", OURS, partial(post_training, activation_dtype="uint8")),
    "static_peer": Method("static int8 (QDQ, MinMax, per channel)", THEIRS, partial(peer, how="static")),
    "aware": Method("quantization-aware int8", OURS, aware),
    "dynamic": Method("dynamic int8", OURS, partial(post_training, scheme="dynamic")),
    "dynamic_peer": Method("dynamic int8 (per channel)", THEIRS, partial(peer, how="dynamic")),
    "weights_int8": Method("weight-only int8", OURS, partial(post_training, scheme="weight_only")),
    "weights_int4": Method(
        "weight-only int4, blocks of 32, GPTQ", OURS, partial(post_training, solver="gptq", **_INT4), bound=0.15
    ),
    "weights_int4_nearest": Method(
        "weight-only int4, blocks of 32, nearest", OURS, partial(post_training, solver="nearest", **_INT4)
    ),
    "weights_int4_peer": Method(
        "weight-only int4, blocks of 32, GPTQ (MatMulNBits)", THEIRS, partial(peer, how="int4_gptq")
    ),
    "weights_int4_nearest_peer": Method(
        "weight-only int4, blocks of 32, nearest (MatMulNBits)", THEIRS, partial(peer, how="int4"), needs="onnx_ir"
    ),
    "static_int4": Method("static, 4-bit weights, GPTQ", OURS, partial(post_training, bits=4, solver="gptq")),
    "aware_int4": Method(
        "quantization-aware, 4-bit weights, 8-bit activations", OURS, partial(aware, bits=4), bound=0.1
    ),
}
WORST = 3  # times the bound: what no seed may exceed
FLOAT_ERROR = 2.0  # percent: every float model has to be better

# Of the static int8 model's ONNX file in onnxruntime, against predict_integers.
SAME_INTEGERS, LARGEST_DIFFERENCE, OTHER_CLASSES = 0.999, 1, 0
EXPORTED = "static"


def compare_export(quantized: Any, rows: Rows) -> dict[str, int]:
    """Count integers and classes of a static model's QDQ file in onnxruntime that are not `nbdense`'s."""
    from benchmarks.quantization import peers
    from nbdense.export import to_onnx, verify_onnx

    proto = to_onnx(quantized, verify=False)
    result = verify_onnx(proto, quantized, rows.x_test)
    other = peers.classes(proto, rows.x_test) != _predicted(quantized, rows)
    assert result.integers is not None and result.differing_integers is not None
    return {
        "rows": len(rows.x_test),
        "integers": result.integers,
        "differing_integers": result.differing_integers,
        "max_integer_difference": int(result.max_integer_difference or 0),
        "differing_classes": int(np.count_nonzero(other)),
    }
