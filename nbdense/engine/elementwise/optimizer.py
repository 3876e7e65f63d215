"""Optimizer steps over a range of the flat vectors: parameters, gradients and state, each touched once.

``state[0]`` holds the gradients, the further rows an optimizer's slots. Formulas are Keras 3's; every operation is
elementwise, so a range may be cut anywhere without changing a bit.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from nbdense._compile.policy import intrinsic, kernel
from nbdense.engine.elementwise.custom import call_step
from nbdense.engine.kernels.microkernel import I32, I64, VECTOR_BYTES, multiply_add, splat
from nbdense.engine.on_demand import on_demand

NONE, ADAM, NADAM, CALLED = range(4)  # CALLED, and Nadam, by the address of a loop
MOST_SLOTS = 3
# Places in hyper, of each optimizer's ``fields``.
MOMENTUM, NESTEROV = 0, 1
BETA_1, BETA_2, EPSILON, AMSGRAD = 0, 1, 2, 3
RHO, RMS_MOMENTUM, RMS_EPSILON, CENTERED = 0, 1, 2, 3
INITIAL, ADAGRAD_EPSILON = 0, 1
OF_MEAN, OF_GRADIENT, OF_SQUARE = 9, 10, 11  # that rate_of_step leaves for nadam: its factors in this step
HYPER = 12

NADAM_DECAY = 0.96  # of Nadam's momentum schedule
NADAM_TERMS = 48  # of its product's series: the next is below 1e-17


@kernel
def sgd(params, state, low, high, rate, hyper):
    """Take the step of gradient descent, plain or with a momentum, Nesterov's or not; the slot is the velocity."""
    number = params.dtype.type
    rate = number(rate)
    momentum = number(hyper[MOMENTUM])
    w, g = params[low:high], state[0, low:high]
    if hyper[MOMENTUM] == 0.0:
        for i in range(w.size):
            w[i] = w[i] - rate * g[i]
        return
    v = state[1, low:high]
    if hyper[NESTEROV] == 0.0:
        for i in range(w.size):
            v[i] = momentum * v[i] - rate * g[i]
            w[i] = w[i] + v[i]
    else:
        for i in range(w.size):
            v[i] = momentum * v[i] - rate * g[i]
            w[i] = w[i] + (momentum * v[i] - rate * g[i])


# Each loop below has few arrays: the compiler checks that none overlaps another, and gives up on vectors where that
# would take more than eight comparisons. A slab is in the cache when the next loop comes to it.


@kernel
def _move_mean(mean, values, rest):
    """Move a mean towards the values; so written, it has no bias from the rounding of 1 - rest."""
    for i in range(mean.size):
        mean[i] = mean[i] + (values[i] - mean[i]) * rest


@kernel
def _move_mean_square(mean, values, rest):
    for i in range(mean.size):
        mean[i] = mean[i] + (values[i] * values[i] - mean[i]) * rest


@kernel
def rmsprop(params, state, low, high, rate, hyper):
    """Take RMSprop's step (Hinton, lecture 6e), epsilon in the root. Slots: mean square, momentum and mean, if any."""
    number = params.dtype.type
    rate, epsilon, zero = number(rate), number(hyper[RMS_EPSILON]), number(0.0)
    momentum = number(hyper[RMS_MOMENTUM])
    moves = hyper[RMS_MOMENTUM] != 0.0
    w, g, v = params[low:high], state[0, low:high], state[1, low:high]
    _move_mean_square(v, g, number(1.0 - hyper[RHO]))
    step = state[2 if moves else 1, low:high]
    if hyper[CENTERED] != 0.0:
        mean = state[3 if moves else 2, low:high]
        _move_mean(mean, g, number(1.0 - hyper[RHO]))
        # A variance is not negative, but what is left of a constant gradient's may be, by rounding.
        if moves:
            for i in range(w.size):
                spread = v[i] - mean[i] * mean[i]
                spread = zero if spread < zero else spread
                step[i] = momentum * step[i] + rate * g[i] / math.sqrt(spread + epsilon)
        else:
            for i in range(w.size):
                spread = v[i] - mean[i] * mean[i]
                spread = zero if spread < zero else spread
                w[i] = w[i] - rate * g[i] / math.sqrt(spread + epsilon)
    elif moves:
        for i in range(w.size):
            step[i] = momentum * step[i] + rate * g[i] / math.sqrt(v[i] + epsilon)
    else:
        for i in range(w.size):
            w[i] = w[i] - rate * g[i] / math.sqrt(v[i] + epsilon)
    if moves:
        for i in range(w.size):
            w[i] = w[i] - step[i]


