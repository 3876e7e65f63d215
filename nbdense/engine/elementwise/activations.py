"""The table of activations: one row holds all that the library knows of one, but its ONNX form.

`nbdense.engine.elementwise.formulas` has the mathematics. To add an activation, add a row. Those that clamp are
compiled into the program, and softmax, in which most classifiers end; code ON_DEMAND spares every program the rest.
"""

from __future__ import annotations

import math

from nbdense.engine.elementwise.activation import ON_DEMAND as ON_DEMAND
from nbdense.engine.elementwise.activation import POSITIVE, Parameter
from nbdense.engine.elementwise.activation import Activation as Activation
from nbdense.engine.elementwise.formulas import FORMULAS

# -- what Keras's arguments choose --


def _rectifier(negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Activation:
    most = math.inf if max_value is None else max_value
    if not threshold and not negative_slope and most == math.inf:
        return ACTIVATIONS["relu"]
    if not threshold and not negative_slope and most:
        return ACTIVATIONS["relu6"].with_alpha(most)
    if not threshold and most == math.inf and negative_slope >= 0:
        return ACTIVATIONS["leaky_relu"].with_alpha(negative_slope)
    return ACTIVATIONS["thresholded_relu"].with_alpha((threshold, negative_slope, most))


def _leaky(negative_slope: float = 0.2, alpha: float | None = None) -> Activation:
    row = ACTIVATIONS["leaky_relu"]
    return row.with_alpha(negative_slope if alpha is None else alpha)


def _normal(approximate: bool = False) -> Activation:
    return ACTIVATIONS["gelu_tanh" if approximate else "gelu"]


def _soft(beta: float = 1.0, threshold: float = math.inf) -> Activation:
    if beta == 1 and threshold == math.inf:
        return ACTIVATIONS["softplus"]
    return ACTIVATIONS["softplus_beta"].with_alpha((beta, threshold))


# -- the table --

RELU, RELU6, SOFTMAX = 1, 2, 3
_ALPHA, _THRESHOLD = Parameter("alpha", POSITIVE), Parameter("threshold", 0.0)

ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in [
        Activation("linear", 0, *FORMULAS["linear"], True, "", homogeneous=True),
        Activation(
            "relu",
            RELU,
            *FORMULAS["relu"],
            True,
            "Relu",
            lower=0.0,
            variant=_rectifier,
            homogeneous=True,
            not_negative=True,
        ),
        Activation("sigmoid", ON_DEMAND, *FORMULAS["sigmoid"], True, "Sigmoid", not_negative=True),
        Activation("tanh", ON_DEMAND, *FORMULAS["tanh"], True, "Tanh"),
        Activation("softmax", SOFTMAX, *FORMULAS["softmax"], True, "Softmax", rowwise=True, not_negative=True),
        Activation(
            "relu6",
            RELU6,
            *FORMULAS["relu6"],
            True,
            "Clip",
            lower=0.0,
            upper=6.0,
            alpha=6.0,
            parameters=(_ALPHA,),
            clamp=lambda most: (0.0, most),
            not_negative=True,
        ),
        Activation(
            "leaky_relu",
            ON_DEMAND,
            *FORMULAS["leaky_relu"],
            True,
            "LeakyRelu",
            alpha=0.2,
            parameters=(Parameter("negative_slope", 0.0),),
            homogeneous=True,
        ),
        Activation("elu", ON_DEMAND, *FORMULAS["elu"], True, "Elu", alpha=1.0, parameters=(Parameter("alpha", 0.0),)),
        Activation("selu", ON_DEMAND, *FORMULAS["selu"], True, "Selu"),
        Activation("gelu", ON_DEMAND, *FORMULAS["gelu"], False, "", variant=_normal),
        Activation("gelu_tanh", ON_DEMAND, *FORMULAS["gelu_tanh"], False, ""),
        Activation("silu", ON_DEMAND, *FORMULAS["silu"], False, ""),
        Activation("hard_sigmoid", ON_DEMAND, *FORMULAS["hard_sigmoid"], True, "HardSigmoid", not_negative=True),
        Activation("hard_swish", ON_DEMAND, *FORMULAS["hard_swish"], False, "HardSwish"),
        Activation("softplus", ON_DEMAND, *FORMULAS["softplus"], True, "Softplus", variant=_soft, not_negative=True),
        Activation("mish", ON_DEMAND, *FORMULAS["mish"], False, ""),
        Activation("softsign", ON_DEMAND, *FORMULAS["softsign"], False, "Softsign"),
        Activation("exponential", ON_DEMAND, *FORMULAS["exponential"], True, "Exp", not_negative=True),
        Activation("celu", ON_DEMAND, *FORMULAS["celu"], True, "Celu", alpha=1.0, parameters=(_ALPHA,)),
        Activation("log_softmax", ON_DEMAND, *FORMULAS["log_softmax"], True, "LogSoftmax", rowwise=True),
        Activation("log_sigmoid", ON_DEMAND, *FORMULAS["log_sigmoid"], True, ""),
        Activation(
            "hard_tanh",
            ON_DEMAND,
            *FORMULAS["hard_tanh"],
            True,
            "",
            lower=-1.0,
            upper=1.0,
            alpha=(-1.0, 1.0),
            parameters=(Parameter("min_value", none=-math.inf), Parameter("max_value", none=math.inf)),
            clamp=lambda least, most: (least, most),
        ),
        Activation(
            "hard_shrink", ON_DEMAND, *FORMULAS["hard_shrink"], True, "Shrink", alpha=0.5, parameters=(_THRESHOLD,)
        ),
        Activation("soft_shrink", ON_DEMAND, *FORMULAS["soft_shrink"], True, "", alpha=0.5, parameters=(_THRESHOLD,)),
        Activation("tanh_shrink", ON_DEMAND, *FORMULAS["tanh_shrink"], False, ""),
        Activation(
            "squareplus",
            ON_DEMAND,
            *FORMULAS["squareplus"],
            False,
            "",
            alpha=4.0,
            parameters=(Parameter("b", POSITIVE),),
            not_negative=True,
        ),
        Activation(
            "softplus_beta",
            ON_DEMAND,
            *FORMULAS["softplus_beta"],
            False,
            "",
            alpha=(1.0, 20.0),
            parameters=(Parameter("beta", POSITIVE), Parameter("threshold", none=math.inf)),
            not_negative=True,
        ),
        Activation("sparse_plus", ON_DEMAND, *FORMULAS["sparse_plus"], False, "", not_negative=True),
        Activation("sparse_sigmoid", ON_DEMAND, *FORMULAS["sparse_sigmoid"], True, "", not_negative=True),
        Activation(
            "threshold",
            ON_DEMAND,
            *FORMULAS["threshold"],
            False,
            "",
            alpha=(0.0, 0.0),
            parameters=(Parameter("threshold"), Parameter("default_value")),
        ),
        Activation(
            "thresholded_relu",
            ON_DEMAND,
            *FORMULAS["thresholded_relu"],
            False,
            "ThresholdedRelu",
            alpha=(1.0, 0.0, math.inf),
            parameters=(_THRESHOLD, Parameter("negative_slope"), Parameter("max_value", 0.0, none=math.inf)),
        ),
    ]
}
_BY_CODE = {row.code: row for row in ACTIVATIONS.values() if row.code < ON_DEMAND}


def activation_by_code(code: int, alpha: float) -> Activation:
    """Return the activation of a layer table's code and parameter, of those that are compiled into the program.

    Parameters
    ----------
    code, alpha : int, float
        As in the table.
    """
    row = _BY_CODE[code]
    return row.with_alpha(alpha) if row.parameters else row
