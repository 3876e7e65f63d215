"""Hypothesis strategies: sizes, arrays, stacks of layers, training's choices, and arguments that make no sense."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nbdense.activations import ACTIVATIONS
from nbdense.layers import layer_from_config
from tests.reference import naive
from tests.support.stacks import made, randomise

SIZES = st.sampled_from(sorted(naive.ODD_SIZES))  # shrinks to 1
SEEDS = st.integers(0, 2**32 - 1)


def activations(width=2):
    """Names of activations; a softmax of one column is refused."""
    return st.sampled_from([name for name in ACTIVATIONS if width > 1 or name != "softmax"])


# -- layers: as (kind, config), which a failure prints, and which layer_from_config makes layers of --


@st.composite
def dense(draw):
    units = draw(st.integers(1, 19))
    return "dense", {"units": units, "activation": draw(activations(units)), "use_bias": draw(st.booleans())}


def norms(kind):
    switches = {"center": st.booleans(), "scale": st.booleans(), "epsilon": st.sampled_from([1e-3, 1e-2])}
    return st.tuples(st.just(kind), st.fixed_dictionaries(switches))


def rms_norm():
    return st.tuples(st.just("rms_normalization"), st.fixed_dictionaries({"epsilon": st.sampled_from([1e-6, 1e-2])}))


def elementwise(width):
    return st.one_of(
        st.tuples(st.just("activation"), st.fixed_dictionaries({"activation": activations(width)})),
        st.tuples(st.just("re_lu"), st.fixed_dictionaries({"max_value": st.sampled_from([None, 6.0, 1.5])})),
        st.tuples(st.just("leaky_re_lu"), st.fixed_dictionaries({"negative_slope": st.floats(0, 1)})),
        st.tuples(st.just("dropout"), st.fixed_dictionaries({"rate": st.sampled_from([0.0, 0.25, 0.5])})),
    )


@st.composite
def chains(draw, width, depth=2, most=4):
    """Layers of rows of any kind, those of Residual blocks included."""
    layers = []
    for _ in range(draw(st.integers(1, most))):
        kinds = [dense(), elementwise(width), norms("batch_normalization"), norms("layer_normalization"), rms_norm()]
        if depth:
            kinds.append(chains(width, depth - 1, 2).map(residual))
        layers.append(draw(st.one_of(kinds)))
        width = width_behind(layers[-1], width)
    return layers


def residual(layers):
    return "residual", {"layers": [{"kind": kind, "config": config} for kind, config in layers]}


def width_behind(layer, width):
    kind, config = layer
    if kind == "residual":
        for inner in config["layers"]:
            width = width_behind((inner["kind"], inner["config"]), width)
    return config.get("units", width)


@st.composite
def stacks(draw, last=None):
    """(the input's shape, the layers): any chain, perhaps of several positions, and a dense layer at the end."""
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), draw(st.integers(1, 17)))
    layers = draw(chains(shape[-1]))
    if len(shape) > 1:
        layers.append(("flatten", {}))
    units = draw(st.integers(2, 5))
    final = draw(activations(units)) if last is None else last
    return shape, [*layers, ("dense", {"units": units, "activation": final})]


def model_of(stack, dtype="float32", seed=3):
    shape, layers = stack
    return randomise(made([layer_from_config(*layer) for layer in layers], shape, dtype, seed), seed)


# -- arguments that may make no sense --

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
DECIMALS = st.decimals().filter(lambda number: not number.is_snan())  # which raises wherever it is looked at
NUMBERS = st.one_of(st.booleans(), st.integers(), st.floats(), st.complex_numbers(), DECIMALS, st.fractions())
OTHERS = st.one_of(st.none(), st.text(max_size=5), st.binary(max_size=5), st.dates(), st.sampled_from([int, len, ...]))
THINGS = NUMBERS | OTHERS


def arrays(shapes=SHAPES):
    """Arrays of any dtype, real or not, masked or not."""
    plain = hnp.arrays(hnp.scalar_dtypes(), shapes)
    return st.one_of(plain, plain.map(lambda array: np.ma.array(array, mask=True)), plain.map(lambda a: a.tolist()))


def anything(*shapes):
    """Whatever might be given for an argument: things, arrays of the shapes or of any, and lists and dicts of these."""
    single = st.one_of(THINGS, arrays(), *(arrays(st.just(shape)) for shape in shapes))
    keys = st.one_of(st.text(max_size=3), st.integers(-1, 3))
    return st.one_of(single, st.lists(single, max_size=3), st.dictionaries(keys, single, max_size=2))