@kernel
def adagrad(params, state, low, high, rate, hyper):
    """Take Adagrad's step (Duchi et al. 2011); epsilon is inside the root.

    The accumulator's initial value is added here, so that slots start at zero, in the padding too.
    """
    number = params.dtype.type
    rate, first = number(rate), number(hyper[INITIAL] + hyper[ADAGRAD_EPSILON])
    w, g, total = params[low:high], state[0, low:high], state[1, low:high]
    for i in range(w.size):
        total[i] = total[i] + g[i] * g[i]
        w[i] = w[i] - rate * g[i] / math.sqrt(total[i] + first)


@kernel
def amsgrad(params, state, low, high, alpha, hyper):
    """Take AMSGrad's step: Adam by the largest mean square so far (Reddi et al. 2018, "On the Convergence of Adam")."""
    number = params.dtype.type
    alpha, epsilon = number(alpha), number(hyper[EPSILON])
    w, g, m, v = params[low:high], state[0, low:high], state[1, low:high], state[2, low:high]
    largest = state[3, low:high]
    _move_mean(m, g, number(1.0 - hyper[BETA_1]))
    _move_mean_square(v, g, number(1.0 - hyper[BETA_2]))
    for i in range(w.size):
        largest[i] = largest[i] if largest[i] > v[i] else v[i]
        w[i] = w[i] - alpha * m[i] / (math.sqrt(largest[i]) + epsilon)


@kernel
def nadam(params, state, low, high, rate, hyper):
    """Take Nadam's step, its momentum schedule included (Dozat 2016, "Incorporating Nesterov Momentum into Adam")."""
    number = params.dtype.type
    of_mean, of_gradient = number(rate * hyper[OF_MEAN]), number(rate * hyper[OF_GRADIENT])
    of_square, epsilon = number(hyper[OF_SQUARE]), number(hyper[EPSILON])
    w, g, m, v = params[low:high], state[0, low:high], state[1, low:high], state[2, low:high]
    _move_mean(m, g, number(1.0 - hyper[BETA_1]))
    _move_mean_square(v, g, number(1.0 - hyper[BETA_2]))
    for i in range(w.size):
        w[i] = w[i] - (of_mean * m[i] + of_gradient * g[i]) / (math.sqrt(v[i] * of_square) + epsilon)


@kernel
def _power(base, exponent):
    """Return base ** exponent, a whole number from 0, by squaring: numba's takes a tenth of a second to compile."""
    if exponent > 65536:
        return math.pow(base, float(exponent))
    total = 1.0
    while exponent != 0:
        if exponent & 1:
            total *= base
        exponent >>= 1
        base *= base
    return total


