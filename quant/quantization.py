"""quantize(): from a float network to a quantized one."""

from __future__ import annotations

from typing import Any

from nbdense.network import Network
from nbdense.quant.conversion import budget
from nbdense.quant.conversion.assembly import assemble
from nbdense.quant.conversion.plan import source_of
from nbdense.quant.conversion.quantizer import Quantizer
from nbdense.quant.estimators import FittedEstimator, is_estimator
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.scoring import compiled_of
from nbdense.quant.reporting.report import with_findings
from nbdense.quant.schemes.options import Options
from nbdense.quant.schemes.table import scheme_of


def quantize(
    model: Any,
    calibration: Any = None,
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
    accuracy_budget: float | None = None,
    evaluate: Any = None,
) -> Any:
    """Turn a trained model into a quantized one, of integers.

    Batch normalisations go into the dense layers before them first, where they can. A model that was trained by
    `quantize_aware` brings its ranges and scales with it, and takes no calibration data.

    Parameters
    ----------
    model : Sequential or Network
        The trained float model; not changed. Or a fitted estimator of `nbdense.estimators`, or a Pipeline that ends in
        one: then calibration data and evaluation sets are as its ``predict`` and ``score`` take them.
    calibration : array-like, (rows, *input_shape), or batches
        Inputs as they will come in use, a few hundred rows: an array (a memmap is read slice by slice), a list of
        arrays, or a function that returns an iterator over them. Scheme "static" needs it.
    scheme : str
        "static": integers all the way. Weights become int8, symmetric about 0; activations int8 or uint8 with one scale
        and zero point a tensor, from the calibration data; biases int32. Activations other than clamps become tables
        of 256 entries, residual sums are rescaled; normalisations of rows, and of batches where these cannot be
        folded, stay in float. "dynamic": int8 weights; each dense layer's input is quantized to uint8 by the range that
        it has in the call, as ONNX's DynamicQuantizeLinear does it, and all else is float. "weight_only": weights are
        stored as integers, and everything is computed in float.
    bits : int
        Bits of the weights: 8, or 4, of which two are stored in a byte.
    granularity : str
        "per_channel": a weight scale for each output column; "per_tensor": one for each kernel; "block", with
        "weight_only": one for each ``block_size`` inputs of a column.
    block_size : int
        Inputs that share a scale, where granularity is "block".
    range_method : str
        How ranges come from calibration data: "minmax", "percentile", "mse" or "entropy" (see
        `nbdense.quant.calibration.calibration.calibrate`).
    activation_dtype : str
        "int8" or "uint8", of scheme "static".
    symmetric : bool
        Whether activations have their zero point in the middle of the type, with which some accelerators save a sum.
    softmax : str
        A softmax at the end is computed in "float", or in "integer" arithmetic with the output scale 1/256.
    solver : str
        How weights are rounded: "nearest"; "gptq", which makes up for each rounding error in the weights still to be
        rounded (Frantar et al. 2022); "auto": GPTQ at 4 bits where there is calibration data.
    equalize : bool
        Level the ranges of channels across layers first (Nagel et al. 2019).
    bias_correction : bool
        Take the shift that quantization causes in the mean of each layer's pre-activations off its bias (the same).
    rounding : str
        How accumulators are requantised: "onnx", as onnxruntime and XNNPACK do; "tflite", as LiteRT's reference kernels
        do; "gemmlowp", as TFLite's former ones and CMSIS-NN do; "ruy", as LiteRT's optimised built-in kernels do.
    accuracy_budget : float, optional
        How much worse than the float model's the score of ``evaluate`` may be. Layers that cost most get 8 bits, if
        they have 4, and then stay in float, one after the other, until it is kept; `QuantizedModel.report` says which.
    evaluate : (x, y), or callable
        An evaluation set, of which the score is the share of right classes (y of
        class numbers, or one-hot) or the coefficient of determination R^2 (other y); or a function that takes
        something with ``predict`` and returns a score, of which more is better.

    Returns
    -------
    QuantizedModel, or an estimator or Pipeline like the one that was given, whose ``model_`` it is

    Raises
    ------
    TypeError, ValueError
        For an option that there is not, calibration data that is missing, empty, of the wrong shape or not
        finite, or a layer that cannot be quantized: the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = Sequential([Input((4,)), Dense(8, activation="relu"), Dense(3, activation="softmax")])
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> q = quantize(model, x)
    >>> q.network.layers[0].kernel.dtype, q.size_bytes
    (dtype('int8'), 144)
    >>> bool(np.abs(q.predict(x) - model.predict(x)).max() < 0.05)
    True
    """
    options = Options(
        scheme=scheme,
        bits=bits,
        granularity=granularity,
        block_size=block_size,
        range_method=range_method,
        activation_dtype=activation_dtype,
        symmetric=symmetric,
        softmax=softmax,
        solver=solver,
        equalize=equalize,
        bias_correction=bias_correction,
        rounding=rounding,
    )
    scheme_of(options)
    if not is_estimator(model):
        return _quantized(model, calibration, options, accuracy_budget, evaluate)
    budget.check(accuracy_budget, evaluate)
    fitted = FittedEstimator("quantize", model)
    inputs, score = fitted.inputs(calibration), fitted.evaluation(evaluate)
    return fitted.with_model(_quantized(fitted.model, inputs, options, accuracy_budget, score))


def _quantized(
    model: Any, calibration: Any, options: Options, accuracy_budget: float | None, evaluate: Any
) -> QuantizedModel:
    """Return the quantized model of a trained one."""
    network: Network = source_of(model)
    if not isinstance(network, Network):
        raise ValueError(f"quantize: expected a built model or a Network, got {type(model).__name__}")
    budget.check(accuracy_budget, evaluate)
    quantizer = Quantizer(network, calibration, options)
    if accuracy_budget is None:
        quantized = assemble(quantizer, {})
        findings: dict[str, Any] = {}
    else:
        quantized, findings = budget.search(quantizer, model, accuracy_budget, evaluate)
    made = QuantizedModel(with_findings(quantized, quantizer, findings), compiled_of(model))
    made.float_network = quantizer.source
    return made
