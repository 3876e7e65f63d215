"""Quantization-aware training: a model that computes as its integer model will, and learns.

Method: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(2018), section 3. Rounding stands wherever static quantization has integers: at the input, before an activation that
becomes a table, behind every layer, and in the kernels. Its gradients are `nbdense.engine.rows.fake_quant`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.rows import ACTIVATION, ADD, DENSE, FAKE_QUANT, FROZEN_NORM, RESHAPE, kind_of
from nbdense.layers import Activation, ActivityRegularization, Dense, Flatten, Input, Layer, Residual, inner_layers
from nbdense.layers.fake_quantization import KERNEL_LIMITS, FakeQuantize, FakeQuantizedDense, FakeQuantizedResidual
from nbdense.models import Sequential
from nbdense.models.derived import empty_like
from nbdense.network import Network, Row
from nbdense.quant.calibration.calibration import Ranges, calibrate
from nbdense.quant.calibration.trained import SETTLED, range_of
from nbdense.quant.layers.activations import FIXED_OUTPUTS, activation_parameters, is_clamp, without_flat_ends
from nbdense.quant.layers.base import Range
from nbdense.quant.layers.checks import GRANULARITIES, LIMITS, ROUNDINGS
from nbdense.quant.schemes.options import RANGE_METHODS, Options
from nbdense.quant.schemes.table import SCHEMES

_BIAS_STEPS = 2.0**26  # of a bias at most, when training begins: its integer has room to grow sixteen times larger
_SHARES = np.linspace(0.2, 1.0, 41)  # of a column's largest weight, that are tried for the largest integer to stand for


def quantize_aware(
    model: Any,
    calibration: Any,
    *,
    scheme: str = "static",
    bits: int = 8,
    granularity: str = "per_channel",
    block_size: int = 32,
    range_method: str = "minmax",
    activation_dtype: str = "int8",
    symmetric: bool = False,
    softmax: str = "float",
    solver: str = "auto",
    equalize: bool = False,
    bias_correction: bool = False,
    rounding: str = "onnx",
    accuracy_budget: None = None,
    evaluate: None = None,
    learn_ranges: bool = True,
) -> Sequential:
    """Make a model for further training that computes as the integers of its `quantize`d model will.

    Where integers will be, its values are rounded to what these can hold, so `evaluate` says what the integer model
    will do. Training moves the float weights behind the rounded ones and, if they are to be learned, the ranges of
    activations, which start as calibrated; that of the input stays. Weights have scales of their own that stay: at 8
    bits their largest magnitude has the largest integer, at 4 bits each scale is the one that rounds its weights with
    the least squared error. So begin with a trained model, and train on at a lower learning rate.

    Parameters
    ----------
    model : Sequential
        The trained float model; not changed. Batch normalisation is folded into the dense layers before it.
    calibration : array-like, (rows, n_in)
        Inputs as they will come in use, a few hundred rows.
    scheme : str
        "static".
    bits : int
        Bits of the weights: 8 or 4. Activations have 8.
    granularity : str
        "per_channel": a weight scale for each output column; "per_tensor": one for each kernel.
    block_size : int
        Taken because `quantize` takes it.
    range_method : str
        How calibration chooses ranges, as in `quantize`.
    activation_dtype : str
        "int8" or "uint8".
    symmetric : bool
        False: ranges that learn have two ends.
    softmax : str
        "float": how training computes a softmax at the end.
    solver : str
        "auto" or "nearest": training takes the place of others.
    equalize, bias_correction : bool
        False: likewise.
    rounding : str
        How the integer model will requantise, see `quantize`. Training rounds to nearest, half to even.
    accuracy_budget, evaluate : None
        Taken because `quantize` takes them.
    learn_ranges : bool
        Whether the ranges of activations are trained, or stay as calibrated.

    Returns
    -------
    Sequential
        With the weights and the pruning mask of ``model``; compiled if that is, with a fresh optimizer.

    Raises
    ------
    ValueError
        For an option that there is not, unfit calibration data, or a layer that cannot be quantized: the message
        names it.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.layers import Dense, Input
    >>> model = Sequential([Input((4,)), Dense(8, activation="relu"), Dense(3, activation="softmax")])
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> x, y = np.random.default_rng(0).normal(size=(100, 4)), np.arange(100) % 3
    >>> aware = quantize_aware(model, x, bits=4)
    >>> history = aware.fit(x, y, verbose=0)
    >>> aware.predict(x).shape
    (100, 3)
    """
    options = _trainable(
        scheme=scheme,
        bits=bits,
        granularity=granularity,
        range_method=range_method,
        activation_dtype=activation_dtype,
        symmetric=symmetric,
        softmax=softmax,
        solver=solver,
        equalize=equalize,
        bias_correction=bias_correction,
        rounding=rounding,
        accuracy_budget=accuracy_budget,
        evaluate=evaluate,
    )
    if not isinstance(model, Sequential):
        raise ValueError(f"quantize_aware: expected a Sequential, got {type(model).__name__}")
    if model.network.quantization or model.network.rounds_kernels:
        raise ValueError("quantize_aware: the model is one for quantization-aware training already; fit it")
    plain = model.fold_batch_normalization(at_input=False)
    for layer in inner_layers(plain.layers):
        if isinstance(layer, Sequential):
            raise ValueError(
                f"quantize_aware: layer {layer.name!r} is a Sequential, which is not supported; make one Sequential of "
                "all layers, or take quantize, without this training"
            )
    if not any(isinstance(layer, Dense) for layer in inner_layers(plain.layers)):
        raise ValueError("quantize_aware: the model has no Dense layer")
    _check_rows(plain.network)
    ranges = calibrate(plain.network, calibration, options.range_method)
    return _with_ranges(model, plain, ranges, options, bool(learn_ranges))


# The values that training takes, of the options of `quantize` that it does not take as that does.
_TRAINABLE: dict[str, Collection[Any]] = {
    "scheme": [scheme.name for scheme in SCHEMES.values() if scheme.trains],
    "bits": tuple(KERNEL_LIMITS),
    "granularity": GRANULARITIES,
    "range_method": RANGE_METHODS,
    "activation_dtype": tuple(LIMITS),
    "symmetric": (False,),
    "softmax": ("float",),
    "solver": ("auto", "nearest"),
    "equalize": (False,),
    "bias_correction": (False,),
    "rounding": ROUNDINGS,
    "accuracy_budget": (None,),
    "evaluate": (None,),
}


def _trainable(**settings: Any) -> Options:
    """Return the options that training settles; refuse a value that it cannot take."""
    for option, available in _TRAINABLE.items():
        if settings[option] not in available:
            values = " or ".join(map(repr, available))
            raise ValueError(f"quantize_aware: {option} must be {values}, got {settings[option]!r}")
    return Options(**{option: settings[option] for option in SETTLED} | {"bits": int(settings["bits"])})


def _check_rows(network: Network) -> None:
    rows = list(network.rows())
    for row in rows:
        if row.activation.own:
            raise ValueError(
                f"quantize_aware: {row.label}: activation {row.activation.name!r} is one of your own, which is not "
                "supported; quantize takes it, without this training"
            )
        if row.kind not in (DENSE, ACTIVATION, ADD, RESHAPE):
            fold = "only one beside a Dense, not at the input, can be folded; " if row.kind is FROZEN_NORM else ""
            raise ValueError(
                f"quantize_aware: {row.label} is not supported; {fold}quantize takes it, without this training"
            )
        if row.activation.rowwise and row.activation.name != "softmax":
            raise ValueError(
                f"quantize_aware: {row.label}: activation {row.activation.name!r} is not supported; end with "
                "'softmax', or with 'linear' and a loss from_logits=True"
            )
        if row.activation.name == "softmax" and row is not rows[-1]:
            raise ValueError(f"quantize_aware: {row.label}: softmax is supported only as the last activation")
        if not np.isfinite(row.kernel).all() or (row.bias is not None and not np.isfinite(row.bias).all()):
            raise ValueError(f"quantize_aware: {row.label}: its weights are not all finite")


def _with_ranges(model: Sequential, plain: Sequential, ranges: Ranges, options: Options, learned: bool) -> Sequential:
    """Make the model of ``plain``, which is ``model`` with its batch normalisation folded."""
    made = _Rewriting(plain.network, ranges, options, learned).layers(plain.input_and_layers)
    aware = empty_like(plain, model.name, made)
    aware.epochs_trained = model.epochs_trained
    aware.network.take_tensors(plain.network)
    _set_kernel_scales(aware.network, options.granularity)
    aware.network.take_mask(model.network)
    aware.compile_like(model)
    return aware


class _Rewriting:
    """The rewriting of layers as ones that train with rounding.

    Parameters
    ----------
    network : Network
        Network of the layers.
    ranges : Ranges
        Ranges of its rows.
    options : Options
        Options that training settles.
    learned : bool
        Whether ranges are to be trained.
    """

    def __init__(self, network: Network, ranges: Ranges, options: Options, learned: bool) -> None:
        self._input, self._options, self._learned = ranges.input, options, learned
        self._dtype, self._bits = options.activation_dtype, options.bits
        self._rows = {row.name: row for row in network.rows()}
        self._ranges = {row.name: both for row, *both in zip(network.rows(), ranges.pre, ranges.output, strict=True)}

    def layers(self, layers: Sequence[Layer]) -> list[Layer]:
        """Return the whole model's layers."""
        first = next(i for i, layer in enumerate(layers) if not isinstance(layer, Input | Flatten))
        taken = {layer.name for layer in layers}
        name = _new_name("input_values", taken)
        settled = {option: getattr(self._options, option) for option in SETTLED}
        rounding = FakeQuantize(*self._input, self._dtype, learned=False, options=settled, name=name)
        return [*(layer.copy() for layer in layers[:first]), rounding, *self._inner(layers[first:], "", taken)]

    def _inner(self, layers: Sequence[Layer], prefix: str, taken: set[str]) -> list[Layer]:
        """Rewrite layers whose rows' names begin with ``prefix``."""
        made: list[Layer] = []
        rest = list(layers)
        while rest:
            layer = rest.pop(0)
            row = self._rows.get(prefix + layer.name)
            if isinstance(layer, Dense) and row is not None:
                if layer.activity_regularizer is not None:
                    layer, penalty = _without_penalty(layer, taken)
                    rest.insert(0, penalty)
                merged: list[Activation] = []  # as the builder does it: activations in the dense layer's row
                while rest and isinstance(following := rest[0], Activation) and _are_linear(layer, *merged):
                    merged.append(following)
                    rest.pop(0)
                made += self._dense(layer, merged, row, taken)
                if row.activation.name == "linear" and self._clamps(rest, prefix):
                    del made[-1]  # the integer model clamps as it rounds
            elif isinstance(layer, Residual):
                made += self._residual(layer, prefix + layer.name, taken)
            else:
                made.append(layer.copy())
                if isinstance(layer, Activation) and row is not None:
                    made += self._output(layer.name, row, taken)
        return made

    def _clamps(self, layers: Sequence[Layer], prefix: str) -> bool:
        """Tell whether the next of the layers, but for those that only train, is an activation that only clamps."""
        following = next((layer for layer in layers if not layer.only_trains), None)
        row = self._rows.get(prefix + following.name) if isinstance(following, Activation) else None
        return row is not None and is_clamp(row.activation)

    def _dense(self, layer: Dense, merged: list[Activation], row: Row, taken: set[str]) -> list[Layer]:
        """Rewrite a dense layer and the activations in its row, with the rounding before and behind them."""
        config = layer.get_config() | {"kernel_bits": self._bits}
        after: list[Layer] = [activation.copy() for activation in merged]
        if is_clamp(row.activation):
            return [FakeQuantizedDense(**config), *after, *self._output(layer.name, row, taken)]
        if not _are_linear(layer):
            after = [Activation(layer.activation, _new_name(f"{layer.name}_{row.activation.name}", taken))]
        made: list[Layer] = [FakeQuantizedDense(**config | {"activation": None})]
        pre, output = self._ranges[row.name]
        if row.activation.name != "softmax":
            fixed = FIXED_OUTPUTS.get(row.activation.name)
            scaled = (fixed[0], fixed[1][self._dtype]) if fixed else activation_parameters(output, self._dtype)
            pre = without_flat_ends(row, pre, scaled, self._dtype)
        name = _new_name(f"{layer.name}_pre_activations", taken)
        return [*made, FakeQuantize(**self._range(pre), name=name), *after, *self._output(layer.name, row, taken)]

    def _residual(self, layer: Residual, path: str, taken: set[str]) -> list[Layer]:
        """Rewrite a block, with the rounding of its sum."""
        inner = self._inner(layer.layers, f"{path}/", {inside.name for inside in layer.layers})
        name = f"{path}/projection"
        projection = self._range(self._ranges[name][1]) if name in self._ranges else None
        block = FakeQuantizedResidual(inner, projection, self._bits, layer.name, layer.trainable)
        return [block, *self._output(layer.name, self._rows[path], taken)]

    def _output(self, name: str, row: Row, taken: set[str]) -> list[Layer]:
        """Make the rounding of a row's output; of a softmax and of a copy, none."""
        activation = row.activation.name
        if activation == "softmax" or (row.kind is ACTIVATION and activation == "linear"):
            return []
        name = _new_name(f"{name}_values", taken)
        if row.kind in (DENSE, ACTIVATION) and activation in FIXED_OUTPUTS:
            scale, zero_point = FIXED_OUTPUTS[activation][0], FIXED_OUTPUTS[activation][1][self._dtype]
            low, high = (scale * (limit - zero_point) for limit in LIMITS[self._dtype])
            return [FakeQuantize(low, high, self._dtype, learned=False, name=name)]
        which = 1 if row.kind is not DENSE or not is_clamp(row.activation) else 0
        return [FakeQuantize(**self._range(self._ranges[row.name][which]), name=name)]

    def _range(self, bounds: Range) -> dict[str, Any]:
        """Return arguments of a FakeQuantize; the range of unknown values is [0, 1], as for quantize."""
        scale, zero_point = activation_parameters(bounds, self._dtype)
        low, high = min(float(np.float32(bounds[0])), 0.0), max(float(np.float32(bounds[1])), 0.0)
        if (scale, zero_point) == activation_parameters((0.0, 0.0), self._dtype):
            low, high = 0.0, 1.0
        return {"low": low, "high": high, "dtype": self._dtype, "learned": self._learned}