@kernel
def prepare_nadam(step, hyper):
    """Write the factors of Nadam's ``step``-th step into ``hyper``.

    The product of the momenta u_s = beta_1 (1 - 0.96^s / 2), s = 1..t, is taken from the series of its logarithm:
    with a = 0.48 and q = 0.96 it is beta_1^t exp(-sum over n of a^n (1 - q^(n t)) / (n (1 - q^n))), no product of t
    factors.
    """
    behind = _power(NADAM_DECAY, step)
    now, later = hyper[BETA_1] * (1.0 - 0.5 * behind), hyper[BETA_1] * (1.0 - 0.5 * behind * NADAM_DECAY)
    total, a, q, power = 0.0, 1.0, 1.0, 1.0
    for n in range(1, NADAM_TERMS + 1):
        a *= 0.5 * NADAM_DECAY
        q *= NADAM_DECAY
        power *= behind
        total += a * (1.0 - power) / (n * (1.0 - q))
    product = _power(hyper[BETA_1], step) * math.exp(-total)
    hyper[OF_MEAN] = later / (1.0 - product * later)
    hyper[OF_GRADIENT] = (1.0 - now) / (1.0 - product)
    hyper[OF_SQUARE] = 1.0 / (1.0 - _power(hyper[BETA_2], step))


@kernel
def lion(params, state, low, high, rate, hyper):
    """Take Lion's step (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2)."""
    number = params.dtype.type
    rate, zero = number(rate), number(0.0)
    keep, rest = number(hyper[BETA_1]), number(1.0 - hyper[BETA_1])
    w, g, m = params[low:high], state[0, low:high], state[1, low:high]
    for i in range(w.size):
        mixed = keep * m[i] + rest * g[i]
        # Of zero it makes no step, of NaN it makes NaN.
        w[i] = w[i] - (rate if mixed > zero else (-rate if mixed < zero else mixed))
    _move_mean(m, g, number(1.0 - hyper[BETA_2]))


def _plain_adam(params, state, low, high, at, alpha, rest_1, rest_2, epsilon):
    w, g, m, v = params[low:high], state[0, at : at + high - low], state[1, low:high], state[2, low:high]
    for i in range(w.size):
        m[i] = m[i] + (g[i] - m[i]) * rest_1
        v[i] = v[i] + (g[i] * g[i] - v[i]) * rest_2
        w[i] = w[i] - alpha * (m[i] / (math.sqrt(v[i]) + epsilon))