def _without_penalty(layer: Dense, taken: set[str]) -> tuple[Dense, ActivityRegularization]:
    """Return a dense layer without its penalty on what it puts out, and that as a layer."""
    made, regularizer = layer.copy(), layer.activity_regularizer
    made.activity_regularizer = None
    assert regularizer is not None
    name = _new_name(f"{layer.name}_activity", taken)
    return made, ActivityRegularization(regularizer.l1, regularizer.l2, name)


def _are_linear(*layers: Dense | Activation) -> bool:
    return all(layer.activation.name == "linear" for layer in layers)


def _new_name(wanted: str, taken: set[str]) -> str:
    """Find a name that no layer has yet, among ``taken`` from now on."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def _dtype_of(row: Any) -> str:
    """Return the dtype that a FAKE_QUANT row stands for."""
    ends = tuple(int(FAKE_QUANT.setting(row, end)) for end in ("least", "most"))
    return next(dtype for dtype, limits in LIMITS.items() if limits == ends)


def _set_kernel_scales(network: Network, granularity: str) -> None:
    """Give every rounded kernel the scales that suit its weights."""
    at = {parameter.offset: network.tensor(parameter) for parameter in network.parameters}
    input_scales: dict[int, float] = {}
    for row in network.inference:
        scale = input_scales.get(int(row["input"]), 1 / 255)
        if kind_of(row) is FAKE_QUANT:
            scale = activation_parameters(range_of(network, row), _dtype_of(row))[0]
        elif row["scales"] >= 0:
            bias = at[int(row["bias"])] if row["bias"] >= 0 else np.zeros(int(row["n_out"]))
            kernel = at[int(row["kernel"])]
            at[int(row["scales"])][...] = kernel_scales(kernel, bias, scale, int(row["limit"]), granularity)
        input_scales[int(row["output"])] = scale


def kernel_scales(
    kernel: npt.NDArray[Any], bias: npt.NDArray[Any], input_scale: float, limit: int, granularity: str
) -> npt.NDArray[np.float32]:
    """Choose scales for weights that are to become integers in [-limit, limit].

    Parameters
    ----------
    kernel : ndarray, (n_in, n_out)
        Float weights.
    bias : ndarray, (n_out,)
        Float biases: no scale is so fine that they would leave int32 as integers of ``input_scale * scale``.
    input_scale : float
        Scale of the layer's input.
    limit : int
        127: the largest weight has the largest integer. 7: it may have less, if that rounds the weights with a
        smaller squared error.
    granularity : str
        "per_channel" or "per_tensor".

    Returns
    -------
    ndarray of float32, (n_out,)
        A column of zeros has the scale of the column with the largest weight.
    """
    weights = np.asarray(kernel, np.float32)
    largest = np.abs(weights).max(axis=0) / np.float32(limit)
    if granularity == "per_tensor":
        largest[:] = largest.max()
    tiny = np.finfo(np.float32).tiny
    largest = np.where(largest < tiny, np.float32(max(largest.max(), tiny)) if largest.any() else 1.0, largest)
    scales = largest = largest.astype(np.float32)
    if limit < 127:
        least = np.full(len(largest), np.inf)
        for share in _SHARES:
            tried = largest * np.float32(share)
            errors = np.square(np.clip(np.rint(weights / tried), -limit, limit) * tried - weights)
            error = errors.sum(axis=0, dtype=np.float64)
            if granularity == "per_tensor":
                error[:] = error.sum()
            scales = np.where(error < least, tried, scales)
            least = np.minimum(error, least)
    finest = (np.abs(np.asarray(bias, np.float64)) / (input_scale * _BIAS_STEPS)).astype(np.float32)
    if granularity == "per_tensor":
        finest[:] = finest.max()
    return np.maximum(scales, finest).astype(np.float32)