@intrinsic(_plain_adam)
def adam_range(typing_context, params, state, low, high, at, alpha, rest_1, rest_2, epsilon):
    """Take Adam's step on parameters low..high, whole vectors: high - low is a multiple of the vector's lanes.

    Their gradients begin at ``at`` in ``state[0]``.

    The square root and the division share a unit, which is what bounds a plain loop: with AVX-512 the quotient is an
    estimate and what its remainder says (within an ulp) where the numbers are in the range in which that holds, and
    exact elsewhere. Epsilon is outside the root.
    """
    number = params.dtype
    signature = types.void(params, state, *(types.int64,) * 3, *(number,) * 4)

    def codegen(context, builder, signature, arguments):
        params, state, low, high, at, *scalars = arguments
        element = context.get_value_type(number)
        lanes = VECTOR_BYTES // (number.bitwidth // 8)
        vector = ir.VectorType(element, lanes)
        base = context.make_array(signature.args[0])(context, builder, params).data
        slots = context.make_array(signature.args[1])(context, builder, state)
        row = cgutils.unpack_tuple(builder, slots.shape)[1]
        constants = [splat(builder, scalar, vector) for scalar in scalars]
        step = ir.Constant(I64, lanes)
        with cgutils.for_range_slice(builder, low, high, step, I64, inc=True) as (i, _):
            places = [builder.gep(base, [i]), builder.gep(slots.data, [builder.add(builder.sub(i, low), at)])]
            places += [builder.gep(slots.data, [builder.add(i, builder.mul(row, ir.Constant(I64, k)))]) for k in (1, 2)]
            places = [builder.bitcast(place, vector.as_pointer()) for place in places]
            w, g, m, v = (builder.load(place, align=number.bitwidth // 8) for place in places)
            written = [places[0], places[2], places[3]]  # all but the gradient
            for place, value in zip(written, _emit_adam(builder, w, g, m, v, *constants), strict=True):
                builder.store(value, place, align=number.bitwidth // 8)
        return context.get_dummy_value()

    return signature, codegen


# Bits of what mean squares are below where their roots, and epsilon, which is a normal number, have inverses.
_ESTIMABLE = int(np.float32(1e30).view(np.int32))


def _emit_adam(builder, w, g, m, v, alpha, rest_1, rest_2, epsilon):
    """Emit Adam's step on one vector; return the new (w, m, v)."""
    vector = w.type
    m = multiply_add(builder, builder.fsub(g, m), rest_1, m)
    v = multiply_add(builder, multiply_add(builder, g, g, builder.fneg(v)), rest_2, v)
    suffix = f"v{vector.count}f{'32' if isinstance(vector.element, ir.FloatType) else '64'}"
    root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), f"llvm.sqrt.{suffix}")
    below = builder.fadd(builder.call(root, [v]), epsilon)
    if VECTOR_BYTES != 64 or not isinstance(vector.element, ir.FloatType):
        change = builder.fdiv(m, below)
    else:
        # As integers, floats from 0 up are in their order, and all others above them.
        bits, lanes = ir.VectorType(I32, vector.count), ir.IntType(vector.count)
        inside = builder.icmp_unsigned("<", builder.bitcast(v, bits), ir.Constant(bits, [_ESTIMABLE] * vector.count))
        all_inside = builder.icmp_signed("==", builder.bitcast(inside, lanes), ir.Constant(lanes, -1))
        with builder.if_else(all_inside, likely=True) as (fast, slow):
            with fast:
                inverse = _estimated_inverse(builder, below)
                quotient = builder.fmul(m, inverse)
                rest = multiply_add(builder, builder.fneg(below), quotient, m)
                quick = multiply_add(builder, rest, inverse, quotient)
                fast_block = builder.block
            with slow:
                careful = builder.fdiv(m, below)
                slow_block = builder.block
        change = builder.phi(vector)
        change.add_incoming(quick, fast_block)
        change.add_incoming(careful, slow_block)
    return multiply_add(builder, builder.fneg(alpha), change, w), m, v


def _estimated_inverse(builder, value):
    """Emit AVX-512's estimate of 1 / value, to 14 bits."""
    vector, i16 = value.type, ir.IntType(16)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector, vector, i16]), "llvm.x86.avx512.rcp14.ps.512"
    )
    return builder.call(function, [value, value, ir.Constant(i16, -1)])


_prepare = on_demand("prepare", prepare_nadam, globals())


@kernel
def rate_of_step(run, rate, step, hyper):
    """Return the learning rate as a run's optimizer changes it in its ``step``-th step, numbered from 1: once a step.

    Adam's bias correction is in it: Kingma and Ba, "Adam" (2015), the efficient order at the end of section 2. What
    else `update` needs of the step's number goes into the end of ``hyper``.
    """
    if run["optimizer"] == ADAM:
        return rate * math.sqrt(1.0 - _power(hyper[BETA_2], step)) / (1.0 - _power(hyper[BETA_1], step))
    if run["optimizer"] == NADAM:
        _prepare(run, step, hyper)
    return rate


@kernel
def may_pass(code, call):
    """Tell whether `update` finds gradients that lie elsewhere than their parameters do, by the optimizer's codes."""
    return code == ADAM and call == 0


@kernel
def update(code, call, params, state, low, high, at, rate, step, hyper):
    """Take the ``step``-th step (from 1) of an optimizer on parameters low..high; ``rate`` is `rate_of_step`'s.

    ``code`` is one of the above; ``call`` the address of a loop that takes the step, or 0. Gradients begin at ``at`` in
    ``state[0]``: at ``low``, but for optimizers whose gradients `may_pass`.
    """
    if call != 0:
        call_step(call, params, state, low, high, rate, step, hyper)
    elif code == ADAM:
        number = params.dtype.type
        rest_1, rest_2 = number(1.0 - hyper[BETA_1]), number(1.0 - hyper[BETA_2])
        adam_range(params, state, low, high, at, number(rate), rest_1, rest_2, number(hyper[EPSILON]))
